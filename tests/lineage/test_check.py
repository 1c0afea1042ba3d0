"""What is wrong or owed in a lineage, inside the house and outside of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.artefact import Artefact
from ownweights.core.project import Project
from ownweights.lineage.check import SEVERITIES, Finding, check_lineage
from ownweights.lineage.trace import all_artefacts
from tests.lineage.chain import Chain, make_chain, make_dataset


def checked(project: Project, dataset: Artefact, purpose: str) -> list[tuple[str, str]]:
    found = check_lineage(project, [("dataset", dataset.id)], purpose)
    return [(one.severity, one.what) for one in found]


@pytest.mark.parametrize("purpose", ["internal", "distribution"])
def test_check_lineage_of_a_clean_chain_finds_nothing(
    project: Project, chain: Chain, purpose: str
) -> None:
    assert check_lineage(project, all_artefacts(project), purpose) == []


def test_check_lineage_finds_a_deleted_parent(project: Project, chain: Chain) -> None:
    shutil.rmtree(chain.dataset.path)
    what = f"dataset '{chain.dataset.id}' does not exist"
    assert check_lineage(project, [("route", chain.route)]) == [
        Finding("damage", "dataset", chain.dataset.id, what)
    ]


def test_check_lineage_finds_a_changed_file(project: Project, chain: Chain) -> None:
    (chain.student.path / "data.txt").write_text("changed", "utf-8")
    (found,) = check_lineage(project, all_artefacts(project))
    assert (found.severity, found.kind, found.id) == ("damage", "student", chain.student.id)
    assert "file 'data.txt' is not what its card says" in found.what


GPT = "gpt-4o: OpenAI Services Agreement denies training on its answers (overridden by name)"
HOUSE = "house-model: whether its answers may be trained on is not known"
UNDECLARED = "people wrote the answers, and the licence of the data is not declared"
NAME = "llama-3.1-8b: the name of a distributed student starts with Llama"


@pytest.mark.parametrize(
    ("teachers", "licence", "inside", "outside"),
    [
        (["gpt-4o"], None, [("condition", GPT)], [("conflict", GPT)]),
        (["house-model"], None, [("condition", HOUSE)], [("conflict", HOUSE)]),
        (["people"], None, [("condition", UNDECLARED)], [("conflict", UNDECLARED)]),
        (["people"], "CC0-1.0", [], []),
        (["people"], "CC-BY-NC-4.0",
         [("condition", "CC-BY-NC-4.0: non-commercial use only")],
         [("conflict", "CC-BY-NC-4.0: non-commercial use only"),
          ("duty", "CC-BY-NC-4.0: credit the authors"),
          ("duty", "CC-BY-NC-4.0: no commercial use")]),
        (["people"], "C-UDA-1.0",
         [("condition", "C-UDA-1.0: training is a computational use")],
         [("condition", "C-UDA-1.0: training is a computational use"),
          ("duty", "C-UDA-1.0: computational use only"), ("duty", "C-UDA-1.0: keep the terms")]),
        (["llama-3.1-8b"], None, [],
         [("duty", NAME), ("duty", "llama-3.1-8b: show Built with Llama"),
          ("duty", "llama-3.1-8b: pass on the agreement and a notice file")]),
        (["gpt-oss-20b", "deepseek-chat"], None, [], []),
    ],
)  # fmt: skip
def test_check_lineage_judges_by_purpose(
    project: Project,
    teachers: Sequence[str],
    licence: str | None,
    inside: list[tuple[str, str]],
    outside: list[tuple[str, str]],
) -> None:
    dataset = make_dataset(project, teachers, licence)
    assert checked(project, dataset, "internal") == inside
    assert checked(project, dataset, "distribution") == outside


def edit_teacher(dataset: Artefact, **changed: object) -> None:
    path = dataset.path / "card.json"
    card = json.loads(path.read_text("utf-8"))
    card["facts"]["teachers"][0].update(changed)
    path.write_text(json.dumps(card), "utf-8")


def test_check_lineage_goes_by_the_facts_known_today(project: Project) -> None:
    dataset = make_dataset(project, ["gpt-4o"])
    edit_teacher(dataset, trains="allowed", is_overridden=False)
    assert checked(project, dataset, "internal") == [
        ("conflict", GPT.replace("overridden by name", "not overridden")),
        ("condition", "gpt-4o: was allowed when the dataset was made, now denied"),
    ]  # fmt: skip


@pytest.mark.parametrize(("day", "expected"), [("2024-02-20", "conflict"), ("2024-03-05", None)])
def test_check_lineage_goes_by_the_day_of_the_answers(
    project: Project, day: str, expected: str | None
) -> None:
    dataset = make_dataset(project, ["mistral-large-latest"])
    edit_teacher(dataset, first_day=day)
    severities = [severity for severity, _ in checked(project, dataset, "internal")]
    assert severities[:1] == ([expected] if expected else [])


def test_check_lineage_leaves_declared_terms_alone(project: Project) -> None:
    dataset = make_dataset(project, ["gpt-4o"])
    edit_teacher(dataset, id="declared", trains="allowed", is_overridden=False)
    assert checked(project, dataset, "distribution") == []


def test_check_lineage_trusts_the_card_on_terms_it_does_not_know(project: Project) -> None:
    dataset = make_dataset(project, ["gpt-oss-20b"])
    edit_teacher(dataset, id="an-entry-of-tomorrow")
    assert checked(project, dataset, "distribution") == []


def test_check_lineage_says_each_thing_once(project: Project) -> None:
    chain = make_chain(project, ["house-model"])
    found = check_lineage(project, all_artefacts(project))
    assert found == [Finding("condition", "dataset", chain.dataset.id, HOUSE)]


def test_check_lineage_lists_the_worst_first(project: Project) -> None:
    chain = make_chain(project, ["gpt-4o", "llama-3.1-8b"])
    shutil.rmtree(chain.verdict.path)
    found = check_lineage(project, [("route", chain.route)], "distribution")
    places = [SEVERITIES.index(one.severity) for one in found]
    assert places == sorted(places, reverse=True)
    assert {one.severity for one in found} == {"damage", "conflict", "duty"}


models = st.lists(
    st.sampled_from(["people", "gpt-4o", "house-model", "llama-3.1-8b", "gemma-2-9b", "grok-4"]),
    max_size=4,
    unique=True,
)
licences = st.sampled_from([None, "CC0-1.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "C-UDA-1.0"])


def weight(found: Sequence[tuple[str, str]]) -> int:
    return max((1 + SEVERITIES.index(severity) for severity, _ in found), default=0)


@given(models, licences)
def test_check_lineage_is_never_harder_inside(
    tmp_path_factory: pytest.TempPathFactory, teachers: list[str], licence: str | None
) -> None:
    project = Project(tmp_path_factory.mktemp("purpose"))
    dataset = make_dataset(project, teachers, licence)
    inside, outside = (checked(project, dataset, p) for p in ("internal", "distribution"))
    assert weight(inside) <= weight(outside)
    assert {what for _, what in inside} <= {what for _, what in outside}


@given(models, models)
def test_check_lineage_never_owes_more_for_less(
    tmp_path_factory: pytest.TempPathFactory, some: list[str], more: list[str]
) -> None:
    project = Project(tmp_path_factory.mktemp("less"))
    less = make_dataset(project, some, "CC0-1.0")
    all_of_them = make_dataset(project, list(dict.fromkeys([*some, *more])), "CC0-1.0")
    for purpose in ("internal", "distribution"):
        assert set(checked(project, less, purpose)) <= set(checked(project, all_of_them, purpose))


def test_check_lineage_of_an_empty_project(tmp_path: Path) -> None:
    assert check_lineage(Project(tmp_path), []) == []
