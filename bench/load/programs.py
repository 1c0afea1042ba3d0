"""The compiled programs: an upstream that answers after a fixed time, and whoever asks.

In: the C files beside this one and a compiler (gcc or cc). Out: a running mock, and a Report of
each run of the generator. Both run on one core, the gateways on another. The generator was checked
against wrk 4.1 (64 connections, closed loop, the mock at 20 ms, one core): 2,894 requests a second
and a median of 20.9 ms by ours, 2,797 and 21.0 ms by wrk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from bench.result import ROOT

HERE = Path(__file__).parent
BUILD_DIR = ROOT / "build" / "load"
_CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE, LOAD_CORE = _CORES[0], _CORES[min(1, len(_CORES) - 1)]


@dataclass(frozen=True, slots=True)
class Report:
    """What the generator found; times are from when a request was due. Words: load.c."""

    answers: int
    done: int
    errors: int
    non_200: int
    left: int
    unanswered: int
    seconds: float
    rps: float
    read_bytes: int
    issued: int
    whole_p50_ms: float
    whole_p95_ms: float
    whole_p99_ms: float
    whole_max_ms: float
    first_p50_ms: float
    first_p95_ms: float
    first_p99_ms: float
    first_max_ms: float


@dataclass(frozen=True, slots=True)
class Door:
    """Where to knock: a port of this machine, a path, and headers as `name: value`."""

    port: int
    path: str = "/v1/chat/completions"
    headers: tuple[str, ...] = ()


def program(name: str) -> Path:
    """The compiled program; built when its source changed."""
    source = b"".join((HERE / file).read_bytes() for file in ("http.h", f"{name}.c"))
    built = BUILD_DIR / f"{name}-{hashlib.sha256(source).hexdigest()[:12]}"
    if not built.exists():
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise SystemExit("the gateway's benches need a C compiler: gcc, or cc")
        BUILD_DIR.mkdir(parents=True, exist_ok=True)
        draft = built.with_name(f"{built.name}.{os.getpid()}")
        words = [compiler, "-O2", "-std=gnu11", "-o", str(draft), str(HERE / f"{name}.c")]
        subprocess.run(words, check=True)
        draft.rename(built)
    return built


@contextlib.contextmanager
def mock(*, delay_ms: float = 20.0, gap_ms: float = 5.0, chunks: int = 20) -> Iterator[int]:
    """The upstream, on the generator's core; its port."""
    words = [str(program("mock")), "--delay-ms", str(delay_ms), "--gap-ms", str(gap_ms),
             "--chunks", str(chunks)]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(process.pid, {LOAD_CORE})
        assert process.stdout is not None, "stdout is a pipe"
        yield json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.communicate()


def start_load(door: Door, bodies: Sequence[Path], *options: object) -> subprocess.Popen[str]:
    """The generator, begun; `options` are those of load.c. `report_of` waits for its end."""
    words = ["--port", door.port, "--path", door.path, *options]
    words += [word for header in door.headers for word in ("--header", header)]
    words += [word for body in bodies for word in ("--body", body)]
    process = subprocess.Popen(
        [str(program("load")), *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    os.sched_setaffinity(process.pid, {LOAD_CORE})
    return process


def report_of(process: subprocess.Popen[str]) -> Report:
    """What a generator found, once it has ended."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the load generator ended with {process.returncode}")
    found = json.loads(out)
    return Report(**{field.name: found[field.name] for field in fields(Report)})


def ask(door: Door, bodies: Sequence[Path], *options: object) -> Report:
    """Run the generator to its end."""
    return report_of(start_load(door, bodies, *options))
