"""Options: what is refused, and with what words. What they refuse of plain SFT is in test_train."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.errors import SettingsError
from ownweights.core.tables import OBJECTIVES
from ownweights.student.lessons import make_lesson
from ownweights.student.options import StudentOptions
from ownweights.student.study import Study

ONLY = {
    "teacher": "t", "divergence": 0.5, "temperature": 2.0, "ce_frac": 0.5, "dpo_beta": 0.2,
    "pairs": "p.jsonl", "text": "t.txt", "max_answer_tokens": 9,
}  # fmt: skip


@pytest.mark.parametrize("name", ONLY)
def test_student_options_refuse_what_an_objective_does_not_use(name: str) -> None:
    """training.md c.57: an option that nothing would read is an error."""
    with pytest.raises(SettingsError) as caught:
        StudentOptions(**{name: ONLY[name]})
    assert caught.value.what == f"{name} is of no use to the objective 'sft'"
    assert caught.value.hint is not None and "leave it out" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "kto"}, "objective 'kto' is not one of sft, dpo, distil, logprobs,"),
        ({"optimiser": "sgd"}, "optimiser 'sgd' is not one of muon, adamw"),
        ({"objective": "distil"}, "the objective 'distil' needs a teacher"),
        ({"objective": "on-policy"}, "the objective 'on-policy' needs a teacher"),
        ({"objective": "dpo", "dpo_beta": 0.0}, "dpo_beta must be more than 0 and at most 100"),
        (
            {"objective": "distil", "teacher": "t", "divergence": 1.1},
            "divergence must be in [0, 1]",
        ),
        (
            {"objective": "distil", "teacher": "t", "temperature": 0},
            "temperature must be more than",
        ),
        ({"objective": "logprobs", "ce_frac": -1}, "ce_frac must be in [0, 1], got -1"),
        ({"objective": "on-policy", "teacher": "t", "max_answer_tokens": 0}, "at least 1, got 0"),
        ({"method": "full", "head": True}, "head is about an adapter, and method 'full' trains"),
        ({"method": "full", "start": "s"}, "start is about an adapter, and method 'full' trains"),
    ],
)
def test_student_options_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        StudentOptions(**options)
    assert message in caught.value.what


def test_every_objective_has_a_maker() -> None:
    nothing: Any = None
    for name in OBJECTIVES:
        teacher = "t" if name in ("distil", "on-policy") else None
        options = StudentOptions(objective=name, teacher=teacher)
        with pytest.raises(AttributeError):  # it is found, and then wants a dataset
            make_lesson(Study(nothing, nothing, nothing, options, nothing))
