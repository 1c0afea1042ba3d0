"""A user's own function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ownweights.core.errors import InputError, SettingsError
from ownweights.verdict.checks import check_named

SOURCE = '''
def harm(answer, references):
    """By length."""
    if not references:
        return None
    return abs(len(answer or "") - len(references[0])) / 10

def plain(answer, references):
    return float(answer not in references)

def says(answer, references):
    return {"two": 2, "text": "1", "true": True, "nan": float("nan"), "none": None}[answer]

def broken(answer, references):
    raise KeyError("oops")

def narrow(answer):
    return 0

value = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "mychecks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tickets.py").write_text(SOURCE)
    for name in ("mychecks", "mychecks.tickets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_custom_check_says_what_the_function_says(folder: Path) -> None:
    check = check_named("custom entry=mychecks.tickets:harm graded=true", folder)
    assert check.is_graded
    assert check.harm("abc", ["abcde"]) == pytest.approx(0.2)
    assert check.harm(None, ["abcde"]) == pytest.approx(0.5)
    assert check.harm("abc", []) is None
    plain = check_named("custom entry=mychecks.tickets:plain", folder)
    assert not plain.is_graded
    assert (plain.harm("a", ["a"]), plain.harm("b", ["a"])) == (0.0, 1.0)
    assert str(folder) not in sys.path


def test_custom_check_is_named_by_its_source(folder: Path) -> None:
    check = check_named("custom entry=mychecks.tickets:plain", folder)
    assert check.name.startswith("custom entry=mychecks.tickets:plain sha256=")
    assert check_named(check.name, folder) == check
    path = folder / "mychecks" / "tickets.py"
    path.write_text(SOURCE.replace("float(answer not in references)", "0"))
    with pytest.raises(SettingsError, match="is not the file that the check names"):
        check_named(check.name, folder)
    changed = check_named("custom entry=mychecks.tickets:plain", folder)
    assert changed.name != check.name
    assert changed.harm("b", ["a"]) == 0.0  # what was hashed is what runs


@pytest.mark.parametrize(
    ("answer", "says"),
    [("two", "said 2, expected 0 or 1"), ("text", "said '1'"), ("nan", "said nan")],
)
def test_custom_check_refuses_answers(folder: Path, answer: str, says: str) -> None:
    check = check_named("custom entry=mychecks.tickets:says", folder)
    with pytest.raises(InputError, match=says):
        check.harm(answer, [])
    assert check.harm("true", []) == 1.0
    assert check.harm("none", []) is None


def test_custom_check_refuses_a_share_that_was_not_announced(folder: Path) -> None:
    check = check_named("custom entry=mychecks.tickets:harm", folder)
    assert check.harm("abcde", ["abcde"]) == 0.0
    with pytest.raises(InputError, match="expected 0 or 1 or None") as info:
        check.harm("abc", ["abcde"])
    assert info.value.hint == "a harm between 0 and 1 needs graded=true"
    graded = check_named("custom entry=mychecks.tickets:harm graded=true", folder)
    with pytest.raises(InputError, match=r"said 3.7, expected a number from 0 to 1"):
        graded.harm("a" * 42, ["abcde"])


def test_custom_check_that_raises_ends_the_run(folder: Path) -> None:
    check = check_named("custom entry=mychecks.tickets:broken", folder)
    with pytest.raises(InputError, match=r"tickets:broken raised KeyError: 'oops'") as info:
        check.harm("a", ["a"])
    assert "return None where it cannot judge" in (info.value.hint or "")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("mychecks.tickets:absent", "is no function"),
        ("mychecks.tickets:value", "is no function"),
        ("mychecks.tickets:narrow", "must take two arguments"),
        ("mychecks.absent:harm", "there is no module mychecks.absent"),
        ("nowhere_at_all.tickets:harm", "cannot be imported"),
        ("sys:exit", "there is no module sys"),  # it has no file
    ],
)
def test_custom_check_refuses_what_is_no_function(folder: Path, entry: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        check_named(f"custom entry={entry}", folder)


def test_custom_check_refuses_a_module_that_fails(folder: Path) -> None:
    (folder / "failing_check.py").write_text("1 / 0\n")
    with pytest.raises(SettingsError, match="cannot be imported: ZeroDivisionError"):
        check_named("custom entry=failing_check:harm", folder)
