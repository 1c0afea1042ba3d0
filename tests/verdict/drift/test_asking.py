"""Asking many things at once: order, faults, and when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ownweights.core.chat import ChatRequest
from ownweights.core.errors import CompleterTimeout, ContextTooLong
from ownweights.verdict.drift.asking import GIVE_UP_AFTER, NOT_ASKED, Manner, Reply, ask_all
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text
from tests.verdict.drift.endpoints import down, failing


def requests(count: int) -> list[ChatRequest]:
    return [ChatRequest.of([{"role": "user", "content": f"q {i}"}], "m") for i in range(count)]


def echo() -> ScriptedTeacher:
    return ScriptedTeacher(lambda request: last_user_text(request).upper())


def ask(completer: object, count: int, manner: Manner | None = None) -> Sequence[Reply]:
    return asyncio.run(ask_all(completer, requests(count), manner or Manner()))  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_ask_all_keeps_the_order(concurrency: int) -> None:
    replies = ask(echo(), 20, Manner(concurrency=concurrency))
    assert [reply.text for reply in replies] == [f"Q {i}" for i in range(20)]
    assert {reply.fault for reply in replies} == {""}


def test_ask_all_keeps_faults_beside_answers() -> None:
    replies = ask(failing(echo(), [False, True, False]), 3, Manner(concurrency=1))
    assert [reply.text for reply in replies] == ["Q 0", None, "Q 2"]
    assert replies[1].fault == "the teacher answered 500: out of order"


def test_ask_all_gives_up_on_a_dead_endpoint() -> None:
    dead = down()
    replies = ask(dead, 100, Manner(concurrency=1))
    assert dead.calls == GIVE_UP_AFTER
    assert [reply.fault for reply in replies[GIVE_UP_AFTER:]] == [NOT_ASKED] * 90


def test_ask_all_goes_on_when_one_of_the_first_was_answered() -> None:
    flaky = failing(echo(), [True] * 9 + [False] + [True] * 50)
    replies = ask(flaky, 80, Manner(concurrency=1))
    assert flaky.calls == 80
    assert sum(reply.completion is not None for reply in replies) == 21


def test_ask_all_says_how_far_it_is() -> None:
    told: list[tuple[float, float | None, str]] = []
    manner = Manner(concurrency=2, on_progress=lambda *words: told.append(words))
    asyncio.run(ask_all(echo(), requests(5), manner, stage="look"))
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5]
    assert {(total, stage) for _, total, stage in told} == {(5, "look")}


def test_ask_all_times_each_answer() -> None:
    ticks = iter(range(100))
    manner = Manner(concurrency=1, stopwatch=lambda: float(next(ticks)))
    assert [reply.seconds for reply in ask(echo(), 3, manner)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("error", [ContextTooLong(9, 8), CompleterTimeout("no answer within 1 s")])
def test_ask_all_counts_every_refusal_as_no_answer(error: Exception) -> None:
    def refuse(request: ChatRequest) -> str:
        raise error

    (reply,) = ask(ScriptedTeacher(refuse), 1)
    assert reply.completion is None
    assert reply.fault == error.what  # type: ignore[attr-defined]


def test_ask_all_lets_a_defect_through() -> None:
    def broken(request: ChatRequest) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(ScriptedTeacher(broken), 1)


def test_ask_all_of_nothing_is_nothing() -> None:
    assert ask(FlakyTeacher(echo(), []), 0) == []
