"""How a check is written down: a word and its options as one text, read strictly and back again.

    json tolerance=0.01 unordered=items,tags
    regex pattern="(\\\\d+) of (\\\\d+)"        a value in double quotes is a JSON string

In: the text of own.toml, a flag, a plan or a certificate. Out: the frozen dataclass of the check,
whose fields are its options; and from it the canonical text: options in the order of the class,
those at their default left out, lists sorted. Whatever is unknown or of the wrong kind is refused.
Invariants: the canonical text reads back as the same check (test_check_names_always_read_back).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from ownweights.core.errors import ArtefactError, SettingsError, nearest
from ownweights.core.strict import check_value, parse_text

_WORD = re.compile(r"\s*([a-z_]+)(?:\s+|$)")
_OPTION = re.compile(r'([a-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^\s"]\S*|)(?:\s+|$)')
_EXAMPLE = "json tolerance=0.01 unordered=items"


class Check(Protocol):
    """Compares an answer with the references; `name` is what settings and certificates say.

    One that `is_graded` may answer anything from 0 to 1, and is certified with a wider bound.
    """

    @property
    def name(self) -> str: ...
    @property
    def is_graded(self) -> bool: ...

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        """0 no harm, 1 harm, None could not judge."""
        ...


class NamedCheck(ABC):
    """A check whose options are the fields of a frozen dataclass, made with core's `setting`."""

    __slots__ = ()
    word: ClassVar[str]

    @property
    def name(self) -> str:
        """The canonical text."""
        said = [f"{key}={_spell(value)}" for key, value in self._differing()]
        return " ".join([self.word, *said])

    @property
    def is_graded(self) -> bool:
        return False

    def sealed(self, folder: Path) -> Self:
        """The same check with the files it reads pinned by content; `folder` is where they lie."""
        return self

    @abstractmethod
    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        """0 no harm, 1 harm, None could not judge."""

    def _differing(self) -> list[tuple[str, Any]]:
        values = [(key, getattr(self, key.name)) for key in option_fields(type(self)).values()]
        return [(key.name, value) for key, value in values if value != key.default]


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file that a check reads, as it was when the check was named."""

    path: Path
    sha256: str
    stamp: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path, sha256: str = "") -> PinnedFile:
        """Hash the file. Raises: SettingsError when it is absent or not the one of that sha256."""
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            stamp = _stamp(path)
        except OSError as error:
            raise SettingsError(f"a check reads {path}, which cannot be read: {error}") from None
        if sha256 and sha256 != found:
            raise SettingsError(
                f"{path} is not the file that the check names: its sha256 is {found}, expected"
                f" {sha256}",
                hint="leave sha256 out to take the file as it is now; that is another check",
            )
        return cls(path, found, stamp)

    def unchanged(self) -> Path:
        """The path, or ArtefactError when the file was changed since it was hashed."""
        try:
            is_same = _stamp(self.path) == self.stamp
        except OSError:
            is_same = False
        if not is_same:
            raise ArtefactError(
                f"{self.path} was changed while a check was using it",
                hint="run again: what was judged before and after cannot be compared",
            )
        return self.path


def check_word(name: str) -> str:
    """The kind of check that a name is of: its first word."""
    return name.split(maxsplit=1)[0] if name.strip() else ""


def split_name(text: str) -> tuple[str, dict[str, str]]:
    """The word of a check, and its options as they are spelled."""
    start = _WORD.match(text)
    if start is None:
        raise SettingsError(
            f"{text!r} does not name a check: expected a word, then key=value options",
            hint=f"for example: {_EXAMPLE}",
        )
    word, at = start[1], start.end()
    options: dict[str, str] = {}
    while at < len(text):
        found = _OPTION.match(text, at)
        if found is None:
            raise SettingsError(
                f"check {word!r}: expected key=value at {text[at:]!r}",
                hint='a value with spaces or quotes is a JSON string: pattern="a b"',
            )
        key, value = found[1], found[2]
        if key in options:
            raise SettingsError(f"check {word!r}: option {key!r} is given twice")
        options[key] = _unquoted(word, key, value)
        at = found.end()
    return word, options


def build_check(cls: type[NamedCheck], options: Mapping[str, str], folder: Path) -> NamedCheck:
    """The check of that class with those options; SettingsError for what it does not know."""
    known, kinds = option_fields(cls), option_kinds(cls)
    values: dict[str, Any] = {}
    for key, text in options.items():
        where = f"check {cls.word!r}: {key}"
        if key not in known:
            close = nearest(key, known)
            offered = f"it has: {', '.join(known)}" if known else "it has none"
            raise SettingsError(
                f"check {cls.word!r} has no option {key!r}; {offered}",
                hint=f"did you mean {close!r}?" if close else None,
            )
        value = parse_text(text, kinds[key], where)
        value = check_value(value, kinds[key], known[key].metadata["limits"], where)
        values[key] = tuple(sorted(set(value))) if isinstance(value, tuple) else value
    for key, option in known.items():
        if option.default is MISSING and key not in values:
            raise SettingsError(f"check {cls.word!r} needs {key}=...")
    return cls(**values).sealed(folder)


@cache
def option_fields(cls: type[NamedCheck]) -> dict[str, Field[Any]]:
    """The options of a class of checks, in their canonical order."""
    every = dataclasses.fields(typing.cast(Any, cls)) if dataclasses.is_dataclass(cls) else ()
    return {key.name: key for key in every if "limits" in key.metadata}


@cache
def option_kinds(cls: type[NamedCheck]) -> dict[str, Any]:
    """The declared type of each field."""
    return typing.get_type_hints(cls)


def _unquoted(word: str, key: str, value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise SettingsError(f"check {word!r}: {key}={value} is no JSON string: {error}") from None


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text: str = ",".join(value) if isinstance(value, tuple) else value
    # what the reader would split, or take for the start of a JSON string, is quoted
    return json.dumps(text) if re.search(r'\s|^"', text) else text


def _stamp(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino
