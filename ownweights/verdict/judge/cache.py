"""What judges have said so far, in a file, so that a run that was cut off pays for nothing twice.

In: a key for each question put to a judge (a hash of judge and prompt, the pair within it). Out:
the reply: what was said, by which model, at how many tokens; no bodies. One JSON line a reply,
appended and flushed when it comes. A line that a crash cut in half is skipped and asked again
(test_cache_survives_a_half_last_line); a file that holds anything else is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.errors import InputError
from ownweights.core.jsonl import encode_json, read_jsonl
from ownweights.verdict.judge.prompt import FIRST, SECOND, TIE

SAID = (FIRST, SECOND, TIE, None)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of a judge: `said` is None where no verdict could be read in it."""

    said: str | None
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ReplyCache:
    """Replies by key, kept in a file where a path is given; for one process at a time."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.num_broken = 0
        self._replies: dict[str, Reply] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Reply | None:
        """The reply to a question that was put before."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        self._replies[key] = reply
        if self.path is not None:
            line = encode_json({"key": key, **dataclasses.asdict(reply)}) + b"\n"
            with self.path.open("ab") as file:
                file.write(line)

    def _read(self, path: Path) -> None:
        for line in read_jsonl(path):
            if line.value is None:
                self.num_broken += 1
                continue
            try:
                key, reply = _parse(line.value)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"not a judge's reply: {error}", where=f"{path}:{line.number}",
                    hint="is this another file? Replies are kept one JSON object a line",
                ) from None  # fmt: skip
            self._replies[key] = reply
        _end_last_line(path)


def _parse(value: dict[str, Any]) -> tuple[str, Reply]:
    key, said = value.pop("key"), value["said"]
    if said not in SAID or not isinstance(key, str):
        raise ValueError(f"{said!r} is no verdict")
    return key, Reply(**value)


def _end_last_line(path: Path) -> None:
    """Begin the next reply on a line of its own."""
    with path.open("rb+") as file:
        if size := file.seek(0, 2):
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
