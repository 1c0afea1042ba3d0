"""Tier 1: one-token answers that stand on a border, where the smallest change of weights shows.

In: an endpoint, and short prompts made from a seed. Out: probes whose first token is not always the
same; how often each gave its usual token when the baseline was taken; and, day by day, the evidence
that one of those shares has left its interval.

    find       every prompt 3 times: more than one first token stands on a border
    screen     those 20 times more: the most balanced are kept, their usual token is the mark
    refer      those `reference_draws` times, fresh: how often the mark came, an interval for each
    each day   `draws` times: k marks in n

Evidence of one probe on one day is the likelihood of k under a mixture of all shares, over the
largest under any share in its interval: its mean is at most 1 as long as the share is in there, and
that it is in there is paid for once. A stake on "the change began on day s" is opened every day
with 6/(π²s²) of the money; each is multiplied by its days' evidence. Half of the money goes on
single probes and half on the mean of all probes of a day; both are valid however probes hang
together. Invariants: no change is called one with at most the error given, over hundreds of days
(test_border_alarms_falsely_within_its_limit); a probe is not judged by the draws that chose it
(test_find_probes_refers_with_fresh_draws).
Source: border inputs are those of B3IT (2026); in place of its threshold on total variation stands
an e-value with a composite null, as in Wasserman, Ramdas and Balakrishnan (arXiv:1912.11436).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ownweights.core.chat import ChatRequest
from ownweights.core.completer import Completer
from ownweights.verdict.drift.asking import Manner, Reply, ask_all
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding
from ownweights.verdict.statistics.binomial import Floats, clopper_pearson_interval
from ownweights.verdict.statistics.budget import attempt_delta

FIND_DRAWS, SCREEN_DRAWS, REFERENCE_DRAWS = 3, 20, 200
NUM_CANDIDATES = 300
MAX_SCREENED = 60
TEMPERATURES = (0.0, 1.0)  # without borders at 0, an endpoint is asked to draw
PRIOR = 0.5  # of the mixture: Jeffreys', which leans to the ends, where shares jump to
MIN_READABLE_FRAC = 0.5
LARGEST = 1e150  # two such numbers can be multiplied; a smaller stake proves less, never more


@dataclass(frozen=True, slots=True)
class Probe:
    """A one-token prompt, its usual first token, and how often that came in the reference."""

    prompt: str
    mark: str
    num_marked: int
    num_drawn: int


@dataclass(frozen=True, slots=True)
class Borders:
    """The probes of a baseline. `delta` is the error of each one's interval."""

    probes: tuple[Probe, ...]
    model: str
    temperature: float
    delta: float

    def intervals(self) -> tuple[Floats, Floats]:
        """Lower and upper bound for each share of marks. Shapes: (J,), (J,)"""
        bounds = [
            clopper_pearson_interval(p.num_marked, p.num_drawn, self.delta) for p in self.probes
        ]
        low, high = np.array(bounds).T
        return low, high


@dataclass(frozen=True, slots=True)
class Draws:
    """A day's counts for each probe: marks, readable answers; and how often each was asked."""

    marked: tuple[int, ...]
    readable: tuple[int, ...]
    asked: int


@dataclass(frozen=True, slots=True)
class Stakes:
    """What the bets on a change are worth: one for each probe, and one on the days' means."""

    num_days: int
    probes: tuple[float, ...]
    days: float = 0.0

    @classmethod
    def start(cls, num_probes: int) -> Stakes:
        return cls(0, (0.0,) * num_probes)

    @property
    def worth(self) -> float:
        """All stakes and the money not yet staked: 1 at the start, and at most 1 on average."""
        unspent = 6.0 / math.pi**2 * float(special.polygamma(1, self.num_days + 1))
        return unspent + (math.fsum(self.probes) / len(self.probes) + self.days) / 2

    def after(self, log_evidence: Floats) -> Stakes:
        """The stakes after one more day. Shapes: log_evidence (J,)"""
        assert log_evidence.shape == (len(self.probes),), "one number a probe"
        fresh = attempt_delta(1.0, self.num_days + 1)
        evidence = np.exp(np.minimum(log_evidence, math.log(LARGEST)))
        probes = np.minimum((np.array(self.probes) + fresh) * evidence, LARGEST)
        days = min((self.days + fresh) * float(evidence.mean()), LARGEST)
        return Stakes(self.num_days + 1, tuple(probes.tolist()), days)


def border_log_evidence(marked: ArrayLike, drawn: ArrayLike, low: Floats, high: Floats) -> Floats:
    """log of the evidence that a share has left its interval. Shapes: all (..., J)"""
    k, n = np.asarray(marked, np.float64), np.asarray(drawn, np.float64)
    assert ((k >= 0) & (k <= n)).all(), "of n draws between 0 and n are marks"
    mixture = special.betaln(PRIOR + k, PRIOR + n - k) - special.betaln(PRIOR, PRIOR)
    share = np.clip(np.divide(k, n, out=np.zeros_like(k), where=n > 0), low, high)
    null = special.xlogy(k, share) + special.xlog1py(n - k, -share)
    return cast(Floats, mixture - null)


def compare_borders(
    borders: Borders, stakes: Stakes, draws: Draws, limit: float
) -> tuple[Finding, Stakes]:
    """What a day's draws say, and the stakes after it; `limit` is for all days together."""
    marked, drawn = np.array(draws.marked), np.array(draws.readable)
    num_read, num_asked = int(drawn.sum()), draws.asked * len(drawn)
    low, high = borders.intervals()
    after = stakes.after(border_log_evidence(marked, drawn, low, high))
    then = np.array([probe.num_marked / probe.num_drawn for probe in borders.probes])
    shifts = np.abs(np.divide(marked, drawn, out=then.copy(), where=drawn > 0) - then)
    what = f"first tokens moved by {shifts.mean():.2f} on average, by {shifts.max():.2f} at most"
    outcome = CHANGED if after.worth >= 1 / limit else SAME
    if outcome == SAME and (not num_read or num_read < MIN_READABLE_FRAC * num_asked):
        what = f"{num_read} of {num_asked} one-token answers could be read"
        outcome = COULD_NOT_TELL
    return Finding(
        "border", outcome, what, limit, p_value=min(1.0, 1 / max(after.worth, 1e-300)),
        num_probes=num_read, alarm_at=num_read if outcome == CHANGED else None,
        feature="first token", before=0.0, after=round(float(shifts.mean()), 4),
    ), after  # fmt: skip


async def find_probes(
    completer: Completer, model: str, *, manner: Manner, num_probes: int, delta: float, seed: int,
    reference_draws: int = REFERENCE_DRAWS,
) -> Borders | None:  # fmt: skip
    """Probes for an endpoint and their reference; None where it could not be read.

    `delta` is the chance that any of their intervals misses its share. Without enough prompts on a
    border, prompts that always give the same token fill the places: they show large changes only.
    """
    candidates = candidate_prompts(NUM_CANDIDATES, seed)
    for temperature in TEMPERATURES:
        ask = _Asker(completer, model, temperature, manner)
        tokens = await ask.tokens(candidates, FIND_DRAWS, "find")
        read = [i for i, seen in enumerate(tokens) if len(seen) == FIND_DRAWS]
        read.sort(key=lambda i: len(set(tokens[i])) == 1)  # those on a border first
        chosen = [candidates[i] for i in read[:MAX_SCREENED]]
        found = _balanced(chosen, await ask.tokens(chosen, SCREEN_DRAWS, "screen"))[:num_probes]
        is_enough = sum(probe.num_marked < probe.num_drawn for probe in found) >= num_probes
        if is_enough or temperature == TEMPERATURES[-1]:
            return await _refer(ask, found, reference_draws, delta)
    return None


async def draw_marks(
    completer: Completer, borders: Borders, num_draws: int, manner: Manner
) -> tuple[list[Reply], Draws]:
    """Today's replies, and what they come to."""
    ask = _Asker(completer, borders.model, borders.temperature, manner)
    prompts = [probe.prompt for probe in borders.probes]
    replies = await ask.replies(prompts, num_draws, "border")
    tokens = _grouped(replies, num_draws)
    pairs = zip(borders.probes, tokens, strict=True)
    marked = tuple(seen.count(probe.mark) for probe, seen in pairs)
    return replies, Draws(marked, tuple(map(len, tokens)), num_draws)


def candidate_prompts(count: int, seed: int) -> list[str]:
    """Short prompts, no two alike: syllables, numbers and signs."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvw", "aeiou")]
    signs = [sign * times for sign in "?!.,;:*#@&%+=/~" for times in (1, 2, 3)]
    pairs = ["".join(pair) for pair in itertools.product(syllables[::3], syllables[::5])]
    known = [*syllables, *signs, *map(str, range(200)), *pairs]
    assert count <= len(known), f"there are {len(known)} candidates"
    return random.Random(f"border-{seed}").sample(known, count)


@dataclass(frozen=True, slots=True)
class _Asker:
    completer: Completer
    model: str
    temperature: float
    manner: Manner

    async def replies(self, prompts: Sequence[str], times: int, stage: str) -> list[Reply]:
        """Replies in the order prompt 1 … prompt n, `times` times each, one beside the other."""
        requests = [
            ChatRequest.of(
                [{"role": "user", "content": prompt}], self.model,
                max_tokens=1, temperature=self.temperature,
            )
            for prompt in prompts
            for _ in range(times)
        ]  # fmt: skip
        return await ask_all(self.completer, requests, self.manner, stage=stage)

    async def tokens(self, prompts: Sequence[str], times: int, stage: str) -> list[list[str]]:
        return _grouped(await self.replies(prompts, times, stage), times)


def _grouped(replies: Sequence[Reply], times: int) -> list[list[str]]:
    """The readable tokens of each prompt."""
    texts = [reply.text for reply in replies]
    groups = [texts[start : start + times] for start in range(0, len(texts), times)]
    return [[text for text in group if text is not None] for group in groups]


def _balanced(prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> list[Probe]:
    """Screened prompts, those whose usual token is least usual first."""
    probes: list[Probe] = []
    for prompt, seen in zip(prompts, tokens, strict=True):
        if seen:
            mark, times = min(Counter(seen).items(), key=lambda item: (-item[1], item[0]))
            probes.append(Probe(prompt, mark, times, len(seen)))
    return sorted(probes, key=lambda probe: (probe.num_marked / probe.num_drawn, probe.prompt))


async def _refer(ask: _Asker, found: Sequence[Probe], draws: int, delta: float) -> Borders | None:
    """The probes with fresh counts in place of those that chose them."""
    tokens = await ask.tokens([probe.prompt for probe in found], draws, "refer")
    probes = tuple(
        Probe(probe.prompt, probe.mark, seen.count(probe.mark), len(seen))
        for probe, seen in zip(found, tokens, strict=True)
        if len(seen) >= MIN_READABLE_FRAC * draws
    )
    return Borders(probes, ask.model, ask.temperature, delta / len(probes)) if probes else None
