"""Checks: what counts as the same answer, what as harm, and what nobody could judge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import SettingsError
from ownweights.verdict.checks import check_named, choose_check, read_json

EXACT, JSON = check_named("exact"), check_named("json")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def shuffled(value: Any) -> Any:
    """The same value with the keys of every object in reverse."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("answer", "reference", "harm"),
    [
        ("same", "same", 0.0),
        ("  same\n", "same", 0.0),
        ("cafe\u0301", "caf\u00e9", 0.0),
        ("Same", "same", 1.0),
        ("", "same", 1.0),
        (None, "same", 1.0),
        ("two  spaces", "two spaces", 1.0),
    ],
)
def test_exact_check_compares_normal_text(answer: str | None, reference: str, harm: float) -> None:
    assert EXACT.harm(answer, [reference]) == harm


@pytest.mark.parametrize(
    ("answer", "reference", "harm"),
    [
        ('{"a":1,"b":[2]}', '{ "b" : [2], "a" : 1 }', 0.0),
        ('{"a":1}', '{"a":1.0}', 0.0),
        ('{"a":0.5}', '{"a":5e-1}', 0.0),
        ('"\\u00e9"', '"é"', 0.0),
        ('{"a":"cafe\u0301"}', '{"a":"caf\u00e9"}', 1.0),
        ("[1,2]", "[2,1]", 1.0),
        ('{"a":true}', '{"a":1}', 1.0),
        ('{"a":false}', '{"a":0}', 1.0),
        ('{"a":"1"}', '{"a":1}', 1.0),
        ('{"a":null}', '{"a":"None"}', 1.0),
        ("{}", "[]", 1.0),
        ('{"a":1,"b":2}', '{"a":1}', 1.0),
        ("9007199254740993", "9007199254740992.0", 1.0),
        ('```json\n{"a":1}\n```', '{"a":1}', 1.0),
        ('{"a":1', '{"a":1}', 1.0),
        ('{"a":1,"a":1}', '{"a":1}', 1.0),
        ("", "{}", 1.0),
        (None, "{}", 1.0),
    ],
)
def test_json_check_compares_values(answer: str | None, reference: str, harm: float) -> None:
    assert JSON.harm(answer, [reference]) == harm


@given(json_values)
def test_json_check_always_ignores_key_order(value: Any) -> None:
    assert JSON.harm(json.dumps(shuffled(value)), [json.dumps(value, indent=2)]) == 0.0


@given(json_values, json_values)
def test_json_check_is_always_symmetric(left: Any, right: Any) -> None:
    one, other = json.dumps(left), json.dumps(right)
    assert JSON.harm(one, [other]) == JSON.harm(other, [one])


@pytest.mark.parametrize("check", [EXACT, JSON], ids=["exact", "json"])
def test_check_is_content_with_any_reference(check: Any) -> None:
    assert check.harm('{"a":2}', ['{"a":1}', '{"a":2}']) == 0.0
    assert check.harm('{"a":3}', ['{"a":1}', '{"a":2}']) == 1.0


@pytest.mark.parametrize(("check", "references"), [(EXACT, []), (EXACT, ["", "  "]), (JSON, [])])
def test_check_cannot_judge_without_references(check: Any, references: list[str]) -> None:
    assert check.harm("anything", references) is None


def test_json_check_cannot_judge_unreadable_references() -> None:
    assert JSON.harm('{"a":1}', ["not json"]) is None
    assert JSON.harm("not json", ["not json"]) is None  # not even the same words


def test_json_check_cannot_judge_when_the_unreadable_one_might_agree() -> None:
    assert JSON.harm('{"a":1}', ["not json", '{"a":2}']) is None
    assert JSON.harm('{"a":2}', ["not json", '{"a":2}']) == 0.0
    assert JSON.harm("not json", ["broken", '{"a":2}']) == 1.0


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "1e999", '{"a":1,"a":2}', "[" * 100_000, "1" * 10_000, "", "{'a':1}"],
    ids=["nan", "infinity", "overflow", "twice", "deep", "huge", "empty", "quotes"],
)
def test_read_json_refuses(text: str) -> None:
    assert read_json(text) is None


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        (['{"a":1}', "[1]"], "json"),
        (['{"a":1}', "plain"], "exact"),
        (['"text"'], "exact"),  # a lone word or number is text that happens to be JSON
        (["12"], "exact"),
        ([], "exact"),
    ],
)
def test_choose_check_by_the_targets(targets: list[str], name: str) -> None:
    assert choose_check(targets).name == name


def test_check_named_refuses_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="'jsn' is not a check; there are: exact, te") as info:
        check_named("jsn")
    assert info.value.hint == "did you mean 'json'?"
    with pytest.raises(SettingsError) as far:
        check_named("zzzzz")
    assert far.value.hint is None
