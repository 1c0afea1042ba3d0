"""Certificates that no longer hold, as a router reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.core.errors import ArtefactMissing
from ownweights.core.project import Project
from ownweights.verdict import list_verdicts, run_verdict, verify_verdict
from ownweights.verdict.voiding import (
    Voided,
    void_certificate,
    void_certificates,
    void_reason,
)
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_void_reason_of_a_sound_certificate_is_none(project: Project) -> None:
    assert void_reason(project, "abc123") is None


def test_void_reason_is_what_was_written(project: Project) -> None:
    made = void_certificate(project, "abc123", reason="it drifted – far", by="main/7", at=5.0)
    assert made == Voided("abc123", "it drifted – far", "main/7", 5.0)
    assert void_reason(project, "abc123") == made
    assert void_reason(project, "abc12") is None


def test_void_keeps_the_first_reason(project: Project) -> None:
    first = void_certificate(project, "abc123", reason="first", by="a", at=1.0)
    assert void_certificate(project, "abc123", reason="second", by="b", at=2.0) == first
    assert void_reason(project, "abc123") == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"reason": "x"}', '{"reason":1,"by":2,"at":"x"}'])
def test_void_reason_of_a_damaged_note_still_voids(project: Project, text: str) -> None:
    void_certificate(project, "abc123", reason="x", by="y")
    (note,) = (project.kind_dir("verdict") / ".void").iterdir()
    note.write_text(text)
    found = void_reason(project, "abc123")
    assert found is not None
    assert "cannot be understood" in found.reason
    note.write_bytes(b"\xff")
    found = void_reason(project, "abc123")
    assert found is not None
    assert "cannot be read" in found.reason


@pytest.mark.parametrize("verdict_id", ["", "../up", "a/b", ".void"])
def test_void_refuses_what_is_no_id(project: Project, verdict_id: str) -> None:
    with pytest.raises(ArtefactMissing, match="is not the id of a verdict"):
        void_reason(project, verdict_id)


def test_void_certificates_voids_those_meant_and_no_refusal(project: Project) -> None:
    data = worlds.dataset(100, 400)
    good = run_verdict(data, worlds.student(data), project, "student1")
    bad = run_verdict(data, worlds.student(data, harm_frac=1.0), project, "student2")
    assert (good.issued, bad.issued) == (True, False)
    verdicts = list_verdicts(project)
    assert void_certificates(project, verdicts, lambda s: False, reason="r", by="b") == []
    voided = void_certificates(
        project, verdicts, lambda s: "rented-1" in s.teachers, reason="r", by="b"
    )
    assert [one.verdict_id for one in voided] == [good.id]
    again = void_certificates(project, verdicts, lambda s: True, reason="again", by="b")
    assert again == []
    # the verdict itself stays as it was found
    assert list_verdicts(project) == verdicts
    assert verify_verdict(project.kind_dir("verdict"), good.id).differences == ()


def test_voiding_loads_no_numbers() -> None:
    """A gateway asks for each certificate it trusts, and should not wait for scipy."""
    code = (
        "import sys; import ownweights.verdict.voiding;"
        "print([name for name in ('scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
