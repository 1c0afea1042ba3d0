"""Certificates that no longer hold: who may read it, and how it is written down.

In: a certificate's id and why it is void. Out: one small file, `.own/verdict/.void/<id>.json`, that
stays; a router asks `void_reason` before it trusts a certificate. Light on purpose: no numbers, and
one look at the file system for each question. Invariants: the first reason stays
(test_void_keeps_the_first_reason); a note that cannot be read still voids, for a certificate that
might be void must not serve (test_void_reason_of_a_damaged_note_still_voids).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ownweights.core.artefact import write_atomic
from ownweights.core.errors import ArtefactMissing
from ownweights.core.project import Project
from ownweights.verdict.certificate import Subject, Verdict


@dataclass(frozen=True, slots=True)
class Voided:
    """Why and since when a certificate is void; `by` names what decided so, say an incident."""

    verdict_id: str
    reason: str
    by: str
    at: float

    def sentence(self) -> str:
        """What a reader of the certificate must know first."""
        return f"Void: this certificate no longer holds. {self.reason} (by {self.by})"


def void_certificate(
    project: Project, verdict_id: str, *, reason: str, by: str, at: float | None = None
) -> Voided:
    """Write down that a certificate is void; one that is void already keeps its first reason."""
    known = void_reason(project, verdict_id)
    if known is not None:
        return known
    voided = Voided(verdict_id, reason, by, time.time() if at is None else at)
    text = json.dumps(asdict(voided), ensure_ascii=True, indent=1) + "\n"
    write_atomic(_path(project, verdict_id), text.encode())
    return voided


def void_reason(project: Project, verdict_id: str) -> Voided | None:
    """Why a certificate is void; None while it holds."""
    path = _path(project, verdict_id)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return Voided(verdict_id, f"its note cannot be read: {error}", "unknown", 0.0)
    try:
        table = json.loads(text)
        return Voided(verdict_id, str(table["reason"]), str(table["by"]), float(table["at"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Voided(verdict_id, f"its note {path} cannot be understood", "unknown", 0.0)


def void_dir(project: Project) -> Path:
    """The folder of notes; its time changes with every certificate that becomes void."""
    return project.kind_dir("verdict") / ".void"


def void_certificates(
    project: Project,
    verdicts: Iterable[Verdict],
    is_void: Callable[[Subject], bool],
    *,
    reason: str,
    by: str,
) -> list[Voided]:
    """Void those certificates that `is_void` says are; refusals license nothing and stay."""
    return [
        void_certificate(project, verdict.id, reason=reason, by=by)
        for verdict in verdicts
        if verdict.issued and void_reason(project, verdict.id) is None and is_void(verdict.subject)
    ]


def _path(project: Project, verdict_id: str) -> Path:
    if not verdict_id.isalnum():
        raise ArtefactMissing(f"{verdict_id!r} is not the id of a verdict")
    return void_dir(project) / f"{verdict_id}.json"
