"""The judge of a certificate once more: the same one, or none."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.errors import SettingsError
from ownweights.verdict.judge import Cascade, Judge, JudgeOptions
from ownweights.verdict.judge.live import judge_names, missing_judge, refuse_other_judge
from tests.fakes import ScriptedTeacher


def judge(name: str = "jury", model: str = "m", rubric: str = "", **options: Any) -> Judge:
    known = JudgeOptions(**options)
    return Judge(ScriptedTeacher("x"), model, name=name, rubric=rubric, options=known)


def test_judge_names_are_those_of_the_cascade() -> None:
    assert judge_names(Cascade([judge()]).identity) == ("jury",)
    assert judge_names(Cascade([judge(), judge("court")]).identity) == ("jury", "court")


def test_same_judge_is_taken_whatever_else_was_learned_of_it() -> None:
    now = Cascade([judge(), judge("court")]).identity
    certified = {**now, "probes": [1], "bias": {}, "labels": {"num": 3}}
    refuse_other_judge(certified, now)
    refuse_other_judge(certified, Cascade([judge(concurrency=1), judge("court")]).identity)


@pytest.mark.parametrize(
    ("other", "part"),
    [({"model": "m2"}, "model"), ({"rubric": "Be kind."}, "rubric"),
     ({"max_tokens": 9}, "decoding")],
)  # fmt: skip
def test_other_judge_is_refused(other: dict[str, Any], part: str) -> None:
    certified = Cascade([judge(), judge("court")]).identity
    for pair in ([judge(**other), judge("court")], [judge(), judge("court", **other)]):
        with pytest.raises(SettingsError, match=f"its {part} is another now"):
            refuse_other_judge(certified, Cascade(pair).identity)


def test_missing_judge_says_what_to_add() -> None:
    assert "[teacher.jury]" in (missing_judge("jury").hint or "")
