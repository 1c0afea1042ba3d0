"""The engine's process: `python -m ownweights.engine --project DIR --socket PATH --student ID`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Products this small are done before a second thread has woken up; larger ones gain from all cores.
SMALL_PARAMETERS = 50_000_000


def main(arguments: list[str] | None = None) -> int:
    """Load the students and serve them until stdin closes."""
    parser = argparse.ArgumentParser(prog="python -m ownweights.engine", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--student", action="append", default=[], metavar="ID")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0: by the size of the models")
    given = parser.parse_args(arguments)
    from ownweights.model.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from ownweights.core.errors import OwnError
    from ownweights.core.project import Project
    from ownweights.engine.batch import BatchEngine
    from ownweights.engine.server import serve

    torch.set_num_threads(given.threads or 1)
    try:
        engine = BatchEngine.load(Project(given.project), given.student, max_batch=given.max_batch)
        if not given.threads and engine.num_parameters > SMALL_PARAMETERS:
            torch.set_num_threads(os.cpu_count() or 1)
        serve(engine, given.socket)
    except OwnError as error:
        sys.stderr.write(f"engine: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
