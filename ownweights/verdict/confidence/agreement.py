"""The student asked again, with dice: how often it says the same.

In: whoever answers, a request decoded greedily, and a check that compares two answers. Out: the
greedy answer, with the share of `samples` further ones that do no harm beside it (JSON in another
order agrees, a synonym does not: that is the check's say). An answer that the check cannot compare
does not agree; a sample that did not come leaves the agreement unknown, and such an answer is not
served. The seeds are 1, 2, ...: the agreement is a function of the request alone, so requests stay
as independent as they were, and a route finds the number that the certificate was made from
(test_agreement_is_the_same_again). It costs `samples` answers more, asked all at once.
Source: Wang et al., Self-Consistency (arXiv:2203.11171), for sampling at a temperature near 0.7.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Protocol

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible

TEMPERATURE = 0.7


class Comparing(Protocol):
    """What is needed of a check."""

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        """0 no harm, 1 harm, None could not judge."""
        ...


async def complete_with_agreement(
    completer: Completer,
    request: ChatRequest,
    check: Comparing,
    *,
    samples: int,
    timeout_s: float | None = None,
) -> Completion:
    """The answer to `request`, its features saying how many sampled answers agree with it.

    Raises: what the completer raises for the request itself; never for a sample
    """
    asked = [request.with_fields(temperature=TEMPERATURE, seed=k) for k in range(1, samples + 1)]
    first, *others = await asyncio.gather(
        completer.complete(request, timeout_s=timeout_s),
        *(_sample(completer, one, timeout_s) for one in asked),
    )
    assert first is not None, "only a sample may be missing"
    texts = [other.text for other in others if other is not None]
    if first.features is None or len(texts) < samples:
        return first
    agreement = await asyncio.to_thread(agreement_of, first.text, texts, check)
    features = dataclasses.replace(first.features, agreement=agreement)
    return dataclasses.replace(first, features=features)


def agreement_of(text: str | None, sampled: Sequence[str | None], check: Comparing) -> float:
    """The share of sampled answers that do no harm where `text` is what was expected."""
    if not sampled or not text:
        return 0.0
    harms = [check.harm(one, (text,)) for one in sampled]
    return sum(0.0 if harm is None else 1.0 - harm for harm in harms) / len(harms)


async def _sample(
    completer: Completer, request: ChatRequest, timeout_s: float | None
) -> Completion | None:
    try:
        return await completer.complete(request, timeout_s=timeout_s)
    except (CompleterError, ContextTooLong, Ineligible):
        return None
