"""A denied teacher is refused unless overridden by its exact name, and stays on the card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.artefact import canonical_json
from ownweights.core.errors import EXIT_REFUSED, TermsRefused
from ownweights.lineage.teachers import UNNAMED, TeacherUse, check_teachers

MARCH_1 = 1709251200.0  # 2024-03-01
DAY = 86_400.0
HINT = "if you have the right all the same, say so by name: --allow-teacher "


def the_one(uses: list[TeacherUse]) -> TeacherUse:
    (use,) = uses
    return use


def test_check_teachers_counts_answers_and_days() -> None:
    answers = [("gpt-oss-20b", MARCH_1 + n * DAY) for n in (3, 0, 1, 1)]
    use = the_one(check_teachers(answers))
    assert (use.num_answers, use.first_day, use.last_day) == (4, "2024-03-01", "2024-03-04")


def test_check_teachers_of_unknown_days() -> None:
    use = the_one(check_teachers([("people", None), ("people", MARCH_1), ("people", None)]))
    assert (use.num_answers, use.first_day, use.last_day) == (3, "2024-03-01", "2024-03-01")
    use = the_one(check_teachers([("people", None)]))
    assert (use.first_day, use.last_day) == (None, None)


def test_check_teachers_lists_the_most_used_first() -> None:
    uses = check_teachers([("people", None), ("scripted-teacher", None), ("scripted-teacher", 1.0)])
    assert [use.terms.model for use in uses] == ["scripted-teacher", "people"]


def test_check_teachers_of_nobody() -> None:
    assert check_teachers([]) == []


def test_check_teachers_refuses_a_denied_one() -> None:
    with pytest.raises(TermsRefused) as caught:
        check_teachers([("people", None), ("gpt-4o", None)])
    assert caught.value.exit_code == EXIT_REFUSED
    assert caught.value.teachers == ("gpt-4o",)
    assert caught.value.hint == HINT + "gpt-4o"
    assert caught.value.what.startswith(
        "the terms of gpt-4o deny training on the answers. gpt-4o (OpenAI Services Agreement,"
        " as of 2026-01-01): answers belong to the customer"
    )


def test_check_teachers_names_every_denied_one_at_once() -> None:
    with pytest.raises(TermsRefused, match="the terms of gpt-4o, grok-4 deny") as caught:
        check_teachers([("gpt-4o", None), ("gpt-4o", 1.0), ("gpt-4o", None), ("grok-4", None)])
    assert caught.value.teachers == ("gpt-4o", "grok-4")
    assert caught.value.hint == HINT + "gpt-4o --allow-teacher grok-4"


@pytest.mark.parametrize("allow", ["gpt-4", "GPT-4o", "gpt-4o ", "openai/gpt-4o"])
def test_check_teachers_is_overridden_by_the_exact_name_alone(allow: str) -> None:
    with pytest.raises(TermsRefused):
        check_teachers([("gpt-4o", None)], allow=[allow])


def test_check_teachers_records_an_override() -> None:
    use = the_one(check_teachers([("gpt-4o", None)], allow=["gpt-4o"]))
    told = use.to_json()
    assert (told["trains"], told["is_overridden"]) == ("denied", True)
    assert use.warning == (
        "gpt-4o: OpenAI Services Agreement denies training on its answers; overridden by name"
    )


def test_check_teachers_needs_no_override_for_an_allowed_one() -> None:
    use = the_one(check_teachers([("scripted-teacher", None)], allow=["scripted-teacher"]))
    assert not use.is_overridden
    assert use.warning is None


def test_check_teachers_splits_one_model_by_its_wordings() -> None:
    answers = [("mistral-large-2402", MARCH_1 + n * DAY) for n in (-10, -9, 4)]
    with pytest.raises(TermsRefused, match="mistral-large-2402"):
        check_teachers(answers)
    denied, allowed = check_teachers(answers, allow=["mistral-large-2402"])
    assert (denied.terms.trains, denied.num_answers, denied.last_day) == ("denied", 2, "2024-02-21")
    assert (allowed.terms.trains, allowed.num_answers) == ("allowed", 1)
    assert (denied.is_overridden, allowed.is_overridden) == (True, False)


def test_check_teachers_says_that_a_day_was_missing() -> None:
    use = the_one(check_teachers([("mistral-small", None)]))
    assert use.warning == (
        "mistral-small: the day of the answer is not known, so the latest wording was taken"
    )


def test_check_teachers_lets_an_unknown_one_pass_with_a_warning() -> None:
    use = the_one(check_teachers([("house-model", None)]))
    assert use.terms.trains == "unknown"
    assert use.warning is not None
    assert use.warning.endswith("find out before you distribute anything")


def test_check_teachers_names_the_unnamed() -> None:
    assert the_one(check_teachers([("", None)])).terms.model == UNNAMED


def test_check_teachers_takes_declared_terms_by_exact_name() -> None:
    answers = [("gpt-4o", None)]
    use = the_one(check_teachers(answers, declared={"gpt-4o": "allowed"}))
    assert (use.terms.id, use.terms.trains, use.warning) == ("declared", "allowed", None)
    with pytest.raises(TermsRefused):
        check_teachers(answers, declared={"gpt-4": "allowed"})


names = st.sampled_from(["people", "gpt-oss-20b", "mistral-tiny", "house-model", ""])


@given(st.lists(st.tuples(names, st.none() | st.floats(1.72e9, 1.8e9)), max_size=30))
def test_check_teachers_always_counts_every_answer_once(
    answers: list[tuple[str, float | None]],
) -> None:
    uses = check_teachers(answers)
    assert sum(use.num_answers for use in uses) == len(answers)
    assert {use.terms.model for use in uses} == {model or UNNAMED for model, _ in answers}
    assert all(canonical_json(use.to_json()) for use in uses)
