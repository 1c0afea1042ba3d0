"""Who stands behind a verdict: an Ed25519 signature on its card, made with the project's own key.

In: a folder of a verdict's files. Out: a table with the public key, the hash of every file signed,
and the signature over those hashes; later, who signed, or what is wrong. It stands among the facts
of the card, so that the same verdict has the same id whoever signs it. The key lies in
`.own/signing_key.pem`, readable by its owner alone, and is made when it is first needed. A
signature says that the files are those that the holder of the key wrote; whose key it is, the
reader compares by its fingerprint.
Invariants: any byte changed in a signed file or in the signature is found
(test_signature_finds_any_change); two processes that need a first key get the same one
(test_first_key_is_made_once). Source: RFC 8032, through the cryptography package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownweights.core.artefact import canonical_json, hash_file
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.core.secret import write_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature"
KEY_NAME = "signing_key.pem"
_FIELDS = {"algorithm", "public_key", "files", "signature"}
_MESSAGE = b"ownweights verdict 1\n"  # so that a signature made for this is one for nothing else
FINGERPRINT_CHARS = 16


def sign_files(project: Project, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The signature of the files `names` of a verdict's folder, for its card."""
    key = _signing_key(project)
    files = {name: hash_file(folder / name) for name in names}
    return {
        "algorithm": "ed25519",
        "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        "files": files,
        "signature": base64.b64encode(key.sign(_message(files))).decode(),
    }


def signer(table: Any, folder: Path, names: Sequence[str]) -> str:
    """The fingerprint of the key that signed exactly the files `names` as they are now.

    `table` is what `sign_files` returned.

    Raises: ArtefactError when there is no signature, or it does not hold
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    _check_table(table, folder)
    try:
        public = base64.b64decode(table["public_key"], validate=True)
        signature = base64.b64decode(table["signature"], validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(table["files"]))
    except (InvalidSignature, binascii.Error, ValueError, TypeError):
        raise ArtefactError(f"{folder}: the signature does not hold") from None
    if set(table["files"]) != set(names):
        raise ArtefactError(
            f"{folder}: the signature is for {', '.join(sorted(table['files']))},"
            f" expected {', '.join(sorted(names))}"
        )
    for name, digest in table["files"].items():
        if hash_file(folder / name) != digest:
            raise ArtefactError(f"{folder / name} is not what was signed")
    return _fingerprint(public)


def own_fingerprint(project: Project) -> str | None:
    """The fingerprint of this project's key; None where it has signed nothing yet."""
    if not _key_path(project).exists():
        return None
    return _fingerprint(_signing_key(project).public_key().public_bytes_raw())


def _signing_key(project: Project) -> Ed25519PrivateKey:
    """The project's key, made where there is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    path = _key_path(project)
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_once(path, pem)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(
            f"{path} cannot be read as a signing key: {error}",
            hint="restore it, or move it away: a new key is made, under which old verdicts stay"
            " signed by the old one",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ArtefactError(f"{path} holds another kind of key, expected an Ed25519 private key")
    return key


def _key_path(project: Project) -> Path:
    return project.store_dir / KEY_NAME


def _check_table(table: Any, folder: Path) -> None:
    if table is None:
        raise ArtefactError(f"{folder} is not signed: its card holds no {SIGNATURE}")
    is_table = isinstance(table, Mapping) and set(table) == _FIELDS
    if not is_table or not isinstance(table["files"], Mapping) or table["algorithm"] != "ed25519":
        said = ", ".join(sorted(_FIELDS))
        raise ArtefactError(f"{folder}: its card holds no signature but something else: {said}")


def _message(files: Mapping[str, Any]) -> bytes:
    return _MESSAGE + canonical_json(dict(files))


def _fingerprint(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:FINGERPRINT_CHARS]
