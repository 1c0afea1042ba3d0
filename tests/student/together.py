"""Students trained by several processes over loopback, each of them `python -m` this module.

Starting a process costs seconds, so each works through a list of jobs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.dataset import load_dataset
from ownweights.student.distributed import Ranks, joined
from ownweights.student.study import Materials
from ownweights.student.train import StepReport, StudentOptions, train_student
from tests.student.objective.test_preference import pairs_of
from tests.student.zoo import QUICK

OPTIONS = {
    "base": QUICK.base, "rank": QUICK.rank, "epochs": 2, "rows_per_step": QUICK.rows_per_step,
    "learning_rate": QUICK.learning_rate, "checkpoint_every_s": 0, "compute_dtype": "float32",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One training: where, what of, and after which step it is interrupted or a rank killed.

    `of_second` is what the second process is told otherwise: options, `root`, `mute`.
    """

    root: str
    dataset: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    stop_at: int = 0
    killed: int = -1
    of_second: dict[str, Any] = field(default_factory=dict[str, Any])


class Mute:
    """A sampler that says the same one token to everything."""

    def sample(
        self, prompts: Sequence[np.ndarray], *, max_tokens: int, temperature: float, seed: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.array([9], np.int32), np.zeros(1, np.float32)) for _ in prompts]


@dataclass(frozen=True, slots=True)
class Ended:
    """What each step cost, and what stopped it."""

    losses: list[float]
    error: str = ""


def run_job(job: Job, ranks: Ranks) -> Ended:
    """Train as a job says, in this process."""
    losses: list[float] = []

    def on_step(report: StepReport) -> None:
        losses.append(report.loss)
        if report.step == job.stop_at:
            if job.killed == ranks.rank:
                os.kill(os.getpid(), signal.SIGKILL)
            if job.killed < 0:
                raise KeyboardInterrupt

    given = {**OPTIONS, **job.options, **(job.of_second if ranks.rank == 1 else {})}
    root, sampler = given.pop("root", job.root), Mute() if given.pop("mute", False) else None
    project, options = Project(Path(root)), StudentOptions(**given)
    dataset = load_dataset(project, job.dataset)
    pairs = pairs_of(dataset) if options.objective == "dpo" else ()
    materials = Materials(pairs, sampler)
    try:
        train_student(
            dataset, project, options=options, on_step=on_step, materials=materials, ranks=ranks
        )  # fmt: skip
    except (KeyboardInterrupt, OwnError) as error:
        return Ended(losses, f"{type(error).__name__}: {error}")
    return Ended(losses)


def run_together(folder: Path, jobs: Sequence[Job]) -> list[tuple[int, list[Ended]]]:
    """Exit status of each of two processes, and how its jobs ended."""
    folder.mkdir(exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps([asdict(job) for job in jobs]), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    place |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.student.together", str(folder)],
            env=environment_of_children() | place | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]
    found: list[tuple[int, list[Ended]]] = []
    for rank, status in enumerate([child.wait() for child in children]):
        path = folder / f"ended-{rank}.json"
        said = json.loads(path.read_text("utf-8")) if path.is_file() else []
        found.append((status, [Ended(**one) for one in said]))
    return found


def environment_of_children() -> dict[str, str]:
    """What a child process needs to import this package and to stay on this machine."""
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def _main(folder: Path) -> None:
    jobs = [Job(**one) for one in json.loads((folder / "jobs.json").read_text("utf-8"))]
    with joined() as ranks:
        ended = [asdict(run_job(job, ranks)) for job in jobs]
    (folder / f"ended-{ranks.rank}.json").write_text(json.dumps(ended), "utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
