"""The allocator is told once to keep what it has, where there is such an allocator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.model import memory


def test_keep_freed_memory_is_for_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False


def test_keep_freed_memory_does_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_library(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", no_such_library)
    assert memory.keep_freed_memory() is False


def test_keep_freed_memory_leaves_a_process_that_works() -> None:
    """In a process of its own, for the setting cannot be taken back."""
    code = (
        "from ownweights.model.memory import available_bytes, keep_freed_memory\n"
        "said = keep_freed_memory()\n"
        "blocks = [bytearray(1 << 22) for _ in range(8)]\n"
        "print(said in (True, False), sum(map(len, blocks)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(8 << 22)]


def test_available_bytes_is_the_least_that_anybody_says(tmp_path: Path) -> None:
    machine, group = tmp_path / "proc", tmp_path / "sys" / "fs" / "cgroup"
    machine.mkdir()
    group.mkdir(parents=True)
    (machine / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 700 kB\n")
    assert memory.available_bytes(tmp_path) == 700 * 1024
    (group / "memory.current").write_text("300000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes(tmp_path) == 700 * 1024
    (group / "memory.max").write_text("500000\n")
    assert memory.available_bytes(tmp_path) == 300_000
    (machine / "meminfo").write_text("MemAvailable: 100 kB\n")
    assert memory.available_bytes(tmp_path) == 100 * 1024


def test_available_bytes_where_nothing_is_said_is_all_there_is(tmp_path: Path) -> None:
    assert memory.available_bytes(tmp_path) > 10**8
