"""Finds a recogniser of names: a Python function of yours, `package.module:function`.

It takes a text and gives (start, end) of each name in it, as characters of that text. It is found
in the project folder or among what is installed, runs inside this process with all rights of it, on
the thread that writes records down. What it raises, or gives besides, loses the record: nothing is
written that it did not look at (test_recogniser_that_fails_lets_nothing_through).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ownweights.core.errors import InputError, SettingsError
from ownweights.traffic.redact.redactor import Recogniser

ENTRY_PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


def load_recogniser(entry: str, folder: Path) -> Recogniser:
    """The function that `package.module:function` names, its answers checked.

    Raises: SettingsError when there is no such function
    """
    if not re.fullmatch(ENTRY_PATTERN, entry):
        raise SettingsError(f"recognizer {entry!r}: expected package.module:function")
    module_name, _, name = entry.partition(":")
    place = str(folder.resolve())
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise SettingsError(
            f"recognizer {entry} cannot be imported: {type(error).__name__}: {error}",
            hint="a module in the project folder, beside own.toml, is found",
        ) from None
    finally:
        sys.path.remove(place)
    if not callable(function):
        raise SettingsError(f"recognizer {entry}: the module has no function {name}")
    return _Checked(entry, function)


class _Checked:
    """A recogniser whose answers are spans of the text it was given."""

    def __init__(self, entry: str, function: Any) -> None:
        self._entry = entry
        self._function = function

    def __call__(self, text: str) -> Iterator[tuple[int, int]]:
        try:
            found = list(self._function(text))
        except Exception as error:  # its message may quote the text
            raise InputError(f"recognizer {self._entry} raised {type(error).__name__}") from None
        for pair in found:
            yield _checked(pair, len(text), self._entry)


def _checked(pair: Any, chars: int, entry: str) -> tuple[int, int]:
    ends = cast("tuple[Any, ...]", tuple(pair)) if isinstance(pair, tuple | list) else ()
    if len(ends) == 2 and all(type(end) is int for end in ends) and 0 <= ends[0] < ends[1] <= chars:
        return ends[0], ends[1]
    raise InputError(
        f"recognizer {entry} gave something else than (start, end) of a part of its text"
    )
