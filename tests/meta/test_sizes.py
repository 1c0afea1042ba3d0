"""The size budget. An exception is named here with its reason, or the code gets smaller."""

from __future__ import annotations

import ast
import importlib

import pytest

from tests.meta.tree import (
    PACKAGES,
    SOURCE,
    TESTS,
    Function,
    count_lines,
    functions,
    source_trees,
)

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 500
MAX_PACKAGE_LINES = 3500
MAX_SOURCE_LINES = 60_000  # docs/design/0002-sizes.md
MAX_PLAIN_ARGUMENTS = 5
MAX_ARGUMENTS = 8
MAX_POSITIONAL_OF_MANY = 2
MAX_PUBLIC_NAMES = 20
MIN_TESTS_PER_SOURCE = 1.2

# path:function → why its arguments may be more
_READS_AS_A_SENTENCE = "the order of its nouns is the order of the loop"
ARGUMENT_EXCEPTIONS = {
    "verdict/decision.py:_verdict": "fields of the one value it builds",
    "verdict/run.py:run_verdict": _READS_AS_A_SENTENCE,
    "verdict/run.py:run_verdict_async": _READS_AS_A_SENTENCE,
    "verdict/statistics/fixed_sequence.py:expected_p_values": "parallel arrays, then the limits",
    "verdict/statistics/fixed_sequence.py:start_of_walk": "parallel arrays, then the limits",
    "verdict/statistics/fixed_sequence.py:walk_thresholds": "parallel arrays, then the limits",
}


def is_command(function: Function) -> bool:
    """Whether click calls it: then each argument is one flag of the command line."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("command", "group")
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
    )


def is_signature_too_wide(function: Function) -> bool:
    """More than five arguments must be keyword-only after two, and eight is the end."""
    given = function.args
    positional = [a.arg for a in [*given.posonlyargs, *given.args] if a.arg not in ("self", "cls")]
    count = len(positional) + len(given.kwonlyargs)
    if count <= MAX_PLAIN_ARGUMENTS:
        return False
    return count > MAX_ARGUMENTS or len(positional) > MAX_POSITIONAL_OF_MANY


def test_functions_are_short() -> None:
    long = [
        f"{name}:{function.lineno} {function.name}"
        for name, tree in source_trees().items()
        for function in functions(tree)
        if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_functions_take_few_arguments() -> None:
    wide = {
        f"{name}:{function.name}"
        for name, tree in source_trees().items()
        for function in functions(tree)
        if is_signature_too_wide(function) and not is_command(function)
    }
    assert wide == set(ARGUMENT_EXCEPTIONS)


def test_files_are_short() -> None:
    files = [path for folder in (SOURCE, TESTS) for path in folder.rglob("*.py")]
    assert [path.name for path in files if count_lines(path) > MAX_FILE_LINES] == []


def test_packages_are_small() -> None:
    """A package within a package is a room of its own (docs/design/0002-sizes.md)."""
    rooms = {path.parent for path in SOURCE.rglob("__init__.py")} - {SOURCE}
    lines = {str(room): sum(map(count_lines, room.glob("*.py"))) for room in rooms}
    assert {room: count for room, count in lines.items() if count > MAX_PACKAGE_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_exports_few_names_and_all_exist(package: str) -> None:
    module = importlib.import_module(f"ownweights.{package}")
    names: list[str] = getattr(module, "__all__", [])
    assert len(names) <= MAX_PUBLIC_NAMES
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_source_is_within_its_budget() -> None:
    assert sum(map(count_lines, SOURCE.rglob("*.py"))) <= MAX_SOURCE_LINES


def test_tests_outweigh_the_source() -> None:
    tests = sum(map(count_lines, TESTS.rglob("*.py")))
    source = sum(map(count_lines, SOURCE.rglob("*.py")))
    assert tests >= MIN_TESTS_PER_SOURCE * source, f"{tests} lines of tests for {source} of source"


def test_folders_are_the_packages() -> None:
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert folders == set(PACKAGES)


@pytest.mark.parametrize(
    ("signature", "is_wide"),
    [
        ("a, b, c, d, e", False),
        ("self, a, b, c, d, e", False),
        ("a, b, c, d, e, f", True),
        ("a, b, *, c, d, e, f, g, h", False),
        ("a, b, c, *, d, e, f", True),
        ("a, b, *, c, d, e, f, g, h, i", True),
    ],
)
def test_is_signature_too_wide_counts_as_stated(signature: str, is_wide: bool) -> None:
    (function,) = functions(ast.parse(f"def f({signature}): ..."))
    assert is_signature_too_wide(function) is is_wide
