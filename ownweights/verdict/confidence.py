"""How sure the student was of an answer, from its own token probabilities: one number to threshold.

In: an answer (its features, finish reason and text). Out: a score, larger is surer; -inf where the
answer must not be served at all: empty, cut off, without features, or, where answers are JSON, not
JSON. The gateway computes it from the answer alone, so nothing here needs torch or the references.

Which kind of score is used is tuned on *develop*: the smallest area under the risk-coverage curve
from `min_coverage_frac` up. The learned kind is a logistic regression on the plain ones; while
comparing, every unit is scored by a fit that has not seen it, so that learning cannot flatter
itself. Invariants: a score depends on the answer alone and survives its JSON form
(test_confidence_survives_json); random features choose no kind that looks informative
(test_tune_does_not_flatter_noise).
Source of the curve: El-Yaniv and Wiener, JMLR 11 (2010); Geifman et al., arXiv:1805.08206.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ownweights.core.chat import Completion, Features
from ownweights.core.errors import ArtefactError
from ownweights.verdict.checks import read_json

Floats = NDArray[np.float64]

PLAIN_KINDS = (
    "sum_logprob", "mean_logprob", "min_logprob", "mean_3_lowest", "first_logprob",
    "min_margin", "mean_margin",
)  # fmt: skip
LOGISTIC = "logistic"
FLOOR = -50.0  # a token less likely than e^-50 says no more than that
FOLDS = 5
RIDGE = 1.0  # one unit of penalty on each standardised weight


@dataclass(frozen=True, slots=True)
class Confidence:
    """A tuned score: its kind, and for the learned kind its numbers."""

    kind: str
    answers: str = "text"  # or "json": what an answer must be to be served at all
    weights: tuple[float, ...] = ()  # logistic: on (plain score - center) / scale
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    bias: float = 0.0

    def score(
        self, features: Features | None, finish_reason: str | None, text: str | None
    ) -> float:
        """How sure; -inf for an answer that must not be served."""
        if finish_reason != "stop" or not text or not text.strip():
            return -math.inf
        if self.answers == "json" and read_json(text) is None:
            return -math.inf
        plain = plain_scores(features)
        return -math.inf if plain is None else self._combine(plain)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as certificates and routes keep it."""
        found: dict[str, Any] = {"kind": self.kind, "answers": self.answers}
        if self.kind == LOGISTIC:
            found |= {
                "weights": list(self.weights), "center": list(self.center),
                "scale": list(self.scale), "bias": self.bias,
            }  # fmt: skip
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidence:
        """The score that a certificate or route describes; ArtefactError when it cannot be one."""
        kind, answers = data.get("kind"), data.get("answers", "text")
        numbers = [tuple(float(x) for x in data.get(k, ())) for k in ("weights", "center", "scale")]
        wanted = len(PLAIN_KINDS) if kind == LOGISTIC else 0
        if kind not in (*PLAIN_KINDS, LOGISTIC) or answers not in ("text", "json"):
            raise ArtefactError(f"confidence {kind!r} for {answers!r} answers is not known here")
        if any(len(part) != wanted for part in numbers) or 0.0 in numbers[2]:
            raise ArtefactError(f"confidence {kind!r} needs {wanted} weights, centers and scales")
        return cls(kind, answers, *numbers, bias=float(data.get("bias", 0.0)))

    def _combine(self, plain: Floats) -> float:
        if self.kind != LOGISTIC:
            return float(plain[PLAIN_KINDS.index(self.kind)])
        standard = (plain - np.array(self.center)) / np.array(self.scale)
        return float(standard @ np.array(self.weights)) + self.bias


def plain_scores(features: Features | None) -> Floats | None:
    """All plain scores of one answer, in the order of PLAIN_KINDS; None where there are none."""
    if features is None or not len(features.token_logprobs) or not len(features.margins):
        return None
    logprobs = features.token_logprobs.astype(np.float64)
    margins = features.margins.astype(np.float64)
    if np.isnan(logprobs).any() or np.isnan(margins).any():
        return None
    logprobs = np.clip(logprobs, FLOOR, 0.0)
    margins = np.clip(margins, 0.0, -FLOOR)
    return np.array([
        logprobs.sum(), logprobs.mean(), logprobs.min(), np.sort(logprobs)[:3].mean(), logprobs[0],
        margins.min(), margins.mean(),
    ])  # fmt: skip


def tune_confidence(
    completions: Sequence[Completion | None],
    harms: Floats,
    units: Sequence[str],
    *,
    answers: str = "text",
    min_coverage_frac: float = 0.0,
) -> Confidence:
    """The kind of score that sorts the develop answers best, learned ones judged out of fold.

    Shapes: completions, harms (n,) and units agree; None is a request without an answer, and
    anything that could not be judged should come as harm 1
    """
    gate = Confidence(PLAIN_KINDS[0], answers)
    kept = [
        index for index, done in enumerate(completions)
        if done and gate.score(done.features, done.finish_reason, done.text) > -math.inf
    ]  # fmt: skip
    if not kept:
        return gate
    rows = [cast(Floats, plain_scores(cast(Completion, completions[i]).features)) for i in kept]
    plain, kept_harms = np.stack(rows), harms[kept]
    folds = np.array([_fold(units[i]) for i in kept])
    start = min_coverage_frac * len(completions) / len(kept)
    areas = {
        kind: risk_coverage_area(plain[:, j], kept_harms, start)
        for j, kind in enumerate(PLAIN_KINDS)
    }
    areas[LOGISTIC] = risk_coverage_area(_cross_fit(plain, kept_harms, folds), kept_harms, start)
    kind = min(areas, key=lambda name: areas[name])
    if kind != LOGISTIC:
        return Confidence(kind, answers)
    *numbers, bias = _fit(plain, kept_harms)
    return Confidence(LOGISTIC, answers, *(tuple(part.tolist()) for part in numbers), bias=bias)


def risk_coverage_area(scores: Floats, harms: Floats, min_coverage_frac: float = 0.0) -> float:
    """Mean harm among the surest, averaged over how many are served: smaller sorts better."""
    n = len(scores)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, n)
    totals = np.concatenate([[0.0], np.cumsum(harms[order])])
    served = np.arange(max(1, min(n, math.ceil(min_coverage_frac * n))), n + 1)
    # within a tie the order is chance: its harm counts evenly
    harmed = np.interp(served, np.append(0, ends), totals[np.append(0, ends)])
    return float((harmed / served).mean())


def _fold(unit: str) -> int:
    return hashlib.sha256(unit.encode("utf-8", "surrogatepass")).digest()[0] % FOLDS


def _cross_fit(plain: Floats, harms: Floats, folds: NDArray[np.int64]) -> Floats:
    """Log-odds of no harm for each row from a fit on the other folds."""
    scores = np.zeros(len(plain))
    for fold in range(FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            weights, center, scale, bias = _fit(plain[~held], harms[~held])
            scores[held] = (plain[held] - center) / scale @ weights + bias
    return scores


def _fit(plain: Floats, harms: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Ridge logistic regression of "no harm" by Newton steps: weights, center, scale, bias."""
    center, spread = plain.mean(0), plain.std(0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    x = np.column_stack([(plain - center) / scale, np.ones(len(plain))])
    penalty = np.append(np.full(plain.shape[1], RIDGE), 1e-3)
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        chance = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30.0, 30.0)))
        slope = x.T @ (1.0 - harms - chance) - penalty * weights
        curve = (x.T * (chance * (1.0 - chance))) @ x + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights[:-1], center, scale, float(weights[-1])
