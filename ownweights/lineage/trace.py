"""Where an artefact came from: its parents, their parents, read from their cards.

In: a project and an artefact's id. Out: a tree of Nodes, route → verdict → student → dataset and
base. A parent that is gone is a node too, so that a deletion shows downstream
(test_trace_shows_a_deleted_parent). A base that the project did not make is `outside`: the card of
the student holds its name and content hash, the weights lie elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import open_artefact
from ownweights.core.errors import ArtefactError, ArtefactMissing
from ownweights.core.project import KINDS, Project
from ownweights.core.tombstone import erased_from, erased_mark

FOLDER_KINDS = tuple(kind for kind in KINDS if kind != "route")
HERE, MISSING, OUTSIDE, DAMAGED = "here", "missing", "outside", "damaged"
# what a parent is to its child, where that is not its kind
ROLE_KINDS: Mapping[str, str] = {
    "start": "student",
    "teacher_student": "student",
    "teacher_base": "base",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One artefact in a lineage. `note` is the base's name, what is wrong with it, or what was
    erased of it."""

    kind: str
    id: str
    state: str
    card: Mapping[str, Any]
    parents: tuple[Node, ...]
    note: str = ""

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """The node and all above it, each with its distance."""
        yield depth, self
        for parent in self.parents:
            yield from parent.walk(depth + 1)

    def to_json(self) -> dict[str, Any]:
        """The tree as nested objects."""
        return {
            "kind": self.kind, "id": self.id, "state": self.state, "note": self.note,
            "made_by": self.card.get("made_by"), "created_at": self.card.get("created_at"),
            "parents": [parent.to_json() for parent in self.parents],
        }  # fmt: skip


def find_artefact(project: Project, prefix: str) -> tuple[str, str]:
    """The kind and the id of the one artefact whose id starts so.

    Raises: ArtefactMissing when there is none, or more than one
    """
    found = [one for one in all_artefacts(project) if prefix and one[1].startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        listing = ", ".join(f"{kind} {artefact_id}" for kind, artefact_id in found)
        raise ArtefactMissing(f"{prefix!r} is ambiguous", hint=f"it may be: {listing}")
    raise ArtefactMissing(
        f"there is no artefact {prefix!r}", hint="`own lineage check` goes through all there are"
    )


def all_artefacts(project: Project) -> list[tuple[str, str]]:
    """Kind and id of everything the project has made, by kind."""
    found = [
        (kind, path.name)
        for kind in FOLDER_KINDS
        for path in _entries(project.kind_dir(kind))
        if path.is_dir()
    ]
    routes = _entries(project.kind_dir("route"))
    return found + [("route", path.stem) for path in routes if path.suffix == ".toml"]


def trace(project: Project, kind: str, artefact_id: str, *, verify: bool = False) -> Node:
    """An artefact and all that it came from; `verify` re-hashes every file on the way."""
    return _Walk(project, verify).node(kind, artefact_id)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One way up. It ends, for an id is a hash of its parents' ids."""

    project: Project
    verify: bool

    def node(self, kind: str, artefact_id: str) -> Node:
        try:
            card = self._card(kind, artefact_id)
        except ArtefactMissing as error:
            return Node(kind, artefact_id, MISSING, {}, (), error.what)
        except ArtefactError as error:
            return Node(kind, artefact_id, DAMAGED, {}, (), error.what)
        parents = tuple(
            self._outside_base(card, role, str(parent_id))
            or self.node(_kind_of(role), str(parent_id))
            for role, parent_id in card.get("parents", {}).items()
        )
        return Node(kind, artefact_id, HERE, card, parents, self._erased(kind, artefact_id))

    def _erased(self, kind: str, artefact_id: str) -> str:
        """What was erased from an artefact, or from what it was trained on."""
        if kind == "route":
            return ""
        kind_dir = self.project.kind_dir(kind)
        if (left := erased_from(kind_dir / artefact_id)) is not None:
            return left.note
        mark = erased_mark(kind_dir, artefact_id)
        return f"trained before {mark.note}" if mark else ""

    def _card(self, kind: str, artefact_id: str) -> Mapping[str, Any]:
        if kind == "route":
            return _route_card(self.project, artefact_id)
        kind_dir = self.project.kind_dir(kind)
        return open_artefact(kind_dir, artefact_id, kind, verify=self.verify).card

    def _outside_base(self, child: Mapping[str, Any], role: str, base_id: str) -> Node | None:
        if _kind_of(role) != "base":
            return None
        if (self.project.kind_dir("base") / base_id).is_dir():
            return None
        named = "base_name" if role == "base" else "teacher_name"
        name = str(child.get("identity", {}).get(named, ""))
        return Node("base", base_id, OUTSIDE, {}, (), name)


def _kind_of(role: str) -> str:
    return ROLE_KINDS.get(role, role)


def _route_card(project: Project, route_id: str) -> Mapping[str, Any]:
    """A route has no folder; what it refers to is in its file."""
    path = project.kind_dir("route") / f"{route_id}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ArtefactMissing(f"route {route_id!r} does not exist") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArtefactError(f"{path} is not readable TOML: {error}") from None
    roles = {"verdict": table.get("verdict_id"), "student": table.get("student_id")}
    return {"identity": table, "parents": {role: one for role, one in roles.items() if one}}


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
