"""How long `own --help` takes, beside bare Python.

Caveats: process start on a shared machine; only the ratio within a run means anything. The peer is
the same interpreter running nothing, which is also the bound: no command can be faster.
Cases: `help` (`own --help`), `version` (`own --version`), `import` (`import ownweights`).
Reproduce: make bench NAME=start
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.result import ratio_line

OWN = str(Path(sys.executable).with_name("own"))
FLOOR = [sys.executable, "-c", "pass"]
CASES = {
    "help": [OWN, "--help"],
    "version": [OWN, "--version"],
    "import": [sys.executable, "-c", "import ownweights"],
}


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each way of starting."""
    repeats = 15 if is_quick else 60
    for case, words in CASES.items():
        time_ms(words), time_ms(FLOOR)  # once unmeasured, to fill the caches of both
        pairs = [(time_ms(words), time_ms(FLOOR)) for _ in range(repeats)]
        ours, floor = zip(*pairs, strict=True)
        yield ratio_line(
            "start",
            case,
            ours=ours,
            peer=floor,
            peer_name="bare Python",
            unit="ms",
            is_less_better=True,
            bound=1.0,
            workload=" ".join(["own", *words[1:]] if words[0] == OWN else ["python", *words[1:]]),
            seed=seed,
        )


def time_ms(words: Sequence[str]) -> float:
    """Milliseconds until the process has ended."""
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3
