"""The way up from an artefact shows everything it came from, present or not."""

from __future__ import annotations

import json
import shutil

import pytest

from ownweights.core.errors import ArtefactMissing
from ownweights.core.project import Project
from ownweights.lineage.trace import Node, all_artefacts, find_artefact, trace
from tests.lineage.chain import Chain, make


def drawn(node: Node) -> list[tuple[int, str, str, str]]:
    return [(depth, one.kind, one.id, one.state) for depth, one in node.walk()]


def test_trace_goes_from_route_to_dataset_and_base(project: Project, chain: Chain) -> None:
    dataset = (chain.dataset.id, "here")
    student = [("dataset", *dataset), ("base", "0123456789ab", "outside")]
    assert drawn(trace(project, "route", chain.route)) == [
        (0, "route", chain.route, "here"),
        (1, "verdict", chain.verdict.id, "here"),
        (2, "student", chain.student.id, "here"),
        *((3, *parent) for parent in student),
        (2, "dataset", *dataset),
        (1, "student", chain.student.id, "here"),
        *((2, *parent) for parent in student),
    ]


def test_trace_holds_the_cards(project: Project, chain: Chain) -> None:
    node = trace(project, "verdict", chain.verdict.id)
    assert node.card == chain.verdict.card
    assert node.parents[0].card == chain.student.card


def test_trace_names_an_outside_base(project: Project, chain: Chain) -> None:
    _, base = trace(project, "student", chain.student.id).parents
    assert (base.kind, base.state, base.note) == ("base", "outside", "seedling")


def test_trace_reads_a_base_of_the_project(project: Project) -> None:
    base = make(project, "base")
    student = make(project, "student", parents={"base": base.id})
    (node,) = trace(project, "student", student.id).parents
    assert (node.id, node.state) == (base.id, "here")


def test_trace_shows_a_deleted_parent(project: Project, chain: Chain) -> None:
    shutil.rmtree(chain.dataset.path)
    dataset, _ = trace(project, "student", chain.student.id).parents
    assert (dataset.state, dataset.card) == ("missing", {})
    assert dataset.note == f"dataset '{chain.dataset.id}' does not exist"


def test_trace_shows_an_unreadable_parent(project: Project, chain: Chain) -> None:
    (chain.dataset.path / "card.json").write_text("{", "utf-8")
    dataset, _ = trace(project, "student", chain.student.id).parents
    assert dataset.state == "damaged"
    assert "card.json is not readable JSON" in dataset.note


@pytest.mark.parametrize(("verify", "state"), [(True, "damaged"), (False, "here")])
def test_trace_verifies_on_demand(project: Project, chain: Chain, verify: bool, state: str) -> None:
    (chain.dataset.path / "data.txt").write_text("changed", "utf-8")
    dataset, _ = trace(project, "student", chain.student.id, verify=verify).parents
    assert dataset.state == state


def test_trace_cannot_go_in_a_circle(project: Project, chain: Chain) -> None:
    path = chain.dataset.path / "card.json"
    card = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**card, "parents": {"student": chain.student.id}}), "utf-8")
    node = trace(project, "student", chain.student.id)
    last = node.parents[0]
    assert (last.id, last.state, last.parents) == (chain.dataset.id, "damaged", ())
    assert f"is not the card of {chain.dataset.id}" in last.note


def test_trace_of_a_route_that_is_no_toml(project: Project, chain: Chain) -> None:
    path = project.kind_dir("route") / f"{chain.route}.toml"
    path.write_text("student_id =", "utf-8")
    node = trace(project, "route", chain.route)
    assert node.state == "damaged"
    assert f"{path} is not readable TOML" in node.note


def test_trace_of_a_route_that_is_gone(project: Project) -> None:
    node = trace(project, "route", "nope")
    assert (node.state, node.note) == ("missing", "route 'nope' does not exist")


def test_node_is_json(project: Project, chain: Chain) -> None:
    told = trace(project, "student", chain.student.id).to_json()
    assert json.loads(json.dumps(told)) == told
    assert [(p["kind"], p["state"]) for p in told["parents"]] == [
        ("dataset", "here"), ("base", "outside"),
    ]  # fmt: skip
    assert told["made_by"].startswith("ownweights ")


def test_all_artefacts_lists_every_kind(project: Project, chain: Chain) -> None:
    (project.kind_dir("dataset") / ".draft-1").mkdir()
    (project.kind_dir("route") / "active").mkdir()
    assert sorted(all_artefacts(project)) == sorted(
        [("dataset", chain.dataset.id), ("student", chain.student.id),
         ("verdict", chain.verdict.id), ("route", chain.route)]
    )  # fmt: skip


def test_all_artefacts_of_an_empty_project(project: Project) -> None:
    assert all_artefacts(project) == []


def test_find_artefact_by_the_beginning_of_its_id(project: Project, chain: Chain) -> None:
    for kind, artefact_id in all_artefacts(project):
        assert find_artefact(project, artefact_id) == (kind, artefact_id)
    assert find_artefact(project, chain.route[:6]) == ("route", chain.route)


@pytest.mark.parametrize("prefix", ["zz", ""])
def test_find_artefact_refuses_what_is_not_there(
    project: Project, chain: Chain, prefix: str
) -> None:
    with pytest.raises(ArtefactMissing, match=f"there is no artefact '{prefix}'"):
        find_artefact(project, prefix)


def test_find_artefact_refuses_what_two_share(project: Project) -> None:
    ids = [make(project, "dataset", str(n)).id for n in range(40)]
    shared = next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    with pytest.raises(ArtefactMissing, match=f"'{shared}' is ambiguous") as caught:
        find_artefact(project, shared)
    assert (caught.value.hint or "").startswith("it may be: dataset ")


def test_trace_knows_what_a_parent_is_by_its_role(project: Project, chain: Chain) -> None:
    """A student that was trained on from another, and taught by a third and by a base elsewhere."""
    student = make(
        project, "student",
        parents={"base": "0123456789ab", "start": chain.student.id,
                 "teacher_student": chain.student.id, "teacher_base": "ffff456789ab"},
        identity={"base_name": "seedling", "teacher_name": "big"},
    )  # fmt: skip
    found = trace(project, "student", student.id).parents
    assert [(node.kind, node.state, node.note) for node in found] == [
        ("base", "outside", "seedling"), ("student", "here", ""), ("student", "here", ""),
        ("base", "outside", "big"),
    ]  # fmt: skip
