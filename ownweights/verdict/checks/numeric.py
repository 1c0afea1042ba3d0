"""Harm by a number: the last one in the text, or the text as one number.

    numeric relative=0.01              12.5, -3, 1,234,567.8, 6e23, 45%; words and units are passed
    numeric take=whole decimal=comma   the whole text is one number, as in 1.234,5

Numbers are decimal and exact: 0.1 + 0.2 is 0.3, and large whole numbers are not rounded. The
greatest allowed difference is the larger of `tolerance` and `relative` times the reference. A
percentage is the number before the sign, so that 45% is 45. Fractions and words are not read.
Invariants: a number agrees with its own spellings (test_numeric_always_reads_what_is_spelled).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from ownweights.core.strict import setting
from ownweights.verdict.checks.named import NamedCheck
from ownweights.verdict.checks.near import is_near

MAX_DIGITS = 400
_POINT = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?<=\d)(?:[eE][-+]?\d{1,3})?(?!\d)"
)


@dataclass(frozen=True, slots=True)
class NumericCheck(NamedCheck):
    """The number that an answer ends on."""

    word: ClassVar[str] = "numeric"
    take: str = setting("last", choices=("last", "whole"))
    tolerance: float = setting(0.0, at_least=0)
    relative: float = setting(0.0, at_least=0)
    decimal: str = setting("point", choices=("point", "comma"))

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        read = [self.number(text) for text in references]
        known = [number for number in read if number is not None]
        if not known:
            return None
        number = self.number(answer or "")
        if number is None:
            return 1.0
        if any(is_near(number, reference, self.tolerance, self.relative) for reference in known):
            return 0.0
        return 1.0 if len(known) == len(read) else None

    def number(self, text: str) -> Decimal | None:
        """The number in a text; None when there is none."""
        if self.decimal == "comma":
            text = text.translate(str.maketrans(",.", ".,"))
        found = [match[0] for match in _POINT.finditer(text)]
        spelled = text.strip().rstrip("%").rstrip() if self.take == "whole" else None
        if (
            not found
            or (spelled is not None and spelled != found[0])
            or len(found[-1]) > MAX_DIGITS
        ):
            return None
        return Decimal(found[-1].replace(",", "").replace("−", "-"))
