"""The allocator is told once to keep what it has, where there is such an allocator."""

from __future__ import annotations

import subprocess
import sys

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
        "from ownweights.model.memory import keep_freed_memory\n"
        "said = keep_freed_memory()\n"
        "blocks = [bytearray(1 << 22) for _ in range(8)]\n"
        "print(said in (True, False), sum(map(len, blocks)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(8 << 22)]
