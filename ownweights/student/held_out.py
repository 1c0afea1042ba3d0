"""Keeps held-out requests out of pre-training text: equal, near, or word for word in a sentence.

In: the prompts of every develop, certify and test request. Out: whether a sentence or a prompt
holds one of them. The search is exact, not a sketch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ownweights.dataset.normalise import NEAR_JACCARD, jaccard, shingles
from ownweights.dataset.prompt import prompt_key

MIN_CONTAINED_WORDS = 5
_SLACK = 1e-9  # rounding of limit · n must not lose a pair that is exactly at the limit


class NearIndex:
    """A fixed set of normalised prompts that can be asked, one text at a time, what is near it.

    Two sets with Jaccard similarity of at least t share one of the ⌊(1-t)·n⌋+1 shingles that are
    the rarest of each, and their sizes differ by at most the factor t, so a few look-ups find every
    near prompt (test_near_index_matches_brute_force). `dataset.near` joins a whole set with itself.

    Source: Chaudhuri et al. 2006 (prefix filter for set-similarity joins)
    """

    def __init__(self, prompts: Iterable[str], limit: float = NEAR_JACCARD) -> None:
        self.limit = limit
        self.prompts = sorted(set(prompts))
        self._sets = [shingles(prompt) for prompt in self.prompts]
        self._count = Counter(piece for pieces in self._sets for piece in pieces)
        self._by_rare: defaultdict[str, list[int]] = defaultdict(list)
        for index, pieces in enumerate(self._sets):
            for piece in self._rarest(pieces):
                self._by_rare[piece].append(index)
        self._exact = set(self.prompts)
        self._max_shingles = int(max((len(s) for s in self._sets), default=0) / limit) + 1

    def near(self, normalised: str) -> list[str]:
        """Every prompt of the index at least as near as the limit (an equal one included)."""
        pieces = shingles(normalised)
        if len(pieces) > self._max_shingles:
            return []
        candidates = {i for piece in self._rarest(pieces) for i in self._by_rare.get(piece, ())}
        return [
            self.prompts[index]
            for index in sorted(candidates)
            if self._sizes_fit(len(self._sets[index]), len(pieces))
            and jaccard(self._sets[index], pieces) >= self.limit
        ]

    def has_near(self, normalised: str) -> bool:
        """Whether any prompt of the index is near."""
        return normalised in self._exact or bool(self.near(normalised))

    def _rarest(self, pieces: frozenset[str]) -> list[str]:
        keep = int((1 - self.limit) * len(pieces) + _SLACK) + 1
        return sorted(pieces, key=lambda piece: (self._count[piece], piece))[:keep]

    def _sizes_fit(self, left: int, right: int) -> bool:
        return min(left, right) >= self.limit * max(left, right) - _SLACK


class HeldOutText:
    """Tells whether a sentence holds a held-out request: equal, near, or word for word."""

    def __init__(self, held_out: Iterable[str]) -> None:
        normalised = {text for text in map(prompt_key, held_out) if text}
        self._near = NearIndex(normalised)
        self._by_start: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for text in normalised:
            words = text.split()
            if len(words) >= MIN_CONTAINED_WORDS:
                self._by_start[tuple(words[:3])].append(f" {text} ")

    def is_in(self, text: str) -> bool:
        """Whether `text` (one sentence or one request) holds a held-out request."""
        normalised = prompt_key(text)
        if not normalised:
            return False
        words, padded = normalised.split(), f" {normalised} "
        for i in range(len(words) - MIN_CONTAINED_WORDS + 1):
            starts = self._by_start.get((words[i], words[i + 1], words[i + 2]), ())
            if any(prompt in padded for prompt in starts):
                return True
        return self._near.has_near(normalised)
