"""Every family against transformers: how far the logits are apart, both ways.

Caveats: the checkpoints are tiny and random (tests/families.py), so this says that the arithmetic
is the same, not that an answer is good; texts are longer than every window and every length that a
scaling starts from, but short. `ours` is the greatest difference between our logits and those
of transformers over the greatest logit, in float32; `peer` is how far transformers in float32 is
from itself in float64 on the same checkpoint, which is what float32 costs. A ratio near one or
above means that the difference is rounding. The bound is what we allow.

Cases: `NAME read`: transformers' checkpoint in our network. `NAME written`: our export of it in
transformers. A case whose greedy tokens differ stops the run. Reproduce:
make bench NAME=family_parity
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.result import ratio_line
from tests.families import CASES, LENGTH, Parity, parity

BOUND = 1e-4
LEAST = 1e-12  # a difference of nothing still has a ratio
PACKAGES = ("torch", "transformers")


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Two lines for each case."""
    import torch

    torch.set_num_threads(1)
    for name in CASES:
        found = [measure(name, seed + index) for index in range(1 if is_quick else 3)]
        theirs = [max(one.their_rounding, LEAST) for one in found]
        for way in ("read", "written"):
            ours = [max(getattr(one, way), LEAST) for one in found]
            yield ratio_line(
                "family_parity", f"{name} {way}", ours=ours, peer=theirs,
                peer_name="transformers in float32 against float64", unit="relative error",
                is_less_better=True, bound=BOUND, seed=seed, packages=PACKAGES,
                workload=f"2 texts of {LENGTH} tokens, a random {CASES[name].model_type}",
            )  # fmt: skip


def measure(name: str, seed: int) -> Parity:
    """One checkpoint, from their file to our logits and back."""
    with tempfile.TemporaryDirectory() as folder:
        found = parity(CASES[name], Path(folder), seed)
    if not found.is_said_alike:
        raise SystemExit(f"{name}, seed {seed}: greedy tokens differ")
    return found
