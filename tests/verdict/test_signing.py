"""Signatures of verdicts: they hold for what was signed and for nothing else."""

from __future__ import annotations

import base64
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ownweights.core.artefact import canonical_json
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.verdict.signing import KEY_NAME, own_fingerprint, sign_files, signer

NAMES = ["certificate.json", "judged.jsonl"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "verdict"
    made.mkdir()
    for name in NAMES:
        (made / name).write_text(f"what {name} says\n")
    return made


@pytest.fixture
def table(project: Project, folder: Path) -> dict[str, Any]:
    return sign_files(project, folder, NAMES)


def test_signer_is_the_projects_own_key(project: Project, folder: Path, table) -> None:
    assert signer(table, folder, NAMES) == own_fingerprint(project)


def test_signature_holds_by_the_standard(project: Project, table) -> None:
    """The key's own verification, from the PEM file and the signed bytes alone."""
    key = load_pem_private_key((project.store_dir / KEY_NAME).read_bytes(), password=None)
    message = b"ownweights verdict 1\n" + canonical_json(table["files"])
    key.public_key().verify(base64.b64decode(table["signature"]), message)


@pytest.mark.parametrize("name", NAMES)
def test_signature_finds_any_change(folder: Path, name: str, table) -> None:
    path = folder / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(ArtefactError, match=f"{name} is not what was signed"):
            signer(table, folder, NAMES)


@pytest.mark.parametrize("field", ["public_key", "signature"])
def test_signature_finds_any_change_of_itself(folder: Path, field: str, table) -> None:
    raw = base64.b64decode(table[field])
    for index in range(len(raw)):
        bent = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(ArtefactError, match="signature does not hold"):
            signer({**table, field: base64.b64encode(bent).decode()}, folder, NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"judged.jsonl": "0" * 64}}, "does not hold"),
        ({"signature": 7}, "does not hold"),
        ({"signature": "no base64"}, "does not hold"),
        ({"public_key": ""}, "does not hold"),
        ({"algorithm": "none"}, "holds no signature but"),
        ({"files": []}, "holds no signature but"),
        ({"more": 1}, "holds no signature but"),
    ],
)
def test_signature_that_was_edited_is_refused(folder: Path, change, words: str, table) -> None:
    with pytest.raises(ArtefactError, match=words):
        signer({**table, **change}, folder, NAMES)


@pytest.mark.parametrize("given", ["", 7, [], {}, {"signature": "x"}])
def test_signature_that_is_no_table_is_refused(folder: Path, given: Any) -> None:
    with pytest.raises(ArtefactError, match="holds no signature but"):
        signer(given, folder, NAMES)


def test_signature_must_be_there_and_be_for_every_file(folder: Path, table) -> None:
    with pytest.raises(ArtefactError, match=r"is for certificate\.json, judged\.jsonl, expected"):
        signer(table, folder, [*NAMES, "answers.jsonl"])
    with pytest.raises(ArtefactError, match="is not signed"):
        signer(None, folder, NAMES)


def test_key_is_for_its_owner_alone(project: Project, table) -> None:
    assert stat.S_IMODE((project.store_dir / KEY_NAME).stat().st_mode) == 0o600
    assert "PRIVATE" not in str(table)


def test_key_that_is_none_is_refused(project: Project, folder: Path, table) -> None:
    path = project.store_dir / KEY_NAME
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data, words in ((b"no key", "cannot be read"), (pem, "another kind of key")):
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match=words):
            sign_files(project, folder, NAMES)


def test_project_without_a_key_has_no_fingerprint(project: Project) -> None:
    assert own_fingerprint(project) is None


def _sign(root: Path, folder: Path) -> str:
    return signer(sign_files(Project(root), folder, NAMES), folder, NAMES)


def test_first_key_is_made_once(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for made in folders:
        made.mkdir()
        for name in NAMES:
            (made / name).write_text(name)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(_sign, [(tmp_path / "project", made) for made in folders])
    assert len(set(found)) == 1
