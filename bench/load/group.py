"""A gateway as a process group on a core of its own: what it costs, holds and has open.

In: a command. Out: figures of all processes of its group, from /proc. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.programs import GATEWAY_CORE

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def stolen_ticks() -> tuple[int, int]:
    """Processor time that the host of a virtual machine took away, and all that passed."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that a command started, named by the first one's id."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, words: Sequence[str], env: Mapping[str, str], folder: Path) -> Group:
        """Run a command in a session of its own, on the gateway's core; its words go to a log."""
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                words, cwd=folder, env={**os.environ, **env}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        os.sched_setaffinity(process.pid, {GATEWAY_CORE})
        return cls(process)

    def cpu_s(self) -> float:
        """User and system time of all processes of the group that still run."""
        return sum(int(f[11]) + int(f[12]) for f in self._stats()) / _TICKS_PER_S

    def rss_mb(self) -> float:
        """Memory in use now."""
        return sum(int(f[21]) for f in self._stats()) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_rss_mb(self) -> float:
        """The most memory that was in use at once, process by process."""
        return sum(_status_kib(int(f[-1]), "VmHWM") for f in self._stats()) * 1024 / 1e6

    def num_fds(self) -> int:
        """Open descriptors: files, sockets, pipes."""
        return sum(len(os.listdir(f"/proc/{f[-1]}/fd")) for f in self._stats())

    def pause(self) -> None:
        """Take the core away from it, so that another can be measured."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all of it: nothing of it runs any more code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _stats(self) -> Iterator[list[str]]:
        """The fields of /proc/PID/stat behind the name, and the process id as the last one."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                found = (path / "stat").read_text().rsplit(")", 1)[1].split()
                if int(found[2]) == self.process.pid:
                    yield [*found, path.name]


def _status_kib(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0
