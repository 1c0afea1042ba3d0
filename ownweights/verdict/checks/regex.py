"""Harm by a pattern: what it finds in the answer and in the reference, or the reference itself.

    regex pattern="order (\\d+)"   its groups must be those found in a reference; without groups,
                                   all that it matched
    regex                          each reference is a pattern that the answer must match
    search=true                    anywhere in the text; without it, the whole stripped text

Patterns are Python's. One can take longer than the universe lasts, and Python cannot interrupt
it, so the matching runs in a process of its own that is killed after `timeout_s`. Then nobody
knows: could not judge. A reference in which `pattern` finds nothing, or that is no pattern,
cannot be read either.
Invariants: a catastrophic pattern ends (test_regex_survives_a_catastrophic_pattern).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from ownweights.core.errors import SettingsError
from ownweights.core.strict import setting
from ownweights.verdict.checks.named import NamedCheck
from ownweights.verdict.checks.process import Bounds, run_confined

_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class RegexCheck(NamedCheck):
    """What a pattern finds."""

    word: ClassVar[str] = "regex"
    pattern: str = setting("")
    search: bool = setting(False)
    ignore_case: bool = setting(False)
    timeout_s: float = setting(2.0, at_least=0, at_most=600, is_open=True)

    def sealed(self, folder: Path) -> Self:
        if self.pattern:
            _compile_setting(self.pattern)
        return self

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        answer, known = (answer or "").strip(), [text.strip() for text in references]
        if not any(known):
            return None
        if not answer:
            return 1.0
        if self.pattern:
            found = self._find([(self.pattern, text) for text in (answer, *known)])
            return None if found is None else _same_groups(found[0], found[1:])
        found = self._find([(pattern, answer) for pattern in known])
        return None if found is None else _any_match(found)

    def _find(self, pairs: Sequence[tuple[str, str]]) -> list[Any] | None:
        """For each (pattern, text) its groups, [] for no match, or None for a bad pattern."""
        payload = {
            "job": "regex", "pairs": pairs, "search": self.search, "ignore_case": self.ignore_case,
        }  # fmt: skip
        ran = run_confined(payload, Bounds(self.timeout_s, _MEMORY_BYTES))
        return cast("list[Any] | None", ran.said)


def _same_groups(answer: list[Any] | None, references: Sequence[list[Any] | None]) -> float | None:
    known = [groups for groups in references if groups]
    if not known:
        return None
    if not answer:
        return 1.0
    if answer in known:
        return 0.0
    return 1.0 if len(known) == len(references) else None


def _any_match(found: Sequence[list[Any] | None]) -> float | None:
    if any(found):
        return 0.0
    return None if None in found else 1.0


def _compile_setting(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(
            f"check 'regex': {pattern!r} is no pattern: {error}",
            hint="patterns are those of Python's re",
        ) from None
