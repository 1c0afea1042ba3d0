"""What an endpoint can do, found with few questions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import CompleterError, CompleterRefused
from ownweights.teacher.probe import probe_endpoint
from tests.fakes import ScriptedTeacher


def answer(text: str = '{"hello": "world"}', **choice: Any) -> Completion:
    body = {"choices": [choice], "system_fingerprint": "fp-1"}
    return Completion(text, "stop", "rented-1", body=body)


def test_probe_needs_one_question_where_everything_is_taken() -> None:
    teacher = ScriptedTeacher(lambda request: answer(logprobs={"content": [{"token": "{"}]}))
    found = asyncio.run(probe_endpoint(teacher, "m"))
    assert (found.answered_by, found.fingerprint) == ("rented-1", "fp-1")
    assert (found.logprobs, found.seed, found.json) == (True, True, True)
    assert found.latency_s >= 0
    (asked,) = teacher.asked
    assert (asked.body["model"], asked.body["logprobs"], asked.body["seed"]) == ("m", True, 7)


def test_probe_sees_what_is_ignored() -> None:
    found = asyncio.run(probe_endpoint(ScriptedTeacher(lambda request: answer("hello")), "m"))
    assert (found.logprobs, found.seed, found.json) == (False, True, False)


def test_probe_tries_options_alone_where_all_are_refused() -> None:
    def refuse(request: ChatRequest) -> Completion:
        if "logprobs" in request.body:
            raise CompleterRefused("no logprobs here", status=400)
        if "seed" in request.body:
            raise CompleterError("gone for a moment")
        return answer()

    teacher = ScriptedTeacher(refuse)
    found = asyncio.run(probe_endpoint(teacher, "m"))
    assert (found.logprobs, found.seed, found.json) == (False, None, True)
    assert len(teacher.asked) == 5


@pytest.mark.parametrize("status", [400, 401, 500])
def test_probe_of_who_refuses_a_plain_request_raises(status: int) -> None:
    def refuse(request: ChatRequest) -> Completion:
        raise CompleterRefused("no", status=status)

    with pytest.raises(CompleterRefused):
        asyncio.run(probe_endpoint(ScriptedTeacher(refuse), "m"))
