"""What stands in the place of what was found: `<EMAIL_k3f9q2m7xa>`.

The name is a keyed hash of the value, so that within a project the same value has the same
placeholder in every record, however it is written (spaces in a number, capitals in an address).
The key lies in `.own/redaction.key`, readable by its owner alone, and is made when it is first
needed. Without it nobody can try values until one fits; with it anybody can, so it is as secret as
the traffic. A placeholder has 50 bits: that two of a million values share one is a chance of 1 in
2,000.
Invariants: test_placeholder_is_the_same_for_one_value, test_placeholder_needs_the_key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.core.secret import write_once
from ownweights.traffic.redact.plain import as_read

KEY_NAME = "redaction.key"
KEY_BYTES = 32
HASH_CHARS = 10
PLACEHOLDER = re.compile(r"<[A-Z]{2,9}_[a-z2-7]{10}>")
_WRITTEN_ALIKE = re.compile(r"[^0-9A-Za-z]+")
_SPACES = re.compile(r"\s+")


class Placeholders:
    """Gives each value its placeholder, with the project's own key."""

    def __init__(self, project: Project) -> None:
        self._path = project.store_dir / KEY_NAME
        self._key: bytes | None = None

    def of(self, kind: str, value: str) -> str:
        """The placeholder of a value.

        Raises: StoreError when the key cannot be read or made
        """
        if self._key is None:
            self._key = read_key(self._path)
        told = f"{kind}\0{written_alike(kind, value)}".encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, told, hashlib.sha256)
        return f"<{kind.upper()}_{base64.b32encode(digest)[:HASH_CHARS].decode().lower()}>"


def written_alike(kind: str, value: str) -> str:
    """A value in the one form in which it is compared."""
    if kind in ("key", "data"):
        return value
    value = as_read(value)
    if kind == "email":
        return value.replace("%40", "@").lower()
    if kind in ("iban", "card", "ssn", "phone"):
        return _WRITTEN_ALIKE.sub("", value).upper()
    return _SPACES.sub(" ", value).casefold()


def read_key(path: Path) -> bytes:
    """The key in a file, made where there is none.

    Raises: StoreError when it cannot be read, made, or is no key
    """
    try:
        if not path.exists():
            write_once(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        key = bytes.fromhex(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, type(error).__name__) from None
    if len(key) != KEY_BYTES:
        raise _unreadable(path, f"{len(key)} bytes")
    return key


def _unreadable(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} holds no key for redaction ({what}), expected {2 * KEY_BYTES} hexadecimal digits",
        hint="restore it, or move it away: a new one is made, under which the same values get"
        " other placeholders than before",
    )
