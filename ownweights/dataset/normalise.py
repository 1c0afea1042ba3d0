"""When two prompts count as the same: exact after normalising, near by shared character shingles.

Normalising keeps letters and digits alone (NFKC, case folded, digits as 0), so that "Play it!" and
"play it" are one prompt. Near means Jaccard similarity of 4-gram sets of at least a limit.
"""

from __future__ import annotations

import re
import unicodedata

SHINGLE_CHARS = 4
NEAR_JACCARD = 0.8

_NOT_WORD = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")


def normalise_prompt(text: str) -> str:
    """The words of `text` alone: folded, without punctuation, digits as 0, one space between."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _DIGIT.sub("0", _NOT_WORD.sub(" ", folded)).strip()


def shingles(normalised: str) -> frozenset[str]:
    """The set of character 4-grams of a normalised prompt, padded by a space at either end."""
    padded = f" {normalised} "
    last = max(1, len(padded) - SHINGLE_CHARS + 1)
    return frozenset(padded[i : i + SHINGLE_CHARS] for i in range(last))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared over all shingles; 1 for two empty sets."""
    if not left and not right:
        return 1.0
    return len(left & right) / len(left | right)
