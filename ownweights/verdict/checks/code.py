"""Harm by tests: the answer is Python, run in a sandbox with the tests that the references hold.

    code timeout_s=10 memory_mb=512
    code tests=harness.py fence=true

Every reference is Python that tests the names an answer defines: assert statements, functions
named test*, unittest's classes; `tests` names a file that runs before them. The answer passes when
all of them do: references here are demands, not alternatives. Tests that hold no assertion,
that pass without any answer, or whose imports are missing prove nothing, and a request with none
but such cannot be judged. An answer that imports more than the standard library fails.

The sandbox: a process with limits on processor time, memory, file sizes; a new folder; the standard
library alone; killed with all it started when its time is up. On Linux the kernel also keeps it
from writing elsewhere, from sockets, and from starting processes (confined.py says how and how
far). Where it cannot, the check refuses to run anything, unless it is named with
isolation=partial, which its certificate then says. The answer shares a process with its tests: code
written to fool them can.
Invariants: an answer that ends the process has not passed (test_code_that_exits_has_not_passed).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

from ownweights.core.errors import SettingsError
from ownweights.core.strict import setting
from ownweights.verdict.checks.fence import unfenced
from ownweights.verdict.checks.named import NamedCheck, PinnedFile
from ownweights.verdict.checks.process import Bounds, Ran, run_confined

REMEMBERED = 4096  # tests whose worth is known


@dataclass(frozen=True, slots=True)
class CodeCheck(NamedCheck):
    """Whether an answer passes its tests."""

    word: ClassVar[str] = "code"
    tests: str = setting("")
    sha256: str = setting("", pattern=r"[0-9a-f]{64}|", pattern_says="64 hexadecimal digits")
    fence: bool = setting(False)
    timeout_s: float = setting(10.0, at_least=0, at_most=600, is_open=True)
    memory_mb: int = setting(512, at_least=64, at_most=1 << 20)
    isolation: str = setting("full", choices=("full", "partial"))
    file: PinnedFile | None = field(default=None, compare=False, repr=False)

    def sealed(self, folder: Path) -> Self:
        if not self.tests:
            if self.sha256:
                raise SettingsError(
                    "check 'code': sha256 is that of tests=FILE, which is not given"
                )
            return self
        file = PinnedFile.of(folder / self.tests, self.sha256)
        if not _parses(file.path.read_text("utf-8", "replace")):
            raise SettingsError(f"{file.path} is not Python")
        return replace(self, sha256=file.sha256, file=file)

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        shared = self.file.unchanged().read_text("utf-8") if self.file else ""
        texts = list(dict.fromkeys(references)) or ([""] if shared else [])
        demands = [self._demand(shared, text) for text in texts]
        known = [tests for tests in demands if tests is not None]
        if not known:
            return None
        program = unfenced(answer or "") if self.fence else answer or ""
        if not program.strip() or not _parses(program):
            return 1.0
        if not all(self._passes(program, tests) for tests in known):
            return 1.0
        return 0.0 if len(known) == len(demands) else None

    def _demand(self, shared: str, reference: str) -> str | None:
        """The tests of one reference; None for those that prove nothing."""
        tests = f"{shared}\n{reference}"
        if not _parses(reference) or not _can_fail(ast.parse(tests)):
            return None
        return tests if _alone(replace(self, file=None), tests) == "failed" else None

    def _passes(self, program: str, tests: str) -> bool:
        return self.run(program, tests).said == "passed"

    def run(self, program: str, tests: str) -> Ran:
        """Run a program with tests, whatever they are."""
        bounds = Bounds(self.timeout_s, self.memory_mb << 20, isolated=self.isolation)
        ran = run_confined({"job": "code", "answer": program, "tests": tests}, bounds)
        if ran.is_unconfined:
            missing = ", ".join(name for name, is_kept in ran.isolation.items() if not is_kept)
            raise SettingsError(
                f"this machine cannot keep the code of an answer from: {missing}",
                hint='Linux 5.13 or newer can; or accept it: check = "code isolation=partial"',
            )
        return ran


@lru_cache(REMEMBERED)
def _alone(check: CodeCheck, tests: str) -> str | None:
    """What tests say without an answer: only those that fail then can tell anything."""
    return check.run("", tests).said


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _can_fail(tests: ast.Module) -> bool:
    """Whether anything can say no (assert, raise, a method assert...), and all can be called."""
    asserts = any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr.startswith("assert"))
        for node in ast.walk(tests)
    )
    return asserts and not any(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test") and node.args.args
        for node in tests.body
    )
