"""Verdicts on disk: read back, listed, recomputed, and found out when changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.artefact import draft_folder, read_card, seal
from ownweights.core.errors import ArtefactError, ArtefactMissing
from ownweights.core.project import Project
from ownweights.verdict import (
    Verdict,
    list_verdicts,
    load_verdict,
    run_verdict,
    verify_verdict,
)
from ownweights.verdict.signing import own_fingerprint
from ownweights.verdict.store import check_signed, load_rows, stored_verdict
from tests.verdict import worlds


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def made(project: Project, *, harm_frac: float = 0.2, student: str = "student1") -> Verdict:
    data = worlds.dataset(100, 400)
    return run_verdict(data, worlds.student(data, harm_frac=harm_frac), project, student)


def forge(project: Project, found: Verdict, change: Callable[[dict[str, Any]], None]) -> str:
    """The id of a certificate changed by hand and sealed again: only recomputing can tell."""
    folder = project.kind_dir("verdict") / found.id
    card = read_card(folder)
    with draft_folder(folder.parent) as draft:
        for name in card["files"]:
            shutil.copyfile(folder / name, draft / name)
        path = draft / ("certificate.json" if found.issued else "refusal.json")
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        sealed = seal(draft, "verdict", identity=card["identity"], parents=card["parents"],
                      facts=card["facts"])  # fmt: skip
    return sealed.id


@pytest.mark.parametrize("harm_frac", [0.2, 1.0], ids=["certificate", "refusal"])
def test_verify_recomputes_the_verdict(project: Project, harm_frac: float) -> None:
    found = made(project, harm_frac=harm_frac)
    assert found.issued is (harm_frac < 1)
    checked = verify_verdict(project.kind_dir("verdict"), found.id)
    assert (checked.is_sound, checked.signed_by) == (True, own_fingerprint(project))


FORGED_COUNT = {
    "coverage_high": 1.0, "coverage_low": 0.9, "harms": 0.0, "losses": 0, "n": 600, "n_served": 600,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", -50.0),
        ("coverage_frac", 0.99),
        ("harms", 0.0),
        ("p_all", 1e-9),
        ("n", 4000),
        ("delta_spent", 0.05),
        ("assumptions", []),
        ("by_request", FORGED_COUNT),
    ],
)
def test_verify_finds_changed_number(project: Project, field: str, value: Any) -> None:
    found = made(project)
    forged = forge(project, found, lambda data: data.update({field: value}))
    wrong = verify_verdict(project.kind_dir("verdict"), forged).differences
    assert any(line.startswith(f"{field}: the file says {value!r}") for line in wrong) or (
        field == "delta_spent" and wrong  # a budget too large shows in what it licenses
    )


def test_verify_finds_a_refusal_turned_into_a_certificate(project: Project) -> None:
    found = made(project, harm_frac=1.0)
    forged = forge(project, found, lambda data: data.update({"issued": True, "threshold": -9.0}))
    wrong = verify_verdict(project.kind_dir("verdict"), forged).differences
    assert "issued: the file says True, its judged requests give False" in wrong


def test_verify_finds_changed_rows(project: Project) -> None:
    found = made(project)
    path = project.kind_dir("verdict") / found.id / "judged.jsonl"
    path.write_text(path.read_text().replace('"harm": 1.0', '"harm": 0.0'))
    with pytest.raises(ArtefactError, match=r"'judged\.jsonl' is not what its card says"):
        verify_verdict(project.kind_dir("verdict"), found.id)


def test_load_verdict_by_prefix(project: Project) -> None:
    found = made(project)
    assert load_verdict(project, found.id[:6]) == found


def test_load_verdict_refuses_the_unknown(project: Project) -> None:
    with pytest.raises(ArtefactMissing, match="verdict 'nope' does not exist"):
        load_verdict(project, "nope")
    assert stored_verdict(project, "nope") is None


@pytest.mark.parametrize("name", ["certificate.json", "judged.jsonl"])
def test_load_verdict_refuses_a_changed_file(project: Project, name: str) -> None:
    """As well formed as before, but for one number: nobody may read it as what was certified."""
    found = made(project)
    path = project.kind_dir("verdict") / found.id / name
    path.write_text(path.read_text().replace("0.", "1.", 1))
    for read in (load_verdict, load_rows):
        with pytest.raises(ArtefactError, match=f"{name}' is not what its card says"):
            read(project, found.id)
    assert stored_verdict(project, found.id) is None


@pytest.mark.parametrize("text", ["{", "[" * 100_000], ids=["cut off", "too deep"])
def test_load_verdict_refuses_what_is_no_json(project: Project, text: str) -> None:
    with draft_folder(project.kind_dir("verdict")) as draft:
        (draft / "certificate.json").write_text(text)
        found = seal(draft, "verdict", identity={})
    with pytest.raises(ArtefactError, match=r"certificate\.json is not JSON"):
        load_verdict(project, found.id)


def test_load_verdict_refuses_an_artefact_without_either_file(project: Project) -> None:
    with draft_folder(project.kind_dir("verdict")) as draft:
        found = seal(draft, "verdict", identity={})
    with pytest.raises(ArtefactError, match=r"neither certificate\.json nor refusal\.json"):
        load_verdict(project, found.id)


@pytest.mark.parametrize("text", ["[]", "{}", "7", "{", '{"issued": 1, "subject": []}'])
def test_list_verdicts_names_what_is_broken(project: Project, text: str) -> None:
    good = made(project)
    with draft_folder(project.kind_dir("verdict")) as draft:
        (draft / "certificate.json").write_text(text)
        broken = seal(draft, "verdict", identity={})
    told: dict[str, str] = {}
    assert [one.id for one in list_verdicts(project, on_broken=told.__setitem__)] == [good.id]
    assert told.keys() == {broken.id} and "certificate" in told[broken.id]


def test_list_verdicts_oldest_first_and_by_workload(project: Project) -> None:
    assert list_verdicts(project) == []
    first = made(project, harm_frac=1.0)
    second = made(project, student="student2")  # refused: the units are used
    assert {one.id for one in list_verdicts(project)} == {first.id, second.id}
    assert list_verdicts(project, "tickets") == list_verdicts(project)
    assert list_verdicts(project, "letters") == []


def test_verify_finds_a_certificate_changed_with_its_card(project: Project) -> None:
    """What recomputing cannot tell, the signature does."""
    found = made(project)
    forged = forge(project, found, lambda data: data["subject"].update({"student": "another"}))
    (wrong,) = verify_verdict(project.kind_dir("verdict"), forged).differences
    assert wrong.endswith("certificate.json is not what was signed")
    check_signed(project, found.id)
    with pytest.raises(ArtefactError, match="is not what was signed"):
        check_signed(project, forged)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempt", -1), ("attempt", 1e308), ("delta_spent", None), ("coverage_frac", "x"),
        ("subject.period", [1e308, 2.0]), ("subject.judge", True),
    ],
)  # fmt: skip
def test_verify_says_what_is_wrong_with_anything(project: Project, field: str, value: Any) -> None:
    """A folder that a stranger sent, its card fitting its files."""
    table, _, key = field.rpartition(".")

    def change(data: dict[str, Any]) -> None:
        (data[table] if table else data)[key] = value

    told: list[str] = []
    for harm_frac, student in ((0.2, "student1"), (1.0, "student2")):  # a certificate, a refusal
        known = made(project, harm_frac=harm_frac, student=student)
        found = verify_verdict(project.kind_dir("verdict"), forge(project, known, change))
        assert not found.is_sound
        told += found.differences
    assert any("no verdict can be decided again" in line for line in told)


def test_verify_reads_a_verdict_that_was_copied_elsewhere(project: Project, tmp_path: Path) -> None:
    found = made(project)
    shutil.copytree(project.kind_dir("verdict") / found.id, tmp_path / "sent" / found.id)
    shutil.rmtree(project.store_dir)
    checked = verify_verdict(tmp_path / "sent", found.id)
    assert checked.is_sound
    assert len(checked.signed_by) == 16
