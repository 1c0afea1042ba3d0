"""Students trained by several processes over loopback, each of them `python -m` this module."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.student.zoo import QUICK

OPTIONS = {
    "base": QUICK.base, "rank": QUICK.rank, "epochs": 3, "rows_per_step": QUICK.rows_per_step,
    "learning_rate": QUICK.learning_rate, "checkpoint_every_s": 0, "compute_dtype": "float32",
}  # fmt: skip


def train_together(
    root: Path, dataset_id: str, world: int, *, die: dict[int, int] | None = None,
    of_ranks: dict[int, dict[str, Any]] | None = None, **options: Any,
) -> list[tuple[int, str]]:  # fmt: skip
    """Exit status and stderr of each process; `losses-RANK.json` in `root` has its losses.

    `die`: which ranks kill themselves after which step. `of_ranks`: options of one rank alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: list[subprocess.Popen[str]] = []
    for rank in range(world):
        given = {**OPTIONS, **options, **(of_ranks or {}).get(rank, {})}
        words = [str(root), dataset_id, str((die or {}).get(rank, 0)), json.dumps(given)]
        environment = environment_of_children() | {
            "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.student.together", *words], env=environment,
                stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    said = [child.communicate()[1] for child in children]
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


def environment_of_children() -> dict[str, str]:
    """What a child process needs to import this package and to stay on this machine."""
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def losses_of(root: Path, rank: int = 0) -> list[float]:
    """What each step cost, as a process of the last training reported it."""
    return json.loads((root / f"losses-{rank}.json").read_text("utf-8"))


def _main(root: Path, dataset_id: str, die_at: int, given: dict[str, Any]) -> None:
    from ownweights.core.project import Project
    from ownweights.dataset import load_dataset
    from ownweights.student.distributed import joined
    from ownweights.student.study import Materials
    from ownweights.student.train import StepReport, StudentOptions, train_student
    from tests.student.objective.test_preference import pairs_of

    losses: list[float] = []

    def on_step(report: StepReport) -> None:
        losses.append(report.loss)
        if report.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    project, options = Project(root), StudentOptions(**given)
    dataset = load_dataset(project, dataset_id)
    materials = Materials(pairs_of(dataset) if options.objective == "dpo" else ())
    with joined() as ranks:
        train_student(
            dataset, project, options, on_step=on_step, materials=materials, ranks=ranks
        )  # fmt: skip
    (root / f"losses-{ranks.rank}.json").write_text(json.dumps(losses), "utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
