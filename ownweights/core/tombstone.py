"""What was erased from an artefact that may never change: the one exception, and its record.

In: an artefact's folder and which lines of a file have to go. Out: the file without them, and
`tombstone.json` beside it: the hash of every line taken out and of every file that this left. The
artefact keeps its id, which names it as it was made; verification takes a file for sound when it is
what the card says or what an erasure left, and nothing else (test_open_artefact_knows_an_erasure).
What was learned from erased lines is marked, `<kind>/.erased/<id>.json`
(test_mark_adds_up_over_erasures).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TOMBSTONE = "tombstone.json"
_MARKS = ".erased"

Rewrite = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Erased:
    """How much was erased from an artefact, or from what it was made of, and when last."""

    num: int
    at: str
    dataset: str = ""

    @property
    def note(self) -> str:
        """The mark in words."""
        of = f" of dataset {self.dataset}" if self.dataset else ""
        return f"{self.num} examples{of} were erased by {self.at}"


def rewrite_lines(folder: Path, name: str, rewrite: Rewrite) -> int:
    """Write a file of an artefact anew, each line as `rewrite` gives it back, without those it
    gives None for; how many went. A crash leaves the file as it was or as it should be; two at once
    take turns (test_rewrite_lines_takes_turns)."""
    with _alone_in(folder):
        for left in folder.glob(f".{name}.*"):  # by one that was killed: it holds what may go now
            left.unlink(missing_ok=True)
        return _rewrite(folder, name, rewrite)


def _rewrite(folder: Path, name: str, rewrite: Rewrite) -> int:
    path = folder / name
    draft = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
    digest, taken, is_changed = hashlib.sha256(), [], False
    try:
        with path.open("rb") as old, draft.open("wb") as new:
            for line in old:
                kept = rewrite(line)
                is_changed |= kept != line
                if kept is None:
                    taken.append(hashlib.sha256(line).hexdigest())
                else:
                    digest.update(kept)
                    new.write(kept)
            new.flush()
            os.fsync(new.fileno())
        if is_changed:
            _note(folder, name, taken, digest.hexdigest())
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return len(taken)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process rewrites files of this folder."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def is_left_by_erasure(folder: Path, name: str, digest: str) -> bool:
    """Whether an erasure left a file of this hash."""
    entry = _read(folder / TOMBSTONE).get("files", {}).get(name, {})
    return digest in entry.get("left", ())


def erased_from(folder: Path) -> Erased | None:
    """What was erased from an artefact; None where nothing was."""
    table = _read(folder / TOMBSTONE)
    if not table:
        return None
    num = sum(len(entry.get("lines", ())) for entry in table.get("files", {}).values())
    return Erased(num, str(table.get("at", "")))


def erased_lines(folder: Path) -> dict[str, int]:
    """How many lines were erased from each file of an artefact."""
    files: Mapping[str, Any] = _read(folder / TOMBSTONE).get("files", {})
    return {name: len(entry.get("lines", ())) for name, entry in files.items()}


def mark_erased(
    kind_dir: Path, artefact_id: str, dataset: str, num: int, *, before: int | None = None
) -> Erased:
    """Mark an artefact as made from `num` examples of a dataset that are erased.

    `before` is how many had gone from the dataset before these: an erasure that was killed after
    its mark and is run again then counts none of them twice.
    """
    known, path = erased_mark(kind_dir, artefact_id), _mark_path(kind_dir, artefact_id)
    until = num if before is None else before + num
    if before is not None and known is not None and known.dataset == dataset:
        num = max(0, until - max(before, int(_read(path).get("until", 0))))
    found = Erased(num + (known.num if known else 0), _now(), dataset)
    table = {"num": found.num, "at": found.at, "dataset": found.dataset, "until": until}
    _write(path, table)
    return found


def erased_mark(kind_dir: Path, artefact_id: str) -> Erased | None:
    """The mark of an artefact made from what was erased; None where there is none."""
    path = _mark_path(kind_dir, artefact_id)
    if not path.exists():
        return None
    table = _read(path)
    num = table.get("num", 0)
    return Erased(num if isinstance(num, int) else 0, str(table.get("at", "")),
                  str(table.get("dataset", "")))  # fmt: skip


def _note(folder: Path, name: str, taken: list[str], left: str) -> None:
    table = _read(folder / TOMBSTONE)
    files = table.setdefault("files", {})
    entry = files.setdefault(name, {"lines": [], "left": []})
    entry["lines"] += [digest for digest in taken if digest not in entry["lines"]]
    entry["left"].append(left)
    table["at"] = _now()
    _write(folder / TOMBSTONE, table)


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _write(path: Path, table: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(table, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _mark_path(kind_dir: Path, artefact_id: str) -> Path:
    return kind_dir / _MARKS / f"{artefact_id}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
