"""Has the text itself changed? Maximum mean discrepancy, with answers shuffled within strata.

In: answers to the same prompts before and after. Out: a Finding. Where each prompt was answered
twice or more on both sides, a prompt is a stratum. Where it was answered once, prompts are put in
strata of four by chance: the old answers of two stand against the new answers of the other two, so
that as long as nothing changed, any two of the four could as well have been the old ones. That
costs power where prompts are unlike each other, and never validity
(test_text_alarms_falsely_within_its_limit). So few strata that no shuffle could be rare enough are
"could not tell".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME, Finding
from ownweights.verdict.statistics.samples import mmd_test

MIN_DRAWS = 2  # answers a side that a stratum needs
MAX_PERMUTATIONS = 200_000
FIRST_PERMUTATIONS, FIRST_LIMIT = 199, 0.05
Texts = Sequence[Sequence[str]]  # for each prompt, its answers


def compare_texts(before: Texts, after: Texts, limit: float, *, seed: int = 0) -> Finding:
    """Whether answers to the same prompts read as if from the same source."""
    assert len(before) == len(after), "one list of answers a prompt"
    if limit <= 0:
        what = "the error of this channel is spent: take a new baseline"
        return Finding("text", COULD_NOT_TELL, what)
    old, new = _strata(before, after, seed)
    least = strata_needed(limit)
    assert limit <= FIRST_LIMIT, f"a channel may not spend {limit} at one look"
    if len(old) < least or 2 / limit > MAX_PERMUTATIONS:
        what = f"{len(old)} groups of answers could be shuffled, and {least} are needed"
        return Finding("text", COULD_NOT_TELL, what, limit, num_probes=len(old))
    found = mmd_test(old, new, permutations=FIRST_PERMUTATIONS, seed=seed)
    if found.p_value <= FIRST_LIMIT:  # only what looks rare is worth shuffling so often
        found = mmd_test(old, new, permutations=math.ceil(2 / limit), seed=seed + 1)
    is_changed = found.p_value <= limit
    return Finding(
        "text", CHANGED if is_changed else SAME, f"MMD² of the first characters {found.effect:.3f}",
        limit, p_value=found.p_value, num_probes=sum(map(len, new.values())), feature="mmd",
        alarm_at=sum(map(len, new.values())) if is_changed else None, after=round(found.effect, 4),
    )  # fmt: skip


def strata_needed(limit: float) -> int:
    """How many strata there must be so that a shuffle as extreme as the truth is rare enough.

    Two against two can be shuffled in three ways, and a tenth of the limit is rare enough.
    """
    return math.ceil(math.log(10 / limit) / math.log(3))


def _strata(
    before: Texts, after: Texts, seed: int
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    readable = [i for i in range(len(before)) if before[i] and after[i]]
    if readable and all(min(len(before[i]), len(after[i])) >= MIN_DRAWS for i in readable):
        whole = {str(i): list(before[i]) for i in readable}
        return whole, {str(i): list(after[i]) for i in readable}
    order: list[int] = np.random.default_rng(seed).permutation(readable).tolist()
    fours = [order[start : start + 4] for start in range(0, len(order) - 3, 4)]
    old = {str(four[0]): [before[i][-1] for i in four[:2]] for four in fours}
    new = {str(four[0]): [after[i][0] for i in four[2:]] for four in fours}
    return old, new
