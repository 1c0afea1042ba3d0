"""Which split a request belongs to: by hash of its unit, never by row, and never by a seed.

The unit is the session, the prompt cluster (all requests whose prompts are equal after
normalising), or a metadata key. The same unit lands in the same split in every project with the
same salt, which is how text can be proved to be outside the held-out splits before any dataset
exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "develop", "certify", "test")
SPLIT_SALT = "ownweights-split-1"
SPLIT_FRACTIONS = (0.76, 0.08, 0.08, 0.08)


def hash_fraction(salt: str, key: str) -> float:
    """A number in [0, 1) that depends on salt and key alone."""
    digest = hashlib.sha256(f"{salt}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(
    unit: str, fractions: Sequence[float] = SPLIT_FRACTIONS, salt: str = SPLIT_SALT
) -> str:
    """The split of a unit, with the four fractions as probabilities."""
    point, upper = hash_fraction(salt, unit), 0.0
    for name, fraction in zip(SPLITS, fractions, strict=True):
        upper += fraction
        if point < upper:
            return name
    return SPLITS[-1]
