"""The fakes pass the contract of real Completers, and fail as told."""

from __future__ import annotations

import asyncio

import pytest

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, CompleterRefused, CompleterTimeout
from tests.core.completer_contract import CompleterCase, CompleterContract, collect
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text

ASK = ChatRequest.of([{"role": "user", "content": "turn on the light"}])
ANSWER = '{"intent":"light_on"}'


class TestScriptedTeacher(CompleterContract):
    @pytest.fixture
    def case(self) -> CompleterCase:
        return CompleterCase(
            make=lambda: ScriptedTeacher({"turn on the light": ANSWER}),
            request=ASK,
            expected=ANSWER,
            make_stuck=lambda: ScriptedTeacher(ANSWER, is_stuck=True),
        )


class TestFlakyTeacherWithoutFaults(CompleterContract):
    @pytest.fixture
    def case(self) -> CompleterCase:
        return CompleterCase(
            make=lambda: FlakyTeacher(ScriptedTeacher(ANSWER), []),
            request=ASK,
            expected=ANSWER,
            make_stuck=lambda: FlakyTeacher(ScriptedTeacher(ANSWER, is_stuck=True), []),
        )


def complete(completer: Completer, request: ChatRequest = ASK) -> Completion:
    return asyncio.run(completer.complete(request))


def test_scripted_teacher_refuses_what_is_not_in_its_script() -> None:
    with pytest.raises(CompleterRefused, match="not in the script") as caught:
        complete(ScriptedTeacher({"something else": ANSWER}))
    assert caught.value.status == 404


def test_scripted_teacher_asks_a_function() -> None:
    teacher = ScriptedTeacher(lambda request: last_user_text(request).upper(), model="loud")
    completion = complete(teacher)
    assert (completion.text, completion.model) == ("TURN ON THE LIGHT", "loud")
    assert teacher.asked == [ASK]


def test_scripted_teacher_returns_a_whole_completion() -> None:
    wanted = Completion(None, "tool_calls", message={"role": "assistant", "tool_calls": []})
    assert complete(ScriptedTeacher({"turn on the light": wanted})).finish_reason == "tool_calls"


def test_scripted_teacher_knows_when_it_was_closed() -> None:
    async def use() -> ScriptedTeacher:
        async with ScriptedTeacher(ANSWER) as teacher:
            assert not teacher.is_closed
        return teacher

    assert asyncio.run(use()).is_closed


def test_last_user_text_is_empty_without_a_user() -> None:
    assert last_user_text(ChatRequest.of([{"role": "system", "content": "be brief"}])) == ""


def test_flaky_teacher_fails_by_plan_and_then_recovers() -> None:
    plan = [CompleterTimeout("slow"), None, CompleterRefused("busy", status=503)]
    teacher = FlakyTeacher(ScriptedTeacher(ANSWER), plan)
    with pytest.raises(CompleterTimeout):
        complete(teacher)
    assert complete(teacher).text == ANSWER
    with pytest.raises(CompleterRefused):
        complete(teacher)
    assert complete(teacher).text == ANSWER
    assert teacher.calls == 4


@pytest.mark.parametrize("after_chunks", [0, 2])
def test_flaky_teacher_breaks_a_stream_after_some_chunks(after_chunks: int) -> None:
    teacher = FlakyTeacher(
        ScriptedTeacher(ANSWER), [CompleterError("cut")], after_chunks=after_chunks
    )
    seen: list[str] = []

    async def use() -> None:
        async for chunk in teacher.stream(ASK):
            seen.append(chunk.text)

    with pytest.raises(CompleterError, match="cut"):
        asyncio.run(use())
    assert len(seen) == after_chunks
    assert "".join(chunk.text for chunk in asyncio.run(collect(teacher.stream(ASK)))) == ANSWER
