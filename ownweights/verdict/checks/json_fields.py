"""Harm by the JSON value of an answer: as a whole, or field by field.

A path names keys from the root, joined by points; the elements of a list share the path of the
list: `items.price` is the price of every item. The root is `.`, and `*` stands for every path.

  unordered=PATHS  these lists are compared as collections, in the best pairing
  ignore=PATHS     these keys, with all below, are not compared
  tolerance, relative  numbers may differ by so much, or by that share of the reference
  graded=true      harm is the share of fields that differ; without it, one is enough for 1

A field is a scalar, or an empty object or list; a field that one side lacks differs.
Invariants: harm 0 exactly when nothing differs (test_json_graded_harm_always_agrees_with_plain);
the best pairing is the best of all (test_unordered_lists_match_brute_force).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ownweights.core.strict import setting
from ownweights.verdict.checks.json_value import Value, read_json
from ownweights.verdict.checks.named import NamedCheck
from ownweights.verdict.checks.near import as_spelled, is_near

ROOT, EVERY = ".", "*"
MAX_UNORDERED = 400  # elements of a list compared in every pairing
Count = tuple[int, int]  # (fields that differ, fields)


@dataclass(frozen=True, slots=True)
class JsonCheck(NamedCheck):
    """The JSON value, however it is spelled."""

    word: ClassVar[str] = "json"
    unordered: tuple[str, ...] = setting(())
    ignore: tuple[str, ...] = setting(())
    tolerance: float = setting(0.0, at_least=0)
    relative: float = setting(0.0, at_least=0)
    graded: bool = setting(False)

    @property
    def is_graded(self) -> bool:
        return self.graded

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        readable = [value for value in map(read_json, references) if value is not None]
        if not readable:
            return None
        value = read_json(answer or "")
        if value is None:
            return 1.0
        harms = [self.value_harm(value, reference) for reference in readable]
        known = [harm for harm in harms if harm is not None]
        if known and min(known) == 0.0:
            return 0.0
        # a reference that cannot be read or compared might have been the one that agrees
        is_certain = len(known) == len(references)
        return min(known) if is_certain else None

    def value_harm(self, value: Value, reference: Value) -> float | None:
        """Harm of one value against another; None where they are too long or deep."""
        try:
            if value == reference:
                return 0.0
            differing, total = self._differ(value, reference, "")
        except (_TooLong, RecursionError):
            return None
        if not self.graded:
            return 1.0 if differing else 0.0
        return differing / total if total else 0.0

    def _differ(self, left: Value, right: Value, path: str) -> Count:
        if left[0] != right[0]:
            larger = max(self._size(left, path), self._size(right, path))
            return larger, larger
        if left[0] == "object":
            return self._differ_objects(left[1], right[1], path)
        if left[0] == "list":
            is_free = EVERY in self.unordered or (path or ROOT) in self.unordered
            compare = self._differ_unordered if is_free else self._differ_ordered
            return compare(left[1], right[1], path) if left[1] or right[1] else (0, 1)
        is_same = left == right or (left[0] == "number" and self._is_near(left[1], right[1]))
        return int(not is_same), 1

    def _differ_objects(self, left: dict[str, Value], right: dict[str, Value], path: str) -> Count:
        if not left and not right:
            return 0, 1
        counts: list[Count] = []
        for key in left.keys() | right.keys():
            below = f"{path}.{key}" if path else key
            if below in self.ignore:
                continue
            if key in left and key in right:
                counts.append(self._differ(left[key], right[key], below))
            else:
                size = self._size(left[key] if key in left else right[key], below)
                counts.append((size, size))
        return _total(counts)

    def _differ_ordered(self, left: list[Value], right: list[Value], path: str) -> Count:
        counts = [self._differ(one, other, path) for one, other in zip(left, right, strict=False)]
        longer = left if len(left) > len(right) else right
        sizes = [self._size(item, path) for item in longer[min(len(left), len(right)) :]]
        return _total([*counts, *((size, size) for size in sizes)])

    def _differ_unordered(self, left: list[Value], right: list[Value], path: str) -> Count:
        """In the pairing with the fewest fields that differ."""
        import numpy as np
        from scipy.optimize import linear_sum_assignment

        if max(len(left), len(right)) > MAX_UNORDERED:
            raise _TooLong
        size = max(len(left), len(right))
        counts = np.zeros((2, size, size), np.int64)
        for row in range(size):
            for column in range(size):
                pair = (left[row : row + 1], right[column : column + 1])
                counts[:, row, column] = self._differ_ordered(*pair, path)
        rows, columns = linear_sum_assignment(counts[0])
        differing, total = counts[:, rows, columns].sum(axis=1)
        return int(differing), int(total)

    def _is_near(self, left: float, right: float) -> bool:
        if not self.tolerance and not self.relative:
            return False  # they have been compared
        pair = as_spelled(left), as_spelled(right)
        return is_near(*pair, self.tolerance, self.relative)

    def _size(self, value: Value, path: str) -> int:
        """The fields in a value that has nothing to be compared with."""
        if value[0] == "list" and value[1]:
            return sum(self._size(item, path) for item in value[1])
        if value[0] == "object" and value[1]:
            below = {f"{path}.{key}" if path else key: item for key, item in value[1].items()}
            return sum(self._size(v, key) for key, v in below.items() if key not in self.ignore)
        return 1


class _TooLong(Exception):
    pass


def _total(counts: list[Count]) -> Count:
    return sum(differing for differing, _ in counts), sum(total for _, total in counts)
