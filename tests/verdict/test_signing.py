"""Signatures of verdicts: they hold for what was signed and for nothing else."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
from collections.abc import Callable
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
from ownweights.verdict.signing import KEY_NAME, SIGNATURE, own_fingerprint, sign_folder, signer

NAMES = ["certificate.json", "judged.jsonl"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def folder(project: Project, tmp_path: Path) -> Path:
    made = tmp_path / "verdict"
    made.mkdir()
    for name in NAMES:
        (made / name).write_text(f"what {name} says\n")
    sign_folder(project, made, NAMES)
    return made


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads((folder / SIGNATURE).read_text())
    edit(table)
    (folder / SIGNATURE).write_text(json.dumps(table))


def test_signer_is_the_projects_own_key(project: Project, folder: Path) -> None:
    assert signer(folder, NAMES) == own_fingerprint(project)


def test_signature_holds_by_the_standard(project: Project, folder: Path) -> None:
    """The key's own verification, from the PEM file and the signed bytes alone."""
    table = json.loads((folder / SIGNATURE).read_text())
    key = load_pem_private_key((project.store_dir / KEY_NAME).read_bytes(), password=None)
    message = b"ownweights verdict 1\n" + canonical_json(table["files"])
    key.public_key().verify(base64.b64decode(table["signature"]), message)


@pytest.mark.parametrize("name", NAMES)
def test_signature_finds_any_change(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(ArtefactError, match=f"{name} is not what was signed"):
            signer(folder, NAMES)


def test_signature_finds_any_change_of_itself(folder: Path) -> None:
    for field in ("public_key", "signature"):
        whole = (folder / SIGNATURE).read_bytes()
        raw = bytearray(base64.b64decode(json.loads(whole)[field]))
        for index in range(len(raw)):
            bent = raw.copy()
            bent[index] ^= 1
            change(folder, lambda t, f=field, b=bent: t.update({f: base64.b64encode(b).decode()}))
            with pytest.raises(ArtefactError, match="signature does not hold"):
                signer(folder, NAMES)
        (folder / SIGNATURE).write_bytes(whole)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t["files"].update({"judged.jsonl": "0" * 64}), "does not hold"),
        (lambda t: t.update({"algorithm": "none"}), "is not a signature"),
        (lambda t: t.update({"files": []}), "is not a signature"),
        (lambda t: t.update({"more": 1}), "is not a signature"),
        (lambda t: t.pop("signature"), "is not a signature"),
        (lambda t: t.update({"signature": 7}), "does not hold"),
        (lambda t: t.update({"signature": "no base64"}), "does not hold"),
        (lambda t: t.update({"public_key": ""}), "does not hold"),
    ],
)
def test_signature_that_was_edited_is_refused(folder: Path, edit: Any, words: str) -> None:
    change(folder, edit)
    with pytest.raises(ArtefactError, match=words):
        signer(folder, NAMES)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\udcff"])
def test_signature_that_is_no_table_is_refused(folder: Path, text: str) -> None:
    (folder / SIGNATURE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtefactError, match=SIGNATURE):
        signer(folder, NAMES)


def test_signature_must_be_there_and_be_for_every_file(folder: Path) -> None:
    with pytest.raises(ArtefactError, match=r"signs certificate\.json, judged\.jsonl, expected"):
        signer(folder, [*NAMES, "answers.jsonl"])
    (folder / SIGNATURE).unlink()
    with pytest.raises(ArtefactError, match="is not signed"):
        signer(folder, NAMES)


def test_key_is_for_its_owner_alone(project: Project, folder: Path) -> None:
    assert stat.S_IMODE((project.store_dir / KEY_NAME).stat().st_mode) == 0o600
    assert b"PRIVATE" not in (folder / SIGNATURE).read_bytes()


def test_key_that_is_none_is_refused(project: Project, folder: Path) -> None:
    path = project.store_dir / KEY_NAME
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data, words in ((b"no key", "cannot be read"), (pem, "another kind of key")):
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match=words):
            sign_folder(project, folder, NAMES)


def test_project_without_a_key_has_no_fingerprint(project: Project) -> None:
    assert own_fingerprint(project) is None


def _sign(root: Path, folder: Path) -> str:
    sign_folder(Project(root), folder, NAMES)
    return signer(folder, NAMES)


def test_first_key_is_made_once(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for made in folders:
        made.mkdir()
        for name in NAMES:
            (made / name).write_text(name)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(_sign, [(tmp_path / "project", made) for made in folders])
    assert len(set(found)) == 1
