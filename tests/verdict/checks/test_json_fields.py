"""JSON compared field by field: paths, pairings, tolerances, graded harm."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.json_fields import MAX_UNORDERED, JsonCheck
from ownweights.verdict.checks.json_value import tag_json
from ownweights.verdict.checks.near import as_spelled, is_near

leaves = st.integers(0, 3) | st.sampled_from(["a", True, None])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=8,
)

# a list within a list has the same path, and would be free as well
elements = leaves | st.dictionaries(st.sampled_from("xyz"), values)


def harm(options: str, answer: Any, reference: Any) -> float | None:
    return check_named(f"json {options}").harm(json.dumps(answer), [json.dumps(reference)])


@pytest.mark.parametrize(
    ("options", "answer", "reference", "expected"),
    [
        ("unordered=.", [1, 2, 2], [2, 1, 2], 0.0),
        ("unordered=.", [1, 2, 2], [2, 1, 1], 1.0),
        ("unordered=.", [1, 2], [2, 1, 1], 1.0),
        ("unordered=items", {"items": [1, 2]}, {"items": [2, 1]}, 0.0),
        ("unordered=items", {"tags": [1, 2]}, {"tags": [2, 1]}, 1.0),
        ("unordered=a.b", {"a": {"b": [1, 2]}}, {"a": {"b": [2, 1]}}, 0.0),
        ("unordered=a.b", {"a": [{"b": [1, 2]}]}, {"a": [{"b": [2, 1]}]}, 0.0),
        ("unordered=*", {"a": [[1, 2], [3]]}, {"a": [[3], [2, 1]]}, 0.0),
        ("unordered=a", {"a": [[1, 2], [3]]}, {"a": [[3], [1, 2]]}, 0.0),  # and the lists within
        ("ignore=id", {"id": 1, "x": 2}, {"id": 9, "x": 2}, 0.0),
        ("ignore=id", {"x": 2}, {"id": {"deep": 1}, "x": 2}, 0.0),
        ("ignore=id", {"a": {"id": 1}}, {"a": {"id": 2}}, 1.0),
        ("ignore=a.id", {"a": [{"id": 1}]}, {"a": [{"id": 2}]}, 0.0),
        ("tolerance=0.01", {"x": 1.01}, {"x": 1}, 0.0),
        ("tolerance=0.01", {"x": 1.0101}, {"x": 1}, 1.0),
        ("tolerance=0.01", {"x": "1.001"}, {"x": "1"}, 1.0),
        ("tolerance=1", {"x": True}, {"x": 1}, 1.0),
        ("relative=0.1", 110, 100, 0.0),
        ("relative=0.1", 100, 111, 0.0),
        ("relative=0.1", 111, 100, 1.0),
        ("relative=0.1", -90, -100, 0.0),
        ("tolerance=1", 10**400, 10**400 + 1, 0.0),
        ("tolerance=1", 10**400, 1, 1.0),
        ("unordered=. tolerance=0.5", [1.0, 2.0], [2.4, 1.4], 0.0),
        ("unordered=. tolerance=0.5", [1.0, 1.4], [1.5, 0.6], 0.0),  # only one pairing fits
    ],
)
def test_json_check_obeys_its_options(
    options: str, answer: Any, reference: Any, expected: float
) -> None:
    assert harm(options, answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 1 / 2),
        ({"a": 1}, {"a": 1, "b": 3}, 1 / 2),
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"a": 1}, 2 / 3),
        ({"a": []}, {"a": [1, 2]}, 1.0),
        ({"a": [1, 2, 3]}, {"a": [1, 9]}, 2 / 3),
        ({"a": {}, "b": 1}, {"a": {}, "b": 2}, 1 / 2),  # an empty object is a field
        ({"a": [], "b": 1}, {"a": [], "b": 1}, 0.0),
        ({}, {"a": 1, "b": 1}, 1.0),
        ("x", {"a": 1, "b": 1}, 1.0),
        ([1, 2, 3, 4], [1, 2, 3, 5], 1 / 4),
    ],
)
def test_json_graded_harm_is_the_share_of_fields(
    answer: Any, reference: Any, expected: float
) -> None:
    assert harm("graded=true", answer, reference) == pytest.approx(expected)
    assert harm("graded=true", reference, answer) == pytest.approx(expected)


def test_json_graded_harm_takes_the_nearest_reference() -> None:
    check = check_named("json graded=true")
    assert check.is_graded
    references = ['{"a":1,"b":1,"c":1}', '{"a":2,"b":2,"c":1}']
    assert check.harm('{"a":1,"b":1,"c":2}', references) == pytest.approx(1 / 3)
    assert check.harm("nonsense", references) == 1.0
    assert check.harm('{"a":5}', ["nonsense"]) is None
    assert check.harm('{"a":1}', ['{"a":2}', "nonsense"]) is None
    assert check.harm('{"a":1}', ['{"a":1}', "nonsense"]) == 0.0


@given(values, values, st.booleans())
def test_json_graded_harm_always_agrees_with_plain(left: Any, right: Any, is_free: bool) -> None:
    unordered = ("*",) if is_free else ()
    one, other = json.dumps(left), json.dumps(right)
    graded = JsonCheck(unordered, graded=True).harm(one, [other])
    plain = JsonCheck(unordered).harm(one, [other])
    assert graded is not None and 0.0 <= graded <= 1.0
    assert (graded == 0.0) == (plain == 0.0)


@given(st.lists(elements, max_size=4), st.lists(elements, max_size=4))
def test_unordered_lists_match_brute_force(left: list[Any], right: list[Any]) -> None:
    ours, theirs = ([tag_json(item) for item in items] for items in (left, right))
    check, size = JsonCheck(unordered=(".",)), max(len(left), len(right))
    counts = [
        sum(_count(check, ours[i : i + 1], theirs[j : j + 1]) for i, j in enumerate(order))
        for order in itertools.permutations(range(size))
    ]
    assert check._differ(tag_json(left), tag_json(right), "")[0] == min(counts)


def _count(check: JsonCheck, one: list[Any], other: list[Any]) -> int:
    """Fields that differ between two elements, or in the one that has no partner."""
    return check._differ_ordered(one, other, "")[0]


def test_is_near_is_decimal() -> None:
    assert abs(1.01 - 1.0) > 0.01  # in binary
    assert is_near(as_spelled(1.01), as_spelled(1.0), 0.01, 0.0)
    assert is_near(as_spelled(0.3), as_spelled(0.1 + 0.2), 1e-16, 0.0)
    assert not is_near(as_spelled(1.0100001), as_spelled(1.0), 0.01, 0.0)


def test_unordered_lists_too_long_cannot_be_judged() -> None:
    long = list(range(MAX_UNORDERED + 1))
    assert harm("unordered=.", long, long[::-1]) is None
    assert harm("unordered=.", long, long) == 0.0
    assert harm("unordered=.", long[:60], long[:60][::-1]) == 0.0


def test_json_too_deep_to_compare_cannot_be_judged() -> None:
    deep = "[" * 330 + "1" + "]" * 330
    assert JsonCheck(tolerance=0.1).harm(deep, [deep.replace("1", "2")]) in (None, 1.0)
    assert JsonCheck().harm("[" * 100_000, ["[]"]) == 1.0
