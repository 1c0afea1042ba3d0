"""The queue of pairs that people decide: a file of JSON lines, written for them and read back.

In: pairs. Out: for each a line with the request, two answers that do not say whose they are, and an
empty label to fill in: "1", "2", "tie" or "cannot say". Read back, the labels are outcomes for the
student. Which answer stands first is drawn by a hash of the pair, so that nobody who labels can
know; a line whose pair is no longer the one that was written is refused by its key. A line may be
copied, with another `by`, for a second person's label.
Invariants: labels survive the queue in either order (test_labels_survive_the_queue); lines already
in the file stay as they are (test_queue_keeps_labels_already_there).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ownweights.core.artefact import hash_json, write_atomic
from ownweights.core.errors import InputError
from ownweights.core.jsonl import encode_json, read_jsonl
from ownweights.verdict.judge.judge import LOSS, TIE_OUTCOME, WIN, Pair
from ownweights.verdict.judge.prompt import request_text

CANNOT_SAY = "cannot say"
LABELS = ("1", "2", "tie", CANNOT_SAY, "")  # the last: not labelled yet
SALT = "ownweights-queue-1"


def pair_key(pair: Pair) -> str:
    """The name of a pair's content, under which labels are kept."""
    return hash_json([request_text(pair.messages), pair.answer, pair.reference])[:24]


def write_queue(path: Path, pairs: Iterable[Pair], *, why: str) -> int:
    """Add the pairs that the file does not hold yet; how many they were. `why` is for the reader.

    Raises: InputError when the file holds lines that are not a queue's
    """
    known = {line["pair"] for _, line in _lines(path)} if path.exists() else set[str]()
    added = {key: pair for pair in pairs if (key := pair_key(pair)) not in known}
    if added:
        kept = path.read_bytes() if path.exists() else b""
        lines = [encode_json(_line(key, pair, why)) for key, pair in added.items()]
        write_atomic(path, b"\n".join(([kept.rstrip(b"\n")] if kept else []) + lines) + b"\n")
    return len(added)


def read_labels(path: Path, pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """What people said of these pairs, by pair id: an outcome for each who could say.

    Raises: InputError for a label that is none, or two labels of one person for a pair
    """
    said: dict[str, dict[str, str]] = {}
    for where, line in _lines(path):
        if not line["label"]:
            continue
        of_pair, by = said.setdefault(line["pair"], {}), str(line.get("by", ""))
        if of_pair.setdefault(by, line["label"]) != line["label"]:
            raise InputError(
                f"{by or 'somebody'!r} labels the pair {line['pair']} in two ways", where=where,
                hint="give each person's line another `by`",
            )  # fmt: skip
    keys = {pair.id: pair_key(pair) for pair in pairs}
    return {
        name: [_outcome(key, label) for label in said[key].values() if label != CANNOT_SAY]
        for name, key in keys.items()
        if key in said
    }


def hash_labels(path: Path) -> str:
    """The name of all labels in a file, for a plan and a certificate; empty where there are none.

    Lines without a label do not count: a queue may grow without changing what is known.
    """
    lines = _lines(path) if path.exists() else []
    said = sorted((line["pair"], str(line.get("by", "")), line["label"]) for _, line in lines)
    labels = [one for one in said if one[2]]
    return hash_json(labels)[:16] if labels else ""


def _line(key: str, pair: Pair, why: str) -> dict[str, Any]:
    answers = (pair.answer, pair.reference)
    first, second = answers if _is_student_first(key) else answers[::-1]
    texts = {"request": request_text(pair.messages) or "", "answer_1": first, "answer_2": second}
    # a lone surrogate is no text that a file could hold
    plain = {k: v.encode("utf-8", "backslashreplace").decode() for k, v in texts.items()}
    return {"pair": key, "why": why, "by": "", "label": "", **plain}


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for line in read_jsonl(path):
        where = f"{path}:{line.number}"
        value = line.value
        if value is None:
            raise InputError(line.what, where=where)
        if not isinstance(value.get("pair"), str) or value.get("label") not in LABELS:
            raise InputError(
                f"the label {value.get('label')!r} of pair {value.get('pair')!r} is none",
                where=where, hint='a label is "1", "2", "tie" or "cannot say", or still empty',
            )  # fmt: skip
        found.append((where, value))
    return found


def _outcome(key: str, label: str) -> str:
    if label == "tie":
        return TIE_OUTCOME
    return WIN if (label == "1") == _is_student_first(key) else LOSS


def _is_student_first(key: str) -> bool:
    return hashlib.sha256(f"{SALT}\x1f{key}".encode()).digest()[0] % 2 == 0
