"""The whole loop on real traffic: `make bench NAME=demo_loop` runs `own demo` once for each case.

Caveats first: times are of a shared machine; splits are fixed by hash, so seeds vary training
alone; the teacher is a replay of recorded answers, so that harm means "differs from every recorded
answer". The cases are assistant (seeds 1, 2, 3), commands, describe, sql and airline at seed 1, and
the generated requests. Each line is the demo's own JSON object with the circumstances of the run,
in bench/results/demo_loop.jsonl. There is no peer: nothing else runs this loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.result import circumstances


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the demo."""

    name: str
    file: str | None = None
    seed: int = 1
    words: tuple[str, ...] = ()


CASES = (
    Case("assistant seed=1", "assistant.jsonl.gz", 1),
    Case("assistant seed=2", "assistant.jsonl.gz", 2),
    Case("assistant seed=3", "assistant.jsonl.gz", 3),
    Case("commands seed=1", "commands.jsonl.gz"),
    Case("describe seed=1", "describe.jsonl.gz"),
    Case("sql seed=1", "sql-gpt4.jsonl.gz", words=("--allow-teacher", "gpt-4")),
    Case("airline seed=1", "airline-gpt4o.jsonl.gz"),
    Case("generated seed=1"),
)


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Run every case in turn; with --quick the generated requests alone, with --seed N one seed."""
    chosen = CASES[-1:] if is_quick else CASES
    wanted = os.environ.get("OWN_BENCH_CASE")
    for case in chosen:
        if wanted and wanted not in case.name:
            continue
        yield run_case(case)


def run_case(case: Case) -> dict[str, Any]:
    """Run one case in a folder of its own; its result line."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["demo", "--no-serve", "--json", "--seed", str(case.seed), *case.words]
        if case.file is not None:
            data = os.environ.get("OWN_TEST_DATA")
            if not data:
                raise SystemExit("set OWN_TEST_DATA to the folder of the public data")
            words += ["--traffic", str(Path(data) / "traffic" / case.file)]
        done = subprocess.run(
            [sys.executable, "-m", "ownweights.cli", *words, "--dir", f"{folder}/demo"],
            stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 4):
            raise SystemExit(f"{case.name}: own demo ended with exit code {done.returncode}")
        result = json.loads(done.stdout.splitlines()[-1])
    return {
        "bench": "demo_loop", "case": case.name, "exit_code": done.returncode, **result,
        **circumstances(None, case.file or "generated", 1, case.seed, ("torch", "ownweights")),
    }  # fmt: skip
