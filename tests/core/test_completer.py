"""The protocol itself: what counts as a Completer."""

from __future__ import annotations

from ownweights.core.completer import Completer
from tests.fakes import FlakyTeacher, ScriptedTeacher


class _OnlyCompletes:
    async def complete(self, request: object) -> None: ...


def test_completer_is_known_by_its_methods() -> None:
    teacher = ScriptedTeacher("x")
    assert isinstance(teacher, Completer)
    assert isinstance(FlakyTeacher(teacher, []), Completer)


def test_completer_needs_every_method() -> None:
    assert not isinstance(_OnlyCompletes(), Completer)
