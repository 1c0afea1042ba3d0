"""When two numbers count as the same: exact decimal arithmetic on them as they are spelled.

1.01 is within 0.01 of 1, which binary floating point denies (test_is_near_is_decimal).
"""

from __future__ import annotations

from decimal import Context, Decimal

_CONTEXT = Context(prec=1000)


def is_near(number: Decimal, reference: Decimal, tolerance: float, relative: float) -> bool:
    """Whether they differ by the larger of `tolerance` and that share of the reference at most."""
    share = _CONTEXT.multiply(Decimal(repr(relative)), abs(reference))
    allowed = max(Decimal(repr(tolerance)), share)
    return abs(_CONTEXT.subtract(number, reference)) <= allowed


def as_spelled(number: float) -> Decimal:
    """A number as its shortest spelling says."""
    return Decimal(repr(number))
