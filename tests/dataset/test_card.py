"""What a dataset's card says of its teachers, its period, its sizes, and what to mind."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.project import Project
from ownweights.dataset.split import SPLITS
from tests.dataset.records import PERSON, answer, built, many, phrase, record
from tests.dataset.test_build import asking

MARCH = 1709596800.0  # 2024-03-05


def facts(project: Project, records: Any, **options: Any) -> dict[str, Any]:
    return built(project, records, **options).card["facts"]


def test_card_counts_units_and_examples(project: Project) -> None:
    records = [record(asking("test"), says, id=says) for says in "abc"]
    told = facts(project, [*records, record(asking("train"), id="t")])
    assert told["counts"] == {"train": 1, "develop": 0, "certify": 0, "test": 3}
    assert told["units"] == {"train": 1, "develop": 0, "certify": 0, "test": 1}


def test_card_counts_what_was_removed_by_reason(project: Project) -> None:
    asks = asking("train")
    told = facts(project, [record(asks, id="a"), record(asks, id="b"), record(asks, id="c")])
    none = {"same_as_held_out": 0, "near_held_out": 0, "repeat": 0, "near_repeat": 0}
    assert told["removed"] == {"train": {**none, "repeat": 2}, "develop": none}


def test_card_names_who_answered_when(project: Project) -> None:
    dated = {**answer("x", model="deepseek-chat"), "created": MARCH}
    records = [*many(9), record(phrase(99), response=dated, id="d")]
    records += [record(asking("train", skip=80), response=dated, id="e")]
    uses = {use["model"]: use for use in facts(project, records)["teachers"]}
    assert uses["deepseek-chat"]["first_day"] == uses["deepseek-chat"]["last_day"] == "2024-03-05"
    assert uses["deepseek-chat"]["trains"] == "allowed"
    assert uses[PERSON]["first_day"] is None
    assert uses[PERSON]["trains"] == "human"


def test_card_period_is_when_models_answered(project: Project) -> None:
    def dated(moment: float) -> Any:
        return {**answer("x"), "created": moment}

    moments = (MARCH, MARCH + 60, MARCH + 7)
    records = [record(phrase(n), response=dated(m), id=str(n)) for n, m in enumerate(moments)]
    found = facts(project, records)
    assert (found["period"], found["undated"]) == ([MARCH, MARCH + 60], 0)
    mixed = facts(project, [*records, *many(9)])
    assert (mixed["period"], mixed["undated"]) == ([MARCH, MARCH + 60], 9)


def test_card_period_is_unknown_for_undated_imports(project: Project) -> None:
    assert facts(project, many(9))["period"] is None


def test_card_identity_says_how_it_was_split(project: Project) -> None:
    identity = built(project, many(9), split_by="prompt").card["identity"]
    assert identity["workload"] == "w"
    assert identity["split_by"] == "prompt"
    assert identity["fractions"] == [0.76, 0.08, 0.08, 0.08]
    assert identity["salt"] == identity["options"]["salt"]


def test_card_records_are_known_by_a_hash_of_their_ids(project: Project) -> None:
    one, other = (facts(project, many(count))["records"] for count in (9, 10))
    assert (one["num"], other["num"]) == (9, 10)
    assert one["ids_sha256"] != other["ids_sha256"]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, "people wrote these answers: the licence of the data decides, and none is declared"),
        ("Made-Up-1.0", "no facts are known about the licence 'Made-Up-1.0'"),
        ("CC-BY-NC-4.0", "CC-BY-NC-4.0: non-commercial use only"),
        ("CC0-1.0", None),
    ],
)
def test_card_warns_about_the_licence_of_people_s_answers(
    project: Project, licence: str | None, expected: str | None
) -> None:
    warnings = facts(project, many(200), data_licence=licence)["warnings"]
    assert warnings == ([] if expected is None else [expected])


def test_card_keeps_the_facts_of_a_known_licence(project: Project) -> None:
    told = facts(project, many(9), data_licence="cc-by-4.0")["data_licence"]
    assert (told["id"], told["commercial"]) == ("CC-BY-4.0", "yes")


def test_card_warns_of_an_unknown_teacher(project: Project) -> None:
    warnings = facts(project, many(200, model="house-model"))["warnings"]
    assert warnings == [
        "house-model: whether its answers may be trained on is not known (no entry knows this"
        " model); find out before you distribute anything"
    ]


def test_card_warns_of_empty_splits(project: Project) -> None:
    warnings = facts(project, [record(asking("train"), id="t")], data_licence="MIT")["warnings"]
    assert warnings == [f"the {split} split is empty" for split in SPLITS if split != "train"]


def test_card_warns_when_much_is_like_a_held_out_request(project: Project) -> None:
    same = phrase(1)
    records = [record(same, id=f"s{n}", session=f"s{n}") for n in range(60)]
    told = facts(project, records, data_licence="MIT", split_by="session")
    assert told["counts"]["train"] == 0
    lost = told["removed"]["train"]["same_as_held_out"]
    assert lost > 30
    assert (
        f"{lost} of {lost} train examples ask what a held-out one asks, or nearly, and are left out"
        in told["warnings"]
    )
