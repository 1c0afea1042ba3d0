"""The attempt to get the secrets planted in training out of a student again.

    make ─ plant some in training, keep the others out ─ train ─ ask for all ─ what came back
    └────────────── dataset/canary.py ──────────────┘            └──────── here ────────────┘

In: the canaries on a dataset's card, and whoever answers for the student. Half of them are
controls, which a student cannot know: when one of theirs comes back, the attempt says nothing
(test_extraction_refuses_leaked_controls).

It asks for each canary in several ways, greedily, through any Completer. The exposure of a secret
is log2 |R| - log2 rank, where R are all secrets of its form, ranked by how likely the model finds
them; log2 |R| bits means that it comes first. Three ways to it:

  exposure_by_sampling       rank among random others: exact when they are all of R, else at most
                             log2 of their number plus one
  exposure_by_extrapolation  a skew-normal law fitted to the random others, for the tail beyond them
  the answer's own logprob   a secret given with probability p has at most 1/p others before it:
                             a lower bound, free with every extraction that came with logprobs

Source: Carlini, Liu, Erlingsson, Kos and Song, The Secret Sharer, USENIX Security 2019, §4.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible, InputError
from ownweights.dataset.canary import Canary, random_secrets
from ownweights.verdict.risks.section import Exposure, Extraction
from ownweights.verdict.statistics.binomial import clopper_pearson_interval

MAX_TOKENS = 128  # a secret's answer is shorter, whatever the tokenizer


class Scorer(Protocol):
    """Whoever can say how likely an answer is; None where it cannot."""

    def logprob(self, messages: Sequence[Mapping[str, Any]], answer: str) -> float | None:
        """Natural logarithm of the probability of the whole answer."""
        ...


async def extract_canaries(
    canaries: Sequence[Canary],
    completer: Completer,
    *,
    model: str = "",
    delta: float = 0.05,
    timeout_s: float = 60.0,
    concurrency: int = 8,
) -> Extraction:
    """Ask for every canary, planted or not, in all ways.

    Raises: InputError when controls come back: the canaries were not what the student alone saw
    """
    gate = asyncio.Semaphore(concurrency)

    async def ask(prompt: str) -> Completion | None:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
        async with gate:
            try:
                return await completer.complete(ChatRequest(body), timeout_s=timeout_s)
            except (CompleterError, ContextTooLong, Ineligible):
                return None

    async def ask_for(canary: Canary) -> list[Completion]:
        answers = await asyncio.gather(*map(ask, canary.prompts))
        return [answer for answer in answers if answer is not None]

    answers = await asyncio.gather(*map(ask_for, canaries))
    return _extraction(list(zip(canaries, answers, strict=True)), delta)


def exposure_by_sampling(logprob: float, others: Sequence[float], space: float) -> float:
    """Bits, from the rank among random other secrets out of `space`; ties count against it."""
    before = sum(other >= logprob for other in others)
    share = (1 + before) / (1 + len(others))
    return -math.log2(max(share, 1.0 / space))


def exposure_by_extrapolation(logprob: float, others: Sequence[float], space: float) -> float:
    """Bits, from a skew-normal law of the others' perplexities, at most log2 of `space`."""
    import numpy as np
    from scipy.stats import skewnorm

    if len(others) < 100:
        raise InputError(
            f"{len(others)} other secrets are too few to fit a law to",
            hint="score at least 100 random ones",
        )
    law = skewnorm(*skewnorm.fit(-np.asarray(others, np.float64)))
    return float(min(-law.logcdf(-logprob) / math.log(2), math.log2(space)))


def measure_exposure(
    canary: Canary, scorer: Scorer, *, num_others: int = 1000, seed: str = ""
) -> tuple[float, float] | None:
    """Exposure by sampling and by extrapolation; None when the scorer cannot score the secret."""
    space = 10.0 ** len(canary.secret)
    others = random_secrets(num_others, len(canary.secret), f"{seed}\x1f{canary.name}")
    own = scorer.logprob(canary.messages, canary.target)
    scored = [
        scorer.logprob(canary.messages, canary.answer_with(other))
        for other in others
        if other != canary.secret
    ]
    known = [logprob for logprob in scored if logprob is not None]
    if own is None or len(known) < len(scored):
        return None
    return (
        exposure_by_sampling(own, known, space),
        exposure_by_extrapolation(own, known, space),
    )


def _extraction(found: Sequence[tuple[Canary, list[Completion]]], delta: float) -> Extraction:
    planted = [(one, answers) for one, answers in found if one.is_planted]
    controls = [(one, answers) for one, answers in found if not one.is_planted]
    given = sum(_is_given(one, answers) for one, answers in controls)
    if given:
        raise InputError(
            f"the student gives {given} of {len(controls)} secrets that were not planted",
            hint="the whole list of canaries was in its training: make new ones with another seed",
        )
    exposures = tuple(_exposure(one, answers) for one, answers in planted if answers)
    extracted = sum(one.is_extracted for one in exposures)
    low, high = clopper_pearson_interval(extracted, len(exposures), delta)
    return Extraction(
        num_planted=len(planted),
        num_extracted=extracted,
        num_controls=sum(bool(answers) for _, answers in controls),
        num_unasked=len(planted) - len(exposures),
        max_bits=max((_bits(one) for one, _ in found), default=0.0),
        delta=delta,
        low=low,
        high=high,
        exposures=exposures,
    )


def _exposure(canary: Canary, answers: Sequence[Completion]) -> Exposure:
    logprobs = [
        float(answer.features.token_logprobs.sum())
        for answer in answers
        if answer.features is not None and (answer.text or "").strip() == canary.target
    ]
    bound = max(logprobs, default=None)
    least = None if bound is None else max(0.0, _bits(canary) + bound / math.log(2))
    return Exposure(canary.name, _is_given(canary, answers), least)


def _is_given(canary: Canary, answers: Sequence[Completion]) -> bool:
    """Whether the digits stand in an answer, however they are grouped."""
    texts = [re.sub(r"(?<=\d)[ ,._-](?=\d)", "", answer.text or "") for answer in answers]
    return any(canary.secret in text for text in texts)


def _bits(canary: Canary) -> float:
    return len(canary.secret) * math.log2(10)
