"""What a rented teacher told of its choices: the likeliest tokens at each place, with logprobs.

In: a recorded response in the form of OpenAI's `logprobs.content`, asked for with `top_logprobs`.
Out: one `TokenLogprobs` for each token of the answer, or nothing where the tokens told are not the
answer's text byte for byte (test_logprobs_of_another_text_are_not_kept): what was masked, cut or
joined is not learned from. A token is a string in which bytes that are no UTF-8 stand as lone
surrogates (Python's surrogateescape), since a token may end within a character.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ownweights.traffic.chat import first_choice

MAX_ALTERNATIVES = 32


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """One token, and its likeliest alternatives with their logprobs, the token itself among them,
    in the order of their spelling."""

    token: str
    alternatives: tuple[tuple[str, float], ...]

    @property
    def raw(self) -> bytes:
        """The token's bytes."""
        return as_bytes(self.token)

    def to_json(self) -> list[Any]:
        """Compact, for there is one for each token of a dataset."""
        return [self.token, [list(one) for one in self.alternatives]]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> TokenLogprobs:
        """What `to_json` wrote."""
        token, alternatives = value
        return cls(str(token), tuple((str(text), float(logprob)) for text, logprob in alternatives))


def as_bytes(token: str) -> bytes:
    """The bytes that a token's string stands for."""
    return token.encode("utf-8", "surrogateescape")


def logprobs_of(response: Mapping[str, Any] | None, answer: str) -> tuple[TokenLogprobs, ...]:
    """What a response told of each token of its answer; nothing where it did not tell of all."""
    told: Any = first_choice(response).get("logprobs")
    content: Any = told.get("content") if isinstance(told, Mapping) else None
    if not isinstance(content, list) or not content:
        return ()
    found: list[TokenLogprobs] = []
    for entry in cast("list[Any]", content):
        one = _token(entry)
        if one is None:
            return ()
        found.append(one)
    try:
        is_answer = b"".join(one.raw for one in found) == answer.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no token spells
        return ()
    return tuple(found) if is_answer else ()


def _token(entry: Any) -> TokenLogprobs | None:
    """One token as told; None where it is malformed, or no alternatives are."""
    if not isinstance(entry, Mapping):
        return None
    said = cast("Mapping[str, Any]", entry)
    above = said.get("top_logprobs")
    if not isinstance(above, list) or not above or len(above) > MAX_ALTERNATIVES:
        return None
    logprobs: dict[str, float] = {}
    for one in [*cast("list[Any]", above), said]:
        text = _spelled(one)
        logprob: Any = one.get("logprob") if isinstance(one, Mapping) else None
        is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
        if text is None or not is_number or not -math.inf < logprob <= 1e-3:
            return None
        logprobs.setdefault(text, min(float(logprob), 0.0))
    token = _spelled(said)
    return None if token is None else TokenLogprobs(token, tuple(sorted(logprobs.items())))


def _spelled(entry: Any) -> str | None:
    """The token of an entry, by its bytes where they are given."""
    if not isinstance(entry, Mapping):
        return None
    said = cast("Mapping[str, Any]", entry)
    raw, text = said.get("bytes"), said.get("token")
    if isinstance(raw, list) and raw:
        codes = cast("list[Any]", raw)
        if not all(type(code) is int and 0 <= code < 256 for code in codes):
            return None
        return bytes(codes).decode("utf-8", "surrogateescape")
    return text if isinstance(text, str) and text else None
