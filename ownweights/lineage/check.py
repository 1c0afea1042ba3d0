"""What is wrong, or owed, in where an artefact came from: damage, conflicts, conditions, duties.

In: a lineage and what it is for. Out: Findings. `internal` is use by whoever trained it,
`distribution` is giving the student to others or letting others call it. What nobody knows is a
condition inside and a conflict outside; inside is never judged harder than outside
(test_check_lineage_is_never_harder_inside). These are planning aids, not legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from ownweights.core.errors import UsageError
from ownweights.core.project import Project
from ownweights.lineage.terms import teacher_terms
from ownweights.lineage.trace import DAMAGED, HERE, MISSING, Node, trace

PURPOSES = ("internal", "distribution")
SEVERITIES = ("duty", "condition", "conflict", "damage")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about one artefact."""

    severity: str
    kind: str
    id: str
    what: str


def check_lineage(
    project: Project, artefacts: Iterable[tuple[str, str]], purpose: str = "internal"
) -> list[Finding]:
    """Everything to know about the artefacts and what they came from, the worst first."""
    found: dict[Finding, None] = {}
    for kind, artefact_id in artefacts:
        for _, node in trace(project, kind, artefact_id, verify=True).walk():
            found.update(dict.fromkeys(_findings(node, purpose)))
    return sorted(found, key=lambda one: (-SEVERITIES.index(one.severity), one.kind, one.id))


def _findings(node: Node, purpose: str) -> list[Finding]:
    said: list[tuple[str, str]] = []
    if node.state in (MISSING, DAMAGED):
        said.append(("damage", node.note))
    if node.kind == "student" and node.state == HERE and node.note:
        said.append(("condition", f"{node.note}: train it again without them"))
    if node.kind == "dataset":
        facts: Mapping[str, Any] = node.card.get("facts", {})
        for use in facts.get("teachers", ()):
            said += _teacher(use, purpose)
        if any(use.get("trains") == "human" for use in facts.get("teachers", ())):
            said += _data_licence(facts.get("data_licence"), purpose)
    return [Finding(severity, node.kind, node.id, what) for severity, what in said]


def _teacher(use: Mapping[str, Any], purpose: str) -> list[tuple[str, str]]:
    """What one row of a dataset's table of teachers means, by the facts known today."""
    name, outside = use["model"], purpose == "distribution"
    trains = use["trains"] if use["id"] == "declared" else _trains_today(use)
    said: list[tuple[str, str]] = []
    if trains != use["trains"]:
        said.append(
            ("condition", f"{name}: was {use['trains']} when the dataset was made, now {trains}")
        )
    if trains == "denied":
        is_condition = use["is_overridden"] and not outside
        how = "overridden by name" if use["is_overridden"] else "not overridden"
        said.append(
            ("condition" if is_condition else "conflict",
             f"{name}: {use['licence']} denies training on its answers ({how})")
        )  # fmt: skip
    if trains == "unknown":
        what = f"{name}: whether its answers may be trained on is not known"
        said.append(("conflict" if outside else "condition", what))
    if outside:
        said += [("duty", f"{name}: {duty}") for duty in use.get("obligations", ())]
    return said


def _trains_today(use: Mapping[str, Any]) -> str:
    day = use.get("first_day")
    at = None if day is None else _noon(date.fromisoformat(day))
    known = None if use["id"] == "unknown" else use["id"]
    try:
        return teacher_terms(use["model"], at, known).trains
    except UsageError:  # an entry of another version of the facts
        return use["trains"]


def _noon(day: date) -> float:
    return datetime.combine(day, time(12), UTC).timestamp()


def _data_licence(fact: Mapping[str, Any] | None, purpose: str) -> list[tuple[str, str]]:
    outside = purpose == "distribution"
    if fact is None:
        what = "people wrote the answers, and the licence of the data is not declared"
        return [("conflict" if outside else "condition", what)]
    said: list[tuple[str, str]] = []
    if fact["commercial"] != "yes":
        is_conflict = outside and fact["commercial"] == "no"
        said.append(("conflict" if is_conflict else "condition", f"{fact['id']}: {fact['why']}"))
    if outside:
        said += [("duty", f"{fact['id']}: {duty}") for duty in fact["obligations"]]
    return said
