"""Harm by the words of an answer: all of them, or those left after normalising.

`text ignore=case,space` lets go of what is listed, after Unicode NFKC:

  case         folded: STRASSE is straße
  space        runs of white space are one space, none at either end
  punctuation  dropped, but for what makes another number: the point of 3.5, the minus of -5

Invariants: equal text is never harm, whatever is ignored (test_text_check_is_always_reflexive);
ignoring more never turns agreement into harm (test_text_check_ignoring_more_is_never_stricter).
Source: Unicode Standard Annex 15 (normal forms).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ownweights.core.strict import setting
from ownweights.verdict.checks.named import NamedCheck

IGNORABLE = ("case", "space", "punctuation")


@dataclass(frozen=True, slots=True)
class ExactCheck(NamedCheck):
    """The text itself, up to Unicode normal form and white space at either end."""

    word: ClassVar[str] = "exact"

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        return _compare(_composed(answer or ""), {_composed(text) for text in references})


@dataclass(frozen=True, slots=True)
class TextCheck(NamedCheck):
    """The text up to what is ignored."""

    word: ClassVar[str] = "text"
    ignore: tuple[str, ...] = setting(("case", "space"), choices=IGNORABLE)

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        return _compare(self._normal(answer or ""), {self._normal(text) for text in references})

    def _normal(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text)
        if "case" in self.ignore:
            # folding can leave a text that is not in normal form
            text = unicodedata.normalize("NFKC", text.casefold())
        if "punctuation" in self.ignore:
            text = drop_punctuation(text)
        return re.sub(r"\s+", " ", text).strip() if "space" in self.ignore else text.strip()


def drop_punctuation(text: str) -> str:
    """The text without punctuation, except within or before a number."""
    kept: list[str] = []
    for before, mark, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        is_mark = unicodedata.category(mark).startswith("P")
        is_inside = before.isdigit() or (mark in "-." and not before.isalnum())
        if not is_mark or (after.isdigit() and is_inside):
            kept.append(mark)
    return "".join(kept)


def _compare(answer: str, references: set[str]) -> float | None:
    known = references - {""}
    if not known:
        return None
    return 0.0 if answer in known else 1.0


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
