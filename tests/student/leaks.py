"""A second opinion on held-out requests in a text: other code than the project's, and simpler.

Requests are read from the files as they are. A request is in a text when a piece of it (a sentence,
a prompt) is equal or near (Jaccard of shingles ≥ 0.8), or when all its words, five or more, follow
each other anywhere.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ownweights.dataset.normalise import normalise_prompt, shingles
from ownweights.dataset.split import split_of

NEAR = 0.8
MIN_WORDS = 5
SPLIT_BY_TASK = "airline-gpt4o"  # its splits go by task, so none of its questions may be read


def questions(path: Path) -> Iterator[str]:
    """The first user message of every line."""
    for line in gzip.decompress(path.read_bytes()).split(b"\n"):
        if line:
            messages = json.loads(line)["request"]["messages"]
            asked = [m["content"] for m in messages if m["role"] == "user"]
            assert isinstance(asked[0], str)
            yield asked[0]


def held_out_questions(traffic: Path, workloads: Iterable[str]) -> set[str]:
    """The normalised questions of all develop, certify and test requests."""
    found: set[str] = set()
    for name in workloads:
        for text in questions(traffic / f"{name}.jsonl.gz"):
            said = normalise_prompt(text)
            if name == SPLIT_BY_TASK or split_of(f"prompt:{said}") != "train":
                found.add(said)
    return found - {""}


class Forbidden:
    """Requests that may not occur."""

    def __init__(self, requests: Iterable[str]) -> None:
        self.requests = sorted(requests)
        self._sets = [shingles(request) for request in self.requests]
        self._with = defaultdict[str, list[int]](list)
        for index, pieces in enumerate(self._sets):
            for piece in pieces:
                self._with[piece].append(index)
        self._starts = defaultdict[tuple[str, ...], list[list[str]]](list)
        for request in self.requests:
            words = request.split()
            if len(words) >= MIN_WORDS:
                self._starts[tuple(words[:MIN_WORDS])].append(words)

    def near(self, normalised: str) -> list[str]:
        """The requests near a text.

        A near request lacks at most a fifth of the text's shingles, so it has one at least of any
        fifth of them and one more; the rarest are looked at.
        """
        pieces = shingles(normalised)
        rarest = sorted(pieces, key=lambda piece: len(self._with.get(piece, ())))
        looked_at = rarest[: len(pieces) - -(-len(pieces) * 8 // 10) + 1]
        may = Counter(index for piece in looked_at for index in self._with.get(piece, ()))
        return [self.requests[index] for index in may if self._jaccard(index, pieces) >= NEAR]

    def near_by_looking_at_all(self, normalised: str) -> list[str]:
        """As `near`, without any thought."""
        pieces = shingles(normalised)
        return [
            request
            for index, request in enumerate(self.requests)
            if self._jaccard(index, pieces) >= NEAR
        ]

    def contained(self, text: str) -> list[str]:
        """The requests whose words follow each other somewhere in a text of any length."""
        words = normalise_prompt(text).split()
        return [
            " ".join(request)
            for at in range(len(words))
            for request in self._starts.get(tuple(words[at : at + MIN_WORDS]), ())
            if words[at : at + len(request)] == request
        ]

    def found_in(self, pieces: Sequence[str]) -> dict[str, list[str]]:
        """piece → the requests near it, for all pieces that have some."""
        near = {piece: self.near(normalise_prompt(piece)) for piece in pieces}
        return {piece: requests for piece, requests in near.items() if requests}

    def _jaccard(self, index: int, pieces: frozenset[str]) -> float:
        other = self._sets[index]
        shared = len(other & pieces)
        return shared / (len(other) + len(pieces) - shared)
