"""Run one bench: `python -m bench.run NAME [--quick] [--seed N]` (or `make bench`)."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.result import RESULTS_DIR, write_line

PLUMBING = {"__init__", "result", "run"}


def bench_names() -> list[str]:
    """The benches there are."""
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if path.stem not in PLUMBING)


def main(argv: Sequence[str] | None = None, results_dir: Path = RESULTS_DIR) -> int:
    """Run the bench that the words name, and print each line as it is measured."""
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__)
    parser.add_argument("name", choices=bench_names())
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no slow peers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    module = importlib.import_module(f"bench.{given.name}")
    for line in module.cases(is_quick=given.quick, seed=given.seed):
        print(write_line(line, results_dir), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
