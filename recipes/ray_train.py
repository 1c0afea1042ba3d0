"""Train a student on the workers of a Ray cluster: `own student train`, started by Ray Train.

    pip install "ray[train]"
    python recipes/ray_train.py --processes 2 --project /shared/tickets --workload tickets

Options that are not listed by `--help` are given to `own student train`. Without a cluster's
address (RAY_ADDRESS) Ray starts one on this machine. The project's folder must be seen by every
worker: there the first of them leaves checkpoints and the student. A run that was stopped goes on
when the same command is given again, with any number of processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def main() -> None:
    """Start the workers and wait for them."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="of each process")
    parser.add_argument("--project", type=Path, default=Path())
    given, rest = parser.parse_known_args()
    trainer = TorchTrainer(
        train_one,
        train_loop_config={"project": str(given.project.resolve()), "words": rest},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=given.processes, resources_per_worker={"CPU": given.cores}
        ),
    )
    trainer.fit()


def train_one(config: dict[str, Any]) -> None:
    """What every worker does; Ray has made them one process group before."""
    from ownweights.cli.main import main as own

    status = own(["--project", config["project"], "student", "train", *config["words"]])
    if status:
        raise RuntimeError(f"own student train ended with {status}; its reason stands above")


if __name__ == "__main__":
    main()
