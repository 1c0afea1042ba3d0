"""What stands in the tree: nothing unfinished, no paths of one machine, no empty names."""

from __future__ import annotations

import ast
import re
from pathlib import PurePosixPath

import pytest

from ownweights.core.errors import OwnError
from tests.meta.tree import ROOT, TESTS, kept_files, source_trees, text_files, text_of_tests

# Spelled in parts, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
PRIVATE = re.compile(
    r"(?<![\w.])/(work|root|home|Users)/\w|\bwork"
    r"place\b|\b(SP"
    r"EC|DES"
    r"IGN|STY"
    r"LE)\.md\b"
)
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
NAMED_TEST = re.compile(r"\btest_\w+\*?")
MAX_BYTES = 1_000_000
LARGE_FILES = re.compile(r"^ownweights/base/.+\.safetensors$|^ownweights/.+/seedling/.+")


@pytest.mark.parametrize(("what", "pattern"), [("unfinished", UNFINISHED), ("private", PRIVATE)])
def test_text_holds_nothing(what: str, pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in text_files()
        for number, line in enumerate(text.split("\n"), start=1)
        if pattern.search(line)
    ]
    assert found == [], f"{what} words"


def test_file_names_say_something() -> None:
    assert [name for name in kept_files() if PurePosixPath(name).stem in EMPTY_NAMES] == []


def test_large_files_are_weights() -> None:
    large = [name for name in kept_files() if (ROOT / name).stat().st_size > MAX_BYTES]
    assert [name for name in large if not LARGE_FILES.match(name)] == []


def test_every_module_has_a_docstring() -> None:
    silent = [
        name for name, tree in source_trees().items() if tree.body and not ast.get_docstring(tree)
    ]
    assert silent == []


def test_every_test_named_in_a_docstring_exists() -> None:
    defined = set(re.findall(r"def (test_\w+)", text_of_tests()))
    files = {path.stem for path in TESTS.rglob("test_*.py")}
    missing = [
        f"{name}: {word}"
        for name, tree in source_trees().items()
        for word in NAMED_TEST.findall(ast.get_docstring(tree) or "")
        if word not in defined | files
        and not (word.endswith("*") and any(d.startswith(word[:-1]) for d in defined))
        and word != "test_data"
    ]
    assert missing == []


def error_classes() -> set[str]:
    """Names of all errors that derive from OwnError, and have no error below them."""
    parents: dict[str, set[str]] = {}
    for tree in source_trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                parents[node.name] = {b.id for b in node.bases if isinstance(b, ast.Name)}
    ours = {OwnError.__name__}
    while more := {name for name, above in parents.items() if above & ours} - ours:
        ours |= more
    return {name for name in ours if not any(name in above for above in parents.values())}


def test_every_error_is_provoked_by_a_test() -> None:
    tests = "\n".join(
        path.read_text("utf-8") for path in TESTS.rglob("*.py") if path.name != "test_errors.py"
    )
    silent = {name for name in error_classes() if not re.search(rf"\b{name}\b", tests)}
    assert silent == set()


def test_every_error_is_raised_somewhere() -> None:
    names = {
        node.func.id
        for tree in source_trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert error_classes() - names == set()
