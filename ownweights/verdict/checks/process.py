"""Run work that cannot be trusted to end, or to behave, in a process of its own.

In: a job for `confined.py` and its bounds. Out: what it said, or why it said nothing. The process
is Python with `-I -S -B`: no environment, no site-packages, no files written beside sources; its
folder is a new empty one. It and all it started are killed when it has spoken or its time is up
(test_run_confined_leaves_no_process_behind).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("confined.py")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the process may use. `isolated` asks the kernel to keep it from files, network, others.

    `isolated` is `no`, `partial` (as far as the kernel can) or `full` (or else nothing is run).
    """

    timeout_s: float
    memory_bytes: int
    isolated: str = "no"
    file_bytes: int = 10_000_000
    max_files: int = 64


@dataclass(frozen=True, slots=True)
class Ran:
    """What a job said; `said` is None when it was killed, died, or was not run at all.

    `isolation` says which of files, network and processes the kernel kept it from.
    """

    said: Any
    isolation: Mapping[str, bool]
    is_timeout: bool = False
    is_unconfined: bool = False


def run_confined(job: Mapping[str, Any], bounds: Bounds) -> Ran:
    """Do a job of confined.py."""
    sent = json.dumps({**job, "bounds": asdict(bounds)}).encode("ascii")
    words = [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(PROGRAM)]
    with tempfile.TemporaryDirectory(prefix="own-check-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder, env={"HOME": folder, "TMPDIR": folder}, start_new_session=True,
        )  # fmt: skip
        heard, is_timeout = _hear(process, sent, bounds.timeout_s)
    return _ran(heard, is_timeout)


def _hear(process: subprocess.Popen[bytes], sent: bytes, timeout_s: float) -> tuple[bytes, bool]:
    """What the process says in its time, and whether that ran out; it is dead afterwards."""
    with process:
        try:
            return process.communicate(sent, timeout=timeout_s)[0], False
        except subprocess.TimeoutExpired:
            return b"", True
        finally:
            _kill(process.pid)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _ran(heard: bytes, is_timeout: bool) -> Ran:
    try:
        found = json.loads(heard)
        return Ran(found["said"], found["isolation"], is_unconfined=not found["is_run"])
    except (ValueError, KeyError, TypeError):
        return Ran(None, {}, is_timeout=is_timeout)
