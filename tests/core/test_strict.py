"""Reading one value: exactly the declared type, or a refusal that names it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ownweights.core.errors import SettingsError
from ownweights.core.strict import (
    Limits,
    check_value,
    find_lines,
    key_text,
    line_of,
    parse_text,
    parse_toml,
    toml_key,
    toml_value,
)

ANY = Limits()
LIST = tuple[str, ...]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, 3), (3, float, 3.0), (0.5, float | None, 0.5), ("a", str, "a"),
        (True, bool, True), (["a"], LIST, ("a",)), ([], LIST, ()), (("a",), LIST, ("a",)),
    ],
)  # fmt: skip
def test_check_value_takes_the_declared_type(value: Any, kind: Any, expected: Any) -> None:
    checked = check_value(value, kind, ANY, "w")
    assert (checked, type(checked)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ("8", int, "w: expected a whole number, got the text '8'"),
        (8.0, int, "w: expected a whole number, got 8.0"),
        (True, int, "w: expected a whole number, got true"),
        (False, float, "w: expected a number, got false"),
        (1, bool, "w: expected true or false, got 1"),
        (1, str, "w: expected text, got 1"),
        ("a", LIST, "w: expected a list of text, got the text 'a'"),
        ([1], LIST, "w: expected text, got 1"),
        ({}, str, "w: expected text, got a table"),
        ([], str, "w: expected text, got a list"),
        (datetime.date(2026, 1, 1), str, "w: expected text, got a date"),
    ],
)
def test_check_value_names_the_wrong_type(value: Any, kind: Any, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_value(value, kind, ANY, "w")
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("limits", "good", "bad", "says"),
    [
        (Limits(at_least=1), 1, 0, "at least 1"),
        (Limits(at_most=1), 1, 2, "at most 1"),
        (Limits(at_least=1, is_open=True), 2, 1, "more than 1"),
        (Limits(at_least=0, at_most=2), 2, 3, "between 0 and 2"),
        (Limits(at_least=0, at_most=2, is_open=True), 1, 2, "between 0 and 2 (exclusive)"),
        (Limits(choices=("a", "b")), "b", "c", "one of 'a', 'b'"),
        (Limits(pattern="x+", pattern_says="some x"), "xx", "xxy", "some x"),
    ],
)
def test_check_value_holds_the_limits(limits: Limits, good: Any, bad: Any, says: str) -> None:
    kind = type(good)
    assert check_value(good, kind, limits, "w") == good
    with pytest.raises(SettingsError) as caught:
        check_value(bad, kind, limits, "w")
    assert str(caught.value).startswith(f"w: expected {says}, got ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_check_value_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(SettingsError, match="expected a finite number"):
        check_value(value, float, ANY, "w")


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("3", int, 3), ("3", float, 3.0), ("1e-3", float | None, 1e-3), (" x ", str, " x "),
        ("TRUE", bool, True), ("0", bool, False), ("a, b ,", LIST, ("a", "b")), ("", LIST, ()),
    ],
)  # fmt: skip
def test_parse_text_reads_the_declared_type(text: str, kind: Any, expected: Any) -> None:
    assert parse_text(text, kind, "V") == expected


@pytest.mark.parametrize(("text", "kind"), [("3.0", int), ("", int), ("x", float), ("2", bool)])
def test_parse_text_names_the_wrong_type(text: str, kind: Any) -> None:
    with pytest.raises(SettingsError, match=f"V: expected .*, got the text '{text}'"):
        parse_text(text, kind, "V")


def test_line_of_falls_back_to_the_table_around() -> None:
    lines = find_lines("x = 1\n[a.b]\n# c = 1\nd = {e = 1}\n[[a]\n")
    assert [line_of(lines, path) for path in (["x"], ["a", "b"], ["a", "b", "d", "e"])] == [1, 2, 4]
    assert line_of(lines, ["a", "b", "missing"]) == 2
    assert line_of(lines, ["nowhere"]) is None


@pytest.mark.parametrize("value", ["sk-1\r", " sk-1\n", "sk-1\r\n", "\tsk-1 "])
def test_key_text_is_without_white_space_around(value: str) -> None:
    assert key_text("MY_KEY", value) == "sk-1"


@pytest.mark.parametrize("value", [None, "", "\n", "  "])
def test_key_text_of_nothing_is_empty(value: str | None) -> None:
    assert key_text("MY_KEY", value) == ""


@pytest.mark.parametrize(
    "value", ["sk-gëheim", "sk-\r\nx: geheim", "geheim\x00", "\udcffgeheim", "“geheim”"]
)
def test_key_text_names_the_variable_and_never_the_value(value: str) -> None:
    with pytest.raises(SettingsError, match="variable MY_KEY holds what cannot be") as caught:
        key_text("MY_KEY", value)
    assert "heim" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "a.b", "1.0", 'a"b', "naïve", "a\\b", "", "x\ny"])
def test_toml_key_and_value_read_back(name: str) -> None:
    text = f"[{toml_key(name)}]\nx = {toml_value([name, True, 1.5])}"
    assert parse_toml(text, "f") == {name: {"x": [name, True, 1.5]}}
