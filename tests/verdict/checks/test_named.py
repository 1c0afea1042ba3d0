"""How a check is written down: strictly read, canonically spelled, pinned to its files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import ArtefactError, SettingsError
from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.verdict.checks import CHECKS, check_named, check_word, describe_checks
from ownweights.verdict.checks.json_fields import JsonCheck
from ownweights.verdict.checks.named import PinnedFile, split_name
from ownweights.verdict.checks.regex import RegexCheck

paths = st.lists(st.text("abc._*", min_size=1, max_size=5), max_size=3).map(
    lambda found: tuple(sorted(set(found)))
)
shares = st.floats(0, 1e9, allow_nan=False)


@given(paths, paths, shares, shares, st.booleans())
def test_check_names_always_read_back(
    unordered: tuple[str, ...], ignore: tuple[str, ...], near: float, share: float, graded: bool
) -> None:
    check = JsonCheck(unordered, ignore, near, share, graded)
    again = check_named(check.name)
    assert again == check
    assert again.name == check.name


@given(st.text(max_size=12))
def test_check_names_always_quote_what_needs_it(text: str) -> None:
    pattern = re.escape(text)
    check = RegexCheck(pattern=pattern)
    assert check_named(check.name) == check
    assert split_name(check.name)[1].get("pattern", "") == pattern


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("json", "json"),
        ("  exact ", "exact"),
        ("json relative=0.5 unordered=b,a,b", "json unordered=a,b relative=0.5"),
        ("json tolerance=0.0 graded=no", "json"),
        ("json tolerance=1", "json tolerance=1.0"),
        ("text ignore=space,case", "text"),
        ("text ignore=space,punctuation", "text ignore=punctuation,space"),
        ("text ignore=", "text ignore="),
        (r'regex pattern="(\\d+) of"', r'regex pattern="(\\d+) of"'),
        (r'regex pattern="\\d+"', r"regex pattern=\d+"),
        (r"regex pattern=\d+ search=true", r"regex pattern=\d+ search=true"),
        (r'regex pattern="\"a"', r'regex pattern="\"a"'),
    ],
)
def test_check_name_is_canonical(text: str, canonical: str) -> None:
    assert check_named(text).name == canonical
    assert check_named(canonical).name == canonical


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("", "does not name a check", "for example: json tolerance"),
        ("JSON", "does not name a check", "for example"),
        ("jsn", "'jsn' is not a check", "did you mean 'json'?"),
        ("json tolerence=1", "has no option 'tolerence'; it has: unordered", "'tolerance'"),
        ("exact case=no", "'exact' has no option 'case'; it has none", ""),
        ("json tolerance", "expected key=value at 'tolerance'", "JSON string"),
        ("json tolerance=-1", "tolerance: expected at least 0, got -1", ""),
        ("json tolerance=nan", "tolerance: expected at least 0, got nan", ""),
        ("json tolerance=much", "tolerance: expected a number, got the text 'much'", ""),
        ("json graded=maybe", "graded: expected true or false", ""),
        ("json graded=true graded=true", "'graded' is given twice", ""),
        ("text ignore=case,colour", "expected one of 'case', 'space', 'punctuation'", ""),
        ('regex pattern="a', "expected key=value at 'pattern=\"a'", "JSON string"),
        (r'regex pattern="\d"', "is no JSON string", ""),
        ("regex pattern=(", "'(' is no pattern", "Python's re"),
        ("sql", "check 'sql' needs database=...", ""),
        ("numeric take=first", "expected one of 'last', 'whole'", ""),
        ("code memory_mb=1", "expected between 64 and", ""),
        ("code sha256=" + "0" * 64, "sha256 is that of tests=FILE", ""),
        ("custom entry=nothing", "expected package.module:function", ""),
    ],
)
def test_check_named_refuses(text: str, says: str, hint: str) -> None:
    with pytest.raises(SettingsError) as info:
        check_named(text)
    assert says in info.value.what
    assert hint in (info.value.hint or "")


def test_describe_checks_knows_every_option() -> None:
    rows = describe_checks()
    assert {row["check"] for row in rows} == set(CHECKS) - {"exact"}  # which has none
    tolerance = next(r for r in rows if (r["check"], r["option"]) == ("json", "tolerance"))
    assert tolerance == {
        "check": "json", "option": "tolerance", "kind": "a number", "default": 0.0,
        "limits": "at least 0",
    }  # fmt: skip


def test_the_documents_name_every_option() -> None:
    page = Path(__file__).parents[3] / "docs" / "concepts" / "checks.md"
    if not page.exists():
        pytest.skip("the documents are not beside the tests")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| (.+?) \|", page.read_text("utf-8"), re.M)
    wanted = [(row["check"], row["option"], _default(row["default"])) for row in describe_checks()]
    assert [(word, option, default.strip("`")) for word, option, default, _ in rows] == wanted


def _default(value: Any) -> str:
    if not isinstance(value, str | tuple | int | float):
        return "needed"
    if isinstance(value, bool):
        return str(value).lower()
    return (",".join(value) if isinstance(value, tuple) else str(value)) or "none"


def test_every_check_tells_a_bad_answer_from_a_bad_reference(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (x)").connection.close()
    Path(tmp_path / "always_one.py").write_text("def harm(a, r): return None if not r else 1\n")
    cases: dict[str, tuple[str | None, str]] = {
        "exact": ("a", "a"), "text": ("a", "A"), "json": ("{}", "{}"),
        "tool_call": ('[{"name":"f","arguments":{}}]', '[{"name":"f","arguments":{}}]'),
        "sql database=a.db": ("SELECT 1", "SELECT 1.0"), "regex": ("aa", "a+"),
        "numeric": ("it is 2", "2.0"), "code": ("x = 1", "assert x == 1"),
        "custom entry=always_one:harm": (None, ""),
    }  # fmt: skip
    assert {check_word(name) for name in cases} == set(CHECKS)
    for name, (good, reference) in cases.items():
        check = check_named(name, tmp_path)
        if good is not None:
            assert check.harm(good, [reference]) == 0.0, name
        assert check.harm("", [reference]) == 1.0, name
        assert check.harm(None, [reference]) == 1.0, name
        assert check.harm("anything", []) is None, name


def test_a_pinned_file_is_named_by_content(tmp_path: Path) -> None:
    path = tmp_path / "tests.py"
    path.write_text("import math\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    check = check_named("code tests=tests.py", tmp_path)
    assert check.name == f"code tests=tests.py sha256={digest}"
    assert check_named(check.name, tmp_path) == check
    path.write_text("import cmath\n")
    with pytest.raises(SettingsError, match="is not the file that the check names") as info:
        check_named(check.name, tmp_path)
    assert "leave sha256 out" in (info.value.hint or "")
    with pytest.raises(ArtefactError, match="was changed while a check was using it"):
        check.harm("x = 1", ["assert x"])


def test_a_pinned_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        check_named("sql database=absent.db", tmp_path)
    path = tmp_path / "kept"
    path.write_bytes(b"x")
    pinned = PinnedFile.of(path)
    assert pinned.unchanged() == path
    os.remove(path)
    with pytest.raises(ArtefactError, match="was changed"):
        pinned.unchanged()


@pytest.mark.parametrize("check", ["json tolerance=0.01 unordered=items", r'regex pattern="a b"'])
def test_settings_take_a_check_with_options(tmp_path: Path, check: str) -> None:
    Path(tmp_path / "own.toml").write_text(f"[verdict.tickets]\ncheck = '{check}'\n")
    settings = load_settings(Project(tmp_path), env={})
    assert settings.verdict_of("tickets").check == check


@pytest.mark.parametrize("check", ["", "Json", "json tolerance", "json =1", 'regex pattern="a'])
def test_settings_refuse_what_names_no_check(tmp_path: Path, check: str) -> None:
    Path(tmp_path / "own.toml").write_text(f"[verdict.tickets]\ncheck = {json.dumps(check)}\n")
    with pytest.raises(SettingsError, match=r"own.toml:2.*expected a check and its options"):
        load_settings(Project(tmp_path), env={})


def test_reading_json_loads_no_other_check() -> None:
    code = (
        "import sys; import ownweights.verdict.checks;"
        "print(*{'sqlite3', 'scipy', 'ownweights.verdict.checks.code'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
