"""Immutable folders named by what is in them: datasets, students, bases, verdicts.

In: files written into a draft folder, and a card. Out: `<kind>/<id>/` with `card.json`, where id is
a short hash of every file's bytes and of the card's `identity`. Invariants: an artefact appears
whole or not at all (rename, test_artefact_crash_leaves_no_half); the same content gets the same id
(test_artefact_same_content_same_id); a changed byte is found
(test_open_artefact_finds_changed_byte), but for what an erasure took out (`tombstone`); making an
artefact again mends a damaged one (test_seal_mends_what_is_damaged).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ownweights import __version__
from ownweights.core.errors import ArtefactError, ArtefactMissing, ArtefactUnwritten, OwnError
from ownweights.core.tombstone import is_left_by_erasure

CARD_NAME = "card.json"
ID_CHARS = 12
T = TypeVar("T")
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_MAKE_AGAIN = "make the artefact again, which mends it, or delete its folder"
_TYPE_WORDS = {str: "text", dict: "an object"}
_CARD_TYPES = {
    "id": str, "kind": str, "files": dict, "identity": dict, "parents": dict, "facts": dict,
    "created_at": str,
}  # fmt: skip
_NAMED_BY = ("kind", "files", "identity", "parents")  # what the id is a hash of


@dataclass(frozen=True, slots=True)
class Artefact:
    """One immutable folder and its card."""

    kind: str
    id: str
    path: Path
    card: Mapping[str, Any]


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8."""
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")


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
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at `path` whole or not at all.

    What is no file, a device or a pipe, is written to as it is, and never put away for a file; a
    link stays one, to the new file.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path, *library_errors: type[Exception]) -> Iterator[None]:
    """What keeps `path` from being written, as ArtefactUnwritten.

    Raises: ArtefactUnwritten for an OSError and for what a library raises in its place
    """
    try:
        yield
    except OwnError:
        raise
    except (OSError, *library_errors) as error:
        where, reason = _why(error, path)
        raise ArtefactUnwritten(
            f"{where} could not be written: {reason}",
            hint="make room or mend the folder's rights, and give the same command again;"
            " what was there before is as it was",
        ) from error


def _why(error: BaseException, path: Path) -> tuple[Path | str, str]:
    """The file and the reason of the OSError that an error is, or arose from."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, OSError):
        first = first.__context__
    if first is None or not first.strerror:
        return path, str(error).split("\n", 1)[0]
    return first.filename2 or first.filename or path, first.strerror  # of a copy, where to


@contextlib.contextmanager
def draft_folder(kind_dir: Path) -> Iterator[Path]:
    """A private folder to write an artefact's files in; gone afterwards unless sealed.

    Raises: ArtefactUnwritten when the disk is full or may not be written
    """
    draft = kind_dir / f".draft-{os.getpid()}-{secrets.token_hex(4)}"
    with writing(kind_dir):
        draft.mkdir(parents=True)
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
    """Turn a draft folder into the artefact `<kind>/<id>`.

    A whole artefact with that id is kept as it is; a damaged one is mended file by file, so that a
    reader sees each file as it was or as it should be, whenever this stops.
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
    artefact_id = _id_of(named_by)
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
    try:
        os.rename(draft, final)
    except OSError:
        if not final.exists():
            raise
        _mend(draft, final, kind)
    return open_artefact(final.parent, artefact_id, kind)


def _mend(draft: Path, final: Path, kind: str) -> None:
    """Give `final` the files of `draft`, the card last, unless it has them."""
    with contextlib.suppress(ArtefactError):
        open_artefact(final.parent, final.name, kind, verify=True)
        return
    card = draft / CARD_NAME
    files = [path for path in draft.rglob("*") if path.is_file() and path != card]
    for path in (*files, card):
        target = final / path.relative_to(draft)
        _clear_way(target, final)
        os.replace(path, target)


def _clear_way(target: Path, final: Path) -> None:
    """Take away what stands where `target` or one of its folders belongs."""
    for parent in reversed(target.parents[: len(target.relative_to(final).parts)]):
        if not parent.is_dir():
            parent.unlink(missing_ok=True)
            parent.mkdir()
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)


def open_artefact(kind_dir: Path, artefact_id: str, kind: str, *, verify: bool = False) -> Artefact:
    """The artefact `artefact_id` (a unique prefix will do); `verify` re-hashes every file."""
    path = _find(kind_dir, artefact_id, kind)
    card = read_card(path)
    if card["kind"] != kind:
        raise ArtefactError(f"{path} is a {card['kind']!r}, expected a {kind}")
    if not path.name == card["id"] == _id_of(card):
        raise ArtefactError(
            f"{path / CARD_NAME} is not the card of {path.name}: it was changed, or is a copy",
            hint=_MAKE_AGAIN,
        )
    for name, digest in card["files"].items():
        if not (path / name).is_file():
            raise ArtefactError(f"{kind} {path.name} lacks its file {name!r}", hint=_MAKE_AGAIN)
        if verify and not _is_sound(path, name, digest):
            raise ArtefactError(
                f"{kind} {path.name}: file {name!r} is not what its card says",
                hint=f"the file was changed or damaged after it was made; {_MAKE_AGAIN}",
            )
    return Artefact(kind, card["id"], path, card)


def _is_sound(folder: Path, name: str, digest: str) -> bool:
    """Whether a file is what its card says, or what an erasure left of it."""
    found = hash_file(folder / name)
    return found == digest or is_left_by_erasure(folder, name, found)


def list_artefacts(
    kind_dir: Path, kind: str, on_broken: Callable[[str, str], None] | None = None
) -> list[Artefact]:
    """All readable artefacts of a kind, oldest first.

    `on_broken` is told name and fault of every other folder.
    """
    return read_artefacts(kind_dir, kind, lambda artefact: artefact, on_broken)


def read_artefacts(
    kind_dir: Path,
    kind: str,
    read: Callable[[Artefact], T],
    on_broken: Callable[[str, str], None] | None = None,
) -> list[T]:
    """What `read` makes of every artefact of a kind, oldest first; what it refuses is broken."""
    found: list[tuple[str, str, T]] = []
    paths = sorted(kind_dir.iterdir()) if kind_dir.is_dir() else ()
    for path in paths:
        if not path.is_dir() or path.name.startswith("."):
            continue
        try:
            artefact = open_artefact(kind_dir, path.name, kind)
            found.append((artefact.card["created_at"], artefact.id, read(artefact)))
        except ArtefactError as error:
            if on_broken is not None:
                on_broken(path.name, error.what)
    return [one for *_, one in sorted(found, key=lambda row: row[:2])]


def read_card(path: Path) -> dict[str, Any]:
    """The card of the artefact in folder `path`."""
    try:
        text = (path / CARD_NAME).read_text("utf-8")
        card = json.loads(text, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ArtefactError(f"{path} has no {CARD_NAME}", hint=_MAKE_AGAIN) from None
    except OSError as error:
        raise ArtefactError(f"{path / CARD_NAME} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path / CARD_NAME} is not readable JSON: {error}", hint=_MAKE_AGAIN
        ) from None
    for key, kind in _CARD_TYPES.items():
        if not isinstance(card, dict) or not isinstance(card.get(key), kind):
            raise ArtefactError(
                f"{path / CARD_NAME} is not a card: {key} must be {_TYPE_WORDS[kind]}",
                hint=_MAKE_AGAIN,
            )
    return card


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _id_of(card: Mapping[str, Any]) -> str:
    return hash_json({key: card[key] for key in _NAMED_BY})[:ID_CHARS]


def _find(kind_dir: Path, artefact_id: str, kind: str) -> Path:
    if not artefact_id or "/" in artefact_id or artefact_id.startswith("."):
        raise ArtefactMissing(f"{artefact_id!r} is not an artefact id")
    if (kind_dir / artefact_id).is_dir():
        return kind_dir / artefact_id
    known = [path.name for path in kind_dir.iterdir() if path.is_dir()] if kind_dir.is_dir() else []
    found = [name for name in known if name.startswith(artefact_id)]
    if len(found) == 1:
        return kind_dir / found[0]
    listing = ", ".join(sorted(n for n in known if not n.startswith("."))[:8]) or "none"
    what = "is ambiguous" if found else "does not exist"
    raise ArtefactMissing(f"{kind} {artefact_id!r} {what}", hint=f"there are: {listing}")
