"""Harm by a Python function of yours.

    custom entry=checks.tickets:harm graded=true

The function takes the answer (text, or None) and the references (a list of text), and returns 0 for
no harm, 1 for harm, with graded=true anything between, or None for "could not judge". It is found
from the project folder or among what is installed, runs inside this process with all rights of it,
and its module's file is in the check's name by its sha256 (what that module imports is not). What
it raises or returns besides ends the run: a broken check is no evidence.
Invariants: nothing but a number from 0 to 1 or None comes out (test_custom_check_refuses_answers).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from ownweights.core.errors import InputError, SettingsError
from ownweights.core.strict import setting
from ownweights.verdict.checks.named import NamedCheck, PinnedFile

Harm = Callable[[str | None, list[str]], Any]
_ENTRY = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


@dataclass(frozen=True, slots=True)
class CustomCheck(NamedCheck):
    """What a user's function says."""

    word: ClassVar[str] = "custom"
    entry: str = setting(pattern=_ENTRY, pattern_says="package.module:function")
    graded: bool = setting(False)
    sha256: str = setting("", pattern=r"[0-9a-f]{64}|", pattern_says="64 hexadecimal digits")
    function: Harm | None = field(default=None, compare=False, repr=False)

    @property
    def is_graded(self) -> bool:
        return self.graded

    def sealed(self, folder: Path) -> Self:
        module_name, _, name = self.entry.partition(":")
        with _import_from(folder):
            path = _source_of(module_name, self.entry)
            file = PinnedFile.of(path, self.sha256)
            function = getattr(_import(module_name, self.entry), name, None)
        file.unchanged()
        _check_function(function, self.entry)
        return replace(self, sha256=file.sha256, function=function)

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        assert self.function is not None, "a check is made by check_named, which finds its function"
        try:
            found = self.function(answer, list(references))
        except Exception as error:
            raise InputError(
                f"the check {self.entry} raised {type(error).__name__}: {error}",
                hint="it should return None where it cannot judge",
            ) from error
        if found is None:
            return None
        return self._checked(found)

    def _checked(self, found: Any) -> float:
        allowed = "a number from 0 to 1" if self.graded else "0 or 1"
        is_number = isinstance(found, int | float) and math.isfinite(found)
        if not is_number or not 0 <= found <= 1 or (not self.graded and found not in (0, 1)):
            is_between = is_number and 0 < found < 1
            raise InputError(
                f"the check {self.entry} said {found!r}, expected {allowed} or None",
                hint="a harm between 0 and 1 needs graded=true" if is_between else None,
            )
        return float(found)


@contextmanager
def _import_from(folder: Path) -> Iterator[None]:
    """Modules below the folder can be imported."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)


def _source_of(module_name: str, entry: str) -> Path:
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"check 'custom': {entry} cannot be imported: {error}") from None
    if spec is None or not spec.has_location or spec.origin is None:
        raise SettingsError(
            f"check 'custom': there is no module {module_name}",
            hint="a module in the project folder, beside own.toml, is found",
        )
    return Path(spec.origin)


def _import(module_name: str, entry: str) -> Any:
    try:
        loaded = sys.modules.get(module_name)
        # the file may have been changed since it was imported, and its sha256 is what counts
        return importlib.reload(loaded) if loaded else importlib.import_module(module_name)
    except Exception as error:
        raise SettingsError(
            f"check 'custom': {entry} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _check_function(function: Any, entry: str) -> None:
    if not callable(function):
        raise SettingsError(f"check 'custom': {entry} is no function")
    try:
        inspect.signature(function).bind("answer", ["reference"])
    except (TypeError, ValueError):
        raise SettingsError(
            f"check 'custom': {entry} must take two arguments: the answer and the references"
        ) from None
