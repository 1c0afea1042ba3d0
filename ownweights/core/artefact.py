"""Immutable folders named by what is in them: datasets, students, bases, verdicts.

In: files written into a draft folder, and a card. Out: `<kind>/<id>/` with `card.json`, where id is
a short hash of every file's bytes and of the card's `identity`. Invariants: an artefact appears
whole or not at all (rename, test_artefact_crash_leaves_no_half); the same content gets the same id
(test_artefact_same_content_same_id); a changed byte is found
(test_open_artefact_finds_changed_byte).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownweights import __version__
from ownweights.core.errors import ArtefactError, ArtefactMissing

CARD_NAME = "card.json"
ID_CHARS = 12


@dataclass(frozen=True, slots=True)
class Artefact:
    """One immutable folder and its card."""

    kind: str
    id: str
    path: Path
    card: Mapping[str, Any]


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8", "surrogatepass")


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical spelling of a JSON value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader sees the old bytes or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def draft_folder(kind_dir: Path) -> Iterator[Path]:
    """A private folder to write an artefact's files in; gone afterwards unless sealed."""
    kind_dir.mkdir(parents=True, exist_ok=True)
    draft = kind_dir / f".draft-{os.getpid()}-{secrets.token_hex(4)}"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def seal(
    draft: Path,
    kind: str,
    *,
    identity: Mapping[str, Any],
    parents: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Artefact:
    """Turn a draft folder into the artefact `<kind>/<id>`; an existing one with that id is kept.

    `identity` (settings, seeds) and `parents` (role → artefact id) enter the id with the files;
    `facts` (timings, measurements) are kept on the card but do not name the artefact.
    """
    files = {
        path.relative_to(draft).as_posix(): hash_file(path)
        for path in sorted(draft.rglob("*"))
        if path.is_file()
    }
    named_by = {
        "kind": kind, "files": files, "identity": dict(identity), "parents": dict(parents or {})
    }  # fmt: skip
    artefact_id = hash_json(named_by)[:ID_CHARS]
    card = {
        "id": artefact_id,
        **named_by,
        "facts": dict(facts or {}),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": f"ownweights {__version__}",
    }
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(draft / CARD_NAME, text.encode("utf-8", "surrogatepass"))
    final = draft.parent / artefact_id
    if not final.exists():
        with contextlib.suppress(FileExistsError, OSError):
            os.rename(draft, final)
    return open_artefact(final.parent, artefact_id, kind)


def open_artefact(kind_dir: Path, artefact_id: str, kind: str, *, verify: bool = False) -> Artefact:
    """The artefact `artefact_id` (a unique prefix will do); `verify` re-hashes every file."""
    path = _find(kind_dir, artefact_id, kind)
    card = read_card(path)
    if card.get("kind") != kind:
        raise ArtefactError(f"{path} is a {card.get('kind')!r}, expected a {kind}")
    for name, digest in card["files"].items():
        if not (path / name).is_file():
            raise ArtefactError(f"{kind} {path.name} lacks its file {name!r}")
        if verify and hash_file(path / name) != digest:
            raise ArtefactError(
                f"{kind} {path.name}: file {name!r} is not what its card says",
                hint="the file was changed or damaged after it was made; make the artefact again",
            )
    return Artefact(kind, card["id"], path, card)


def list_artefacts(kind_dir: Path, kind: str) -> list[Artefact]:
    """All readable artefacts of a kind, oldest first."""
    if not kind_dir.is_dir():
        return []
    found = [
        open_artefact(kind_dir, path.name, kind)
        for path in kind_dir.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda artefact: (artefact.card["created_at"], artefact.id))


def read_card(path: Path) -> dict[str, Any]:
    """The card of the artefact in folder `path`."""
    try:
        card = json.loads((path / CARD_NAME).read_text("utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} has no {CARD_NAME}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path / CARD_NAME} is not readable JSON: {error}") from None
    if not isinstance(card, dict) or not {"id", "kind", "files"} <= card.keys():
        raise ArtefactError(f"{path / CARD_NAME} is not a card: it needs id, kind and files")
    return card


def _find(kind_dir: Path, artefact_id: str, kind: str) -> Path:
    if not artefact_id or "/" in artefact_id or artefact_id.startswith("."):
        raise ArtefactMissing(f"{artefact_id!r} is not an artefact id")
    if (kind_dir / artefact_id).is_dir():
        return kind_dir / artefact_id
    known = [p.name for p in kind_dir.iterdir()] if kind_dir.is_dir() else []
    found = [name for name in known if name.startswith(artefact_id)]
    if len(found) == 1:
        return kind_dir / found[0]
    listing = ", ".join(sorted(n for n in known if not n.startswith("."))[:8]) or "none"
    what = "is ambiguous" if found else "does not exist"
    raise ArtefactMissing(f"{kind} {artefact_id!r} {what}", hint=f"there are: {listing}")
