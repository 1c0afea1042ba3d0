"""Verdicts on disk: `.own/verdict/<id>/` with certificate.json or refusal.json, and judged.jsonl.

In: a verdict and the rows it was decided from. Out: the artefact, and from the artefact the verdict
again, or what is wrong with it. Invariants: a verdict can be recomputed from its own files
(test_verify_recomputes_the_verdict); a changed number is found (test_verify_finds_changed_number);
one whose files were changed is not read (test_load_verdict_refuses_a_changed_file).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import (
    Artefact,
    canonical_json,
    draft_folder,
    hash_json,
    open_artefact,
    read_artefacts,
    seal,
)
from ownweights.core.errors import ArtefactError, InvalidJudge
from ownweights.core.project import Project
from ownweights.verdict.certificate import Verdict
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.judged import Judged, read_judged, write_judged
from ownweights.verdict.signing import SIGNATURE, sign_files, signer

FILES = {True: "certificate.json", False: "refusal.json"}
JUDGED = "judged.jsonl"
ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Verified:
    """What checking a verdict found: whose key signed it, and what is wrong with it."""

    id: str
    signed_by: str  # fingerprint of the key; empty where the signature does not hold
    differences: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        return not self.differences


def write_verdict(
    project: Project,
    verdict: Verdict,
    rows: Sequence[Judged],
    *,
    answers: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> Verdict:
    """Keep a verdict; the same verdict with its artefact's id."""
    with draft_folder(project.kind_dir("verdict")) as draft:
        text = json.dumps(verdict.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        (draft / FILES[verdict.issued]).write_text(text + "\n", "utf-8")
        write_judged(draft / JUDGED, rows)
        if answers:
            lines = [canonical_json(answer) + b"\n" for answer in answers]
            (draft / ANSWERS).write_bytes(b"".join(lines))
        signature = sign_files(project, draft, _signed_names(draft))
        subject = verdict.subject
        artefact = seal(
            draft,
            "verdict",
            identity={"subject": hash_json(dataclasses.asdict(subject))},
            parents={"student": subject.student, "dataset": subject.dataset},
            facts={**(facts or {}), SIGNATURE: signature},
        )
    return dataclasses.replace(verdict, id=artefact.id)


def list_verdicts(
    project: Project,
    workload: str | None = None,
    on_broken: Callable[[str, str], None] | None = None,
) -> list[Verdict]:
    """All readable verdicts, oldest first, or those of one workload.

    `on_broken` is told of the others.
    """
    found = read_artefacts(project.kind_dir("verdict"), "verdict", _read, on_broken)
    return [one for one in found if workload is None or one.subject.workload == workload]


def load_verdict(project: Project, verdict_id: str) -> Verdict:
    """The verdict `verdict_id` (a unique prefix will do), if its files are as they were written.

    Raises: ArtefactError for a verdict that is gone, damaged or changed
    """
    return _read(open_artefact(project.kind_dir("verdict"), verdict_id, "verdict", verify=True))


def check_signed(project: Project, verdict_id: str) -> None:
    """Raises: ArtefactError unless a signature holds for the verdict's files."""
    _signer(open_artefact(project.kind_dir("verdict"), verdict_id, "verdict"))


def load_rows(project: Project, verdict_id: str) -> tuple[list[Judged], list[dict[str, Any]]]:
    """The judged requests of a verdict, and the answers where they were kept."""
    artefact = open_artefact(project.kind_dir("verdict"), verdict_id, "verdict", verify=True)
    path = artefact.path / ANSWERS
    answers = (
        [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
    )
    return read_judged(artefact.path / JUDGED), answers


def verify_verdict(kind_dir: Path, verdict_id: str) -> Verified:
    """Check a verdict's files against its card and its signature, its numbers against its rows.

    `kind_dir` is the folder that holds it: a project's, or wherever it was sent to.
    """
    artefact = open_artefact(kind_dir, verdict_id, "verdict", verify=True)
    signed_by, wrong = "", _differences_of_anything(artefact)
    try:
        signed_by = _signer(artefact)
    except ArtefactError as error:
        wrong = [str(error), *wrong]
    return Verified(artefact.id, signed_by, tuple(wrong))


def _signer(artefact: Artefact) -> str:
    signature = artefact.card["facts"].get(SIGNATURE)
    return signer(signature, artefact.path, _signed_names(artefact.path))


def _signed_names(folder: Path) -> list[str]:
    """The files of a verdict that its signature is for: all but the card."""
    names = (*FILES.values(), JUDGED, ANSWERS)
    return [name for name in names if (folder / name).is_file()]


def _differences_of_anything(artefact: Artefact) -> list[str]:
    """The differences, where the certificate's numbers and texts may be whatever a stranger wrote.

    Raises: ArtefactError for a file that is no certificate, refusal or judged request at all
    """
    try:
        return _differences(artefact)
    except ArtefactError:
        raise
    except (
        TypeError, ValueError, ArithmeticError, LookupError, AttributeError, AssertionError,
        RecursionError,
    ) as error:  # fmt: skip
        return [f"no verdict can be decided again from what its files say: {error!r}"]


def _differences(artefact: Artefact) -> list[str]:
    said = _read(artefact)
    rows = read_judged(artefact.path / JUDGED)
    spend = Spend(said.attempt, said.delta_spent, said.num_used)
    try:
        found = certify(said.claim, said.subject, rows, spend)
    except InvalidJudge as error:
        return [error.what]
    found = dataclasses.replace(found, risks=said.risks)  # of answers, which the rows do not hold
    told, recomputed = said.to_dict(), json.loads(canonical_json(found.to_dict()))
    told = json.loads(canonical_json(told))
    return [
        f"{key}: the file says {told[key]!r}, its judged requests give {recomputed[key]!r}"
        for key in told
        if not _is_same(told[key], recomputed[key])
    ]


def _is_same(left: Any, right: Any) -> bool:
    """Equal, up to the last digits of a number: another machine may round otherwise."""
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_is_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_is_same, left, right))
    return left == right


def stored_verdict(project: Project, verdict_id: str) -> Verdict | None:
    """The verdict, or None where its folder is gone or damaged: judging again mends it."""
    try:
        return load_verdict(project, verdict_id)
    except ArtefactError:
        return None


def _read(artefact: Artefact) -> Verdict:
    for name in FILES.values():
        if (artefact.path / name).is_file():
            try:
                data = json.loads((artefact.path / name).read_text("utf-8"))
            except (ValueError, RecursionError) as error:
                raise ArtefactError(f"{artefact.path / name} is not JSON: {error}") from None
            return Verdict.from_dict(data, verdict_id=artefact.id)
    raise ArtefactError(f"verdict {artefact.id} has neither {' nor '.join(FILES.values())}")
