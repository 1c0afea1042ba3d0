"""One number to threshold: how sure the student is, from what it knew of its own answer.

In: an answer (its features, finish reason and text), or the features of its prompt alone. Out: a
score, larger is surer; -inf where an answer must not be served at all. Nothing here needs torch or
the references, so that the gateway computes it for every request.

  plain      sum_logprob, ... of the answer's own tokens
  logistic   the plain ones combined: the log-odds of no harm
  agreement  the same, with the share of sampled answers that say what the greedy one says
  gate       the log-odds of no harm from the prompt's state: known before a word is generated

What looks at the answer is -inf for one that is empty, cut off, or, where answers are JSON, not
JSON. The gate cannot see that: it scores such a request as any other, and the harm counts, so that
what is certified is what a stream does, which nobody can take back. Invariants: a score depends on
its features alone and survives its JSON form (test_confidence_survives_json,
test_gate_survives_json); the gate's is the same before and after generating
(test_gate_is_blind_to_the_answer).
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownweights.core.chat import Features
from ownweights.core.errors import ArtefactError
from ownweights.verdict.checks import read_json

Floats = NDArray[np.float64]

PLAIN_KINDS = (
    "sum_logprob", "mean_logprob", "min_logprob", "mean_3_lowest", "first_logprob",
    "min_margin", "mean_margin",
)  # fmt: skip
LOGISTIC, AGREEMENT, GATE = "logistic", "agreement", "gate"
COLUMNS = {LOGISTIC: len(PLAIN_KINDS), AGREEMENT: len(PLAIN_KINDS) + 1}
MAX_SAMPLES = 64
MAX_WIDTH = 65_536  # of a prompt's state
FLOOR = -50.0  # a token less likely than e^-50 says no more than that


@dataclass(frozen=True, slots=True)
class Confidence:
    """A tuned score: its kind, and for the learned kinds their numbers."""

    kind: str
    answers: str = "text"  # or "json": what an answer must be to be served at all
    weights: tuple[float, ...] = ()  # learned: on (plain score - center) / scale; gate: on states
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()  # gate: one number, which the weights are in units of
    bias: float = 0.0
    samples: int = 0  # agreement: how many answers are drawn beside the greedy one,
    check: str = ""  # and what says whether they agree

    @property
    def decides_before_generating(self) -> bool:
        """Whether the score is known from the prompt, so that the answer can be streamed."""
        return self.kind == GATE

    def score(
        self, features: Features | None, finish_reason: str | None, text: str | None
    ) -> float:
        """How sure; -inf for an answer that must not be served."""
        if self.decides_before_generating:
            return self.score_before(features)
        if finish_reason != "stop" or not text or not text.strip():
            return -math.inf
        if self.answers == "json" and read_json(text) is None:
            return -math.inf
        found = columns(features, with_agreement=self.kind == AGREEMENT)
        return -math.inf if found is None else self._combine(found)

    def score_before(self, features: Features | None) -> float:
        """The same score from the prompt alone; -inf where the kind needs the answer."""
        state = None if features is None else features.prompt_state
        if not self.decides_before_generating or state is None or len(state) != len(self.weights):
            return -math.inf
        if not np.isfinite(state).all():
            return -math.inf
        return float(state.astype(np.float64) @ np.array(self.weights)) * self.scale[0] + self.bias

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as certificates and routes keep it; a gate's weights are float16, packed.

        Raises: ArtefactError for a gate whose weights are no float16 numbers from -1 to 1
        """
        found: dict[str, Any] = {"kind": self.kind, "answers": self.answers}
        if self.kind in COLUMNS:
            found |= {
                "weights": list(self.weights), "center": list(self.center),
                "scale": list(self.scale), "bias": self.bias,
            }  # fmt: skip
        if self.kind == AGREEMENT:
            found |= {"samples": self.samples, "check": self.check}
        if self.kind == GATE:
            found |= {"weights": pack(self.weights), "scale": list(self.scale), "bias": self.bias}
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidence:
        """The score that a certificate or route describes; ArtefactError when it cannot be one."""
        kind, answers = data.get("kind"), data.get("answers", "text")
        if kind not in (*PLAIN_KINDS, *COLUMNS, GATE) or answers not in ("text", "json"):
            raise ArtefactError(f"confidence {kind!r} for {answers!r} answers is not known here")
        try:
            bias = float(data.get("bias", 0.0))
            if kind == GATE:
                scale = tuple(float(x) for x in data["scale"])
                found = cls(kind, answers, unpack(data["weights"]), (), scale, bias)
            else:
                names = ("weights", "center", "scale")
                numbers = [tuple(float(x) for x in data.get(name, ())) for name in names]
                found = cls(kind, answers, *numbers, bias=bias)
                if kind == AGREEMENT:
                    asked = {"samples": int(data["samples"]), "check": str(data["check"])}
                    found = cls(kind, answers, *numbers, bias=bias, **asked)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"confidence {kind!r} lacks its numbers: {error}") from None
        found.refuse_odd_numbers()
        return found

    def refuse_odd_numbers(self) -> None:
        """Raise ArtefactError unless the numbers are those that the kind needs."""
        counts = [len(part) for part in (self.weights, self.center, self.scale)]
        if self.kind == GATE:
            if counts[2] != 1 or not 1 <= counts[0] <= MAX_WIDTH:
                raise ArtefactError("confidence 'gate' needs packed weights and one scale")
        else:
            wanted = COLUMNS.get(self.kind, 0)
            if counts != [wanted] * 3 or 0.0 in self.scale:
                what = f"confidence {self.kind!r} needs {wanted} weights, centers and scales"
                raise ArtefactError(what)
        if not all(map(math.isfinite, (*self.weights, *self.center, *self.scale, self.bias))):
            raise ArtefactError(f"confidence {self.kind!r} holds a number that is not finite")
        if self.kind == AGREEMENT and (not 1 <= self.samples <= MAX_SAMPLES or not self.check):
            raise ArtefactError(f"confidence 'agreement' needs 1 to {MAX_SAMPLES} samples, a check")

    def _combine(self, found: Floats) -> float:
        if self.kind not in COLUMNS:
            return float(found[PLAIN_KINDS.index(self.kind)])
        standard = (found - np.array(self.center)) / np.array(self.scale)
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


def columns(features: Features | None, *, with_agreement: bool) -> Floats | None:
    """The plain scores and, where wanted, the agreement; None where any of it is not there."""
    found = plain_scores(features)
    if found is None or not with_agreement:
        return found
    agreement = None if features is None else features.agreement
    return None if agreement is None else np.append(found, agreement)


def pack(weights: tuple[float, ...]) -> str:
    """Numbers from -1 to 1 as text, two bytes each; they must be float16 already."""
    halves = np.array(weights, "<f2")
    if not np.array_equal(halves.astype(np.float64), np.array(weights)) or max(abs(halves)) > 1:
        raise ArtefactError("a gate's weights must be float16 numbers from -1 to 1")
    return base64.b64encode(halves.tobytes()).decode()


def unpack(text: Any) -> tuple[float, ...]:
    """The numbers in such a text.

    Raises: ArtefactError for one that is none
    """
    try:
        return tuple(np.frombuffer(base64.b64decode(text, validate=True), "<f2").tolist())
    except (binascii.Error, TypeError, ValueError) as error:
        raise ArtefactError(f"a gate's weights cannot be read: {error}") from None
