"""A rented teacher's tokens laid over ours: where both cut the answer alike, its word counts.

In: the bytes of our tokens of an answer, and what the teacher told of its own. Out: for each of our
tokens the teacher's probabilities as ours, or None. A token is aligned where one of the teacher's
covers the very same bytes; an alternative counts where our vocabulary has a token of its bytes.
What is told of others, and what the teacher did not tell, is the tail's
(test_align_gives_each_shared_span_its_distribution).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ownweights.dataset.logprobs import TokenLogprobs, as_bytes
from ownweights.model.tokenizer import Tokenizer

Known = dict[int, float]  # our ids → the teacher's probabilities; the rest of one is the tail


def vocabulary_bytes(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Our tokens by their bytes; the lowest id where several have the same."""
    found: dict[bytes, int] = {}
    for token_id in range(tokenizer.vocab_size):
        if raw := tokenizer.token_bytes(token_id):
            found.setdefault(raw, token_id)
    return found


def align(
    tokenizer: Tokenizer, vocabulary: Mapping[bytes, int], ids: Sequence[int],
    told: Sequence[TokenLogprobs],
) -> list[Known | None]:  # fmt: skip
    """What the teacher thought at each of `ids`, our tokens of the answer."""
    pieces = _pieces(tokenizer, ids, b"".join(one.raw for one in told))
    if pieces is None:
        return [None] * len(ids)
    theirs = dict(zip(_spans([one.raw for one in told]), told, strict=True))
    found: list[Known | None] = []
    for token_id, span in zip(ids, _spans(pieces), strict=True):
        one = theirs.get(span)
        found.append(None if one is None else _known(vocabulary, token_id, one))
    return found


def _pieces(tokenizer: Tokenizer, ids: Sequence[int], answer: bytes) -> list[bytes] | None:
    """The bytes of each token; None where they do not make up the answer."""
    pieces = [tokenizer.token_bytes(token_id) or b"" for token_id in ids]
    if pieces and b"".join(pieces) == b" " + answer:  # as SentencePiece begins a text
        pieces[0] = pieces[0][1:]
    return pieces if b"".join(pieces) == answer and all(pieces) else None


def _spans(pieces: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where each piece begins and ends."""
    at = 0
    for piece in pieces:
        yield at, at + len(piece)
        at += len(piece)


def _known(vocabulary: Mapping[bytes, int], token_id: int, told: TokenLogprobs) -> Known:
    """The alternatives that our vocabulary has, no more than one in sum."""
    found: Known = {}
    for text, logprob in told.alternatives:
        raw = as_bytes(text)
        ours = token_id if raw == told.raw else vocabulary.get(raw)
        if ours is not None:
            found[ours] = found.get(ours, 0.0) + math.exp(logprob)
    total = sum(found.values())
    return {one: share / max(total, 1.0) for one, share in found.items()}
