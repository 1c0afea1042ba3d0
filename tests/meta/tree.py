"""The project's own files, as the tests in this folder read them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "ownweights"
TESTS = ROOT / "tests"
PACKAGES = (
    "core", "lineage", "teacher", "traffic", "dataset", "model", "weights", "student", "engine",
    "verdict", "route", "gateway", "cli",
)  # fmt: skip
WITH_TORCH = ("model", "weights", "student", "engine")
TEXT_ENDINGS = (".py", ".md", ".toml", ".txt", ".html", ".c", "Makefile", "run")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def kept_files() -> tuple[str, ...]:
    """Every file of the project that git keeps or would keep, as a path from its root."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return tuple(sorted(name for name in set(done.stdout.split("\n")) if (ROOT / name).is_file()))


def text_files() -> Iterator[tuple[str, str]]:
    """(path, text) of the files that people write."""
    for name in kept_files():
        if name.endswith(TEXT_ENDINGS) and name != "LICENSE":
            yield name, (ROOT / name).read_text("utf-8")


@cache
def source_trees() -> dict[str, ast.Module]:
    """Path from `ownweights/` → syntax tree, of every module."""
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def count_lines(path: Path) -> int:
    """Lines of a text file."""
    return path.read_text("utf-8").count("\n")


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


@cache
def text_of_tests() -> str:
    """All test files in one text."""
    return "\n".join(path.read_text("utf-8") for path in sorted(TESTS.rglob("*.py")))
