"""A small chain of artefacts, as the other packages seal them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.artefact import Artefact, draft_folder, seal
from ownweights.core.project import Project
from ownweights.lineage import check_teachers, licence_fact


@dataclass(frozen=True, slots=True)
class Chain:
    """What was made, and the id of a route that follows it."""

    dataset: Artefact
    student: Artefact
    verdict: Artefact
    route: str


def make(
    project: Project, kind: str, text: str = "x", *, parents: Any = None, facts: Any = None,
    identity: Any = None,
) -> Artefact:  # fmt: skip
    """One artefact with one file."""
    with draft_folder(project.kind_dir(kind)) as draft:
        (draft / "data.txt").write_text(text, "utf-8")
        return seal(draft, kind, identity=identity or {}, parents=parents, facts=facts)


def make_dataset(
    project: Project, teachers: Sequence[str] = ("people",), licence: str | None = "CC0-1.0"
) -> Artefact:
    """A dataset whose card holds the teachers; denied ones are overridden."""
    uses = check_teachers([(name, None) for name in teachers], allow=teachers)
    fact = licence_fact(licence) if licence else None
    facts = {
        "teachers": [use.to_json() for use in uses],
        "data_licence": fact.to_json() if fact else None,
    }
    return make(project, "dataset", "\n".join(teachers), facts=facts)


def make_chain(project: Project, teachers: Sequence[str] = ("people",)) -> Chain:
    """Dataset, student on an outside base, verdict, route."""
    dataset = make_dataset(project, teachers)
    student = make(
        project, "student", parents={"dataset": dataset.id, "base": "0123456789ab"},
        identity={"base_name": "seedling"},
    )  # fmt: skip
    verdict = make(project, "verdict", parents={"student": student.id, "dataset": dataset.id})
    route = "fedcba987654"
    path = project.kind_dir("route") / f"{route}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'student_id = "{student.id}"\nverdict_id = "{verdict.id}"\n', "utf-8")
    return Chain(dataset, student, verdict, route)
