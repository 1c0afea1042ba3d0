"""The first phase of a verdict: ask and judge develop, and fix whatever certify is judged by.

In: a Trial. Out: `Developed`: the check, the confidence score, and develop's answers; with it, what
an attempt would be and what to expect of it (`foresee`). It may be repeated as often as one likes:
no certify request is asked and nothing is booked (test_develop_spends_nothing).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ownweights.core.chat import Completion
from ownweights.core.errors import UsageError
from ownweights.verdict.asking import Answers, answer_split
from ownweights.verdict.checks import Check, check_named, check_word, choose_check
from ownweights.verdict.confidence.tune import Tuned, Wanted, tune
from ownweights.verdict.judged import Judged
from ownweights.verdict.preview import Preview, preview
from ownweights.verdict.slices import slice_keys
from ownweights.verdict.store import stored_verdict
from ownweights.verdict.trial import Asked, Judging, Trial


@dataclass(frozen=True, slots=True)
class Developed:
    """What develop fixed, for certify to go on with."""

    check: Check | Judging
    tuned: Tuned
    answers: Answers
    seconds: float

    def rows(self, slices: Sequence[Mapping[str, str]]) -> list[Judged]:
        """Develop as a verdict is decided from it."""
        return self.answers.rows(self.tuned.develop_scores.tolist(), slices)


async def develop(trial: Trial) -> Developed:
    """Ask and judge the develop split; choose the check and the score.

    Raises: CompleterError when the student answers nothing at all; InvalidJudge when the judge does
    not pass its probes
    """
    started = time.monotonic()
    examples = list(trial.dataset.examples("develop"))
    check = _choose(trial, examples)
    answers = await answer_split(trial, check, examples, "develop", sampling_check(trial, check))
    tuned = _tune(trial, check, answers)
    return Developed(check, tuned, answers, time.monotonic() - started)


def foresee(trial: Trial, developed: Developed) -> Preview:
    """What certifying would need, spend and bring; the ledger is read, nothing is booked."""
    check = developed.check
    would = trial.ledger.peek(*trial.booking(check))
    if would.verdict_id and stored_verdict(trial.project, would.verdict_id) is None:
        would = dataclasses.replace(would, verdict_id=None)  # its verdict is gone: asked again
    rows = developed.rows(slice_keys(developed.answers.examples))
    return preview(trial.claim, rows, would, check.is_graded, trial.units_per_record)


def sampling_check(trial: Trial, check: Check | Judging) -> Check | None:
    """What compares sampled answers with the greedy one; None where none are drawn."""
    if not trial.options.agreement:
        return None
    if isinstance(check, Judging):
        raise UsageError(
            f"the agreement of {trial.options.agreement} sampled answers needs a check that"
            f" compares two answers by a rule, and {check.name!r} is none",
            hint="leave `agreement` out, or judge this workload by a check",
        )
    return check


def _choose(trial: Trial, examples: Sequence[Asked]) -> Check | Judging:
    if isinstance(trial.check, str):
        return check_named(trial.check, trial.project.root)
    return trial.check or choose_check(one.target for one in examples)


def _tune(trial: Trial, check: Check | Judging, answers: Answers) -> Tuned:
    wanted = Wanted(
        answers="json" if check_word(check.name) == "json" else "text",
        min_coverage_frac=trial.claim.min_coverage_frac,
        samples=trial.options.agreement,
        check=check.name,
        streaming=trial.options.streaming,
    )
    return tune(
        [done if isinstance(done, Completion) else None for done in answers.outcomes],
        np.array([1.0 if harm is None else harm for harm in answers.harms]),
        [example.unit for example in answers.examples],
        wanted,
    )
