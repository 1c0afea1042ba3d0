"""How one settings value is read: its type and limits, the text of a variable, the line of a file.

In: TOML text, or the text of a flag or variable. Out: values of exactly the declared type, or a
SettingsError that names the place, what was expected and what was found. Nothing is coerced: "8" is
not 8, and true is not 1 (test_check_value_names_the_wrong_type).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.core.errors import SettingsError

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME_SAYS = "up to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=")
_TYPE_WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "a table",
}  # fmt: skip
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_MAX_CHARS = 60
_MAX_DIGITS = 40
_MAX_SHOWN = 10**_MAX_DIGITS

KeyPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a value must satisfy besides its type."""

    at_least: float | None = None
    at_most: float | None = None
    is_open: bool = False  # the limits themselves are excluded
    choices: tuple[str, ...] = ()
    pattern: str = ""
    pattern_says: str = ""
    is_shown: bool = True  # in an error; false for what may hold a password

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(map(repr, self.choices))
        if self.pattern:
            return self.pattern_says
        low, high = _number(self.at_least), _number(self.at_most)
        if low and high:
            return f"between {low} and {high}" + (" (exclusive)" if self.is_open else "")
        if low:
            return f"more than {low}" if self.is_open else f"at least {low}"
        return f"at most {high}" if high else ""


def key_text(variable: str, value: str | None) -> str:
    """The API key in the environment variable `variable`, without white space around it.

    Raises: SettingsError for what cannot stand in a header; it names the variable, never the value
    """
    key = (value or "").strip()
    if re.fullmatch(r"[ -~]*", key) is None:
        raise SettingsError(
            f"the environment variable {variable} holds what cannot be an API key:"
            " a character that is not ASCII, or a line break",
            hint=f"copy the key from its provider again, and export {variable} anew",
        )
    return key


def setting(default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """A settings field with a default (without one it must be given) and Limits."""
    return dataclasses.field(default=default, metadata={"limits": Limits(**limits)})


def check_value(value: Any, kind: Any, limits: Limits, where: str) -> Any:
    """The value, as the declared `kind`; else SettingsError."""
    wanted, is_list = _plain_kind(kind)
    if is_list:
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list of text", value)
        return tuple(check_value(item, wanted, limits, where) for item in typing.cast("Any", value))
    if wanted is float and type(value) is int:
        if abs(value) >= _MAX_SHOWN:  # perhaps beyond what a float holds
            raise _wrong(where, str(limits) or _TYPE_WORDS[float], value)
        value = float(value)
    if type(value) is not wanted:
        raise _wrong(where, _TYPE_WORDS[wanted], value)
    if not _is_within(value, limits):
        raise _wrong(where, str(limits) or "a finite number", value, is_shown=limits.is_shown)
    return value


def parse_text(text: str, kind: Any, where: str) -> Any:
    """The value that a flag's or variable's text spells, of the declared `kind`."""
    wanted, is_list = _plain_kind(kind)
    if is_list:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if wanted is bool:
        if text.strip().lower() not in _BOOLS:
            raise _wrong(where, "true or false", text)
        return _BOOLS[text.strip().lower()]
    try:
        return wanted(text)
    except ValueError:
        raise _wrong(where, _TYPE_WORDS[wanted], text) from None


def kind_words(kind: Any) -> str:
    """A declared type in words."""
    wanted, is_list = _plain_kind(kind)
    return "a list of text" if is_list else _TYPE_WORDS[wanted]


def toml_value(value: Any) -> str:
    """A text, number, truth value or list as TOML spells it."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml_value, typing.cast("Any", value))) + "]"
    # a JSON string is a TOML basic string, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """One part of a table's name, in quotes where a bare one would mean something else."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The tables of a TOML text; a SettingsError names `name` and the line."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError alone: a number of 4,300 digits
        raise SettingsError(f"{name} is not TOML: {error}") from None


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line on which each table and key stands, as far as one can tell without a full parser."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line):
            table = _key_path(f"[{header[1]}]")
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(table + _key_path(f"{key[1]} = 0"), number)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: Sequence[str]) -> int | None:
    """The line of a key, or of the closest table around it."""
    for end in range(len(path), 0, -1):
        if (line := lines.get(tuple(path[:end]))) is not None:
            return line
    return None


def _number(limit: float | None) -> str:
    """A limit as it is written; whole numbers in full."""
    if limit is None:
        return ""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _key_path(toml: str) -> KeyPath:
    try:
        value: Any = tomllib.loads(toml)
    except ValueError:
        return ()
    path: list[str] = []
    while isinstance(value, dict) and value:
        key, value = next(iter(typing.cast("dict[str, Any]", value).items()))
        path.append(key)
    return tuple(path)


def _plain_kind(kind: Any) -> tuple[Any, bool]:
    """(the type without None, whether it is a list of them)."""
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    return kind, False


def _is_within(value: Any, limits: Limits) -> bool:
    if isinstance(value, str):
        if limits.choices:
            return value in limits.choices
        return not limits.pattern or re.fullmatch(limits.pattern, value) is not None
    if isinstance(value, float) and not math.isfinite(value):
        return False
    low = -math.inf if limits.at_least is None else limits.at_least
    high = math.inf if limits.at_most is None else limits.at_most
    return low < value < high if limits.is_open else low <= value <= high


def _wrong(where: str, expected: str, value: Any, *, is_shown: bool = True) -> SettingsError:
    if not is_shown:
        found = "something else, which may hold a secret and is not shown"
    elif isinstance(value, str):
        found = f"the text {value if len(value) <= _MAX_CHARS else value[:_MAX_CHARS] + '…'!r}"
    elif isinstance(value, bool):
        found = str(value).lower()
    elif isinstance(value, int) and abs(value) >= _MAX_SHOWN:
        found = f"a number of more than {_MAX_DIGITS} digits"
    elif isinstance(value, int | float):
        found = str(value)
    else:
        found = _TYPE_WORDS.get(type(value), f"a {type(value).__name__}")
    return SettingsError(f"{where}: expected {expected}, got {found}")
