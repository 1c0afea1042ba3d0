"""Completers of the engine, in a child and in a thread: one contract, one behaviour."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk
from ownweights.core.errors import (
    CompleterError,
    CompleterTimeout,
    ContextTooLong,
    Ineligible,
    InputError,
)
from ownweights.engine.completer import EngineCompleter, Replies
from ownweights.engine.wire import Ask, Done, Piece
from ownweights.model.generate import generate
from ownweights.weights.student import load_student
from tests.core.completer_contract import CompleterCase, CompleterContract, collect
from tests.engine.conftest import NO_STUDENT, Served

REQUEST = ChatRequest.of([{"role": "user", "content": "Grüße"}], max_tokens=12)
LOGPROB_TOLERANCE = 1e-4


def ask_once(served: Served, request: ChatRequest, student: int | str = 0) -> Completion:
    name = served.students[student] if isinstance(student, int) else student
    completer = served.engine.completer(name)

    async def whole() -> Completion:
        try:
            return await completer.complete(request)
        finally:
            await completer.close()

    return asyncio.run(whole())


class TestEngineCompleter(CompleterContract):
    @pytest.fixture
    def case(self, served: Served) -> CompleterCase:
        student = load_student(served.project, served.students[0])
        prompt = student.template.render_prompt(REQUEST.messages)
        said = generate(student.model, prompt, max_tokens=12, end_ids=student.end_ids)
        ids = said.token_ids[:-1] if said.is_ended else said.token_ids
        return CompleterCase(
            make=lambda: served.engine.completer(served.students[0]),
            request=REQUEST,
            expected=student.tokenizer.decode(ids),
        )


def test_completion_says_what_the_naive_generator_would(served: Served) -> None:
    student = load_student(served.project, served.students[1])
    prompt = student.template.render_prompt(REQUEST.messages)
    expected = generate(student.model, prompt, max_tokens=12, end_ids=student.end_ids)
    found = ask_once(served, REQUEST, 1)
    assert found.features is not None
    assert found.features.token_ids.tolist() == expected.token_ids
    assert np.allclose(found.features.token_logprobs, expected.logprobs, atol=LOGPROB_TOLERANCE)
    assert np.allclose(found.features.margins, expected.margins, atol=LOGPROB_TOLERANCE)
    assert found.usage.prompt_tokens == len(prompt)
    assert found.model == served.students[1]


def test_stream_begins_with_the_state_of_the_prompt(served: Served) -> None:
    """Before any answer, and the same that the whole answer carries; later pieces are text."""
    completer = served.engine.completer(served.students[0])

    async def both() -> tuple[list[CompletionChunk], Completion]:
        chunks = await collect(completer.stream(REQUEST))
        completion = await completer.complete(REQUEST)
        await completer.close()
        return chunks, completion

    (first, *others), completion = asyncio.run(both())
    assert first.features is not None and first.usage is not None
    assert completion.features is not None
    state = completion.features.prompt_state
    assert state is not None and state.dtype == np.float32
    assert np.allclose(first.features.prompt_state, state, atol=LOGPROB_TOLERANCE)
    assert len(first.features.token_ids) == 0
    assert first.usage.prompt_tokens == completion.usage.prompt_tokens
    assert [chunk.features for chunk in others] == [None] * len(others)


def test_prompt_states_tell_prompts_apart(served: Served) -> None:
    other = ChatRequest.of([{"role": "user", "content": "something else"}], max_tokens=2)
    found = [ask_once(served, request).features for request in (REQUEST, other)]
    states = [one.prompt_state for one in found if one is not None]
    assert not np.allclose(states[0], states[1], atol=0.01)


def test_completer_raises_context_too_long(served: Served) -> None:
    request = ChatRequest.of([{"role": "user", "content": "x" * 100}])
    with pytest.raises(ContextTooLong) as refusal:
        ask_once(served, request)
    assert (refusal.value.prompt_tokens, refusal.value.max_tokens) == (104, 96)


@pytest.mark.parametrize(
    ("fields", "error"), [({"tools": [{}]}, Ineligible), ({"max_tokens": -1}, InputError)]
)
def test_completer_refuses_before_asking(
    served: Served, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask_once(served, REQUEST.with_fields(**fields))


def test_completer_says_why_a_student_is_missing(served: Served) -> None:
    with pytest.raises(CompleterError, match=f"student {NO_STUDENT} is not available: .*exist"):
        ask_once(served, REQUEST, NO_STUDENT)


def test_completer_works_in_one_event_loop_after_another(served: Served) -> None:
    completer = served.engine.completer(served.students[0])

    async def once() -> str | None:
        text = (await completer.complete(REQUEST)).text
        await completer.close()
        return text

    assert asyncio.run(once()) == asyncio.run(once())


def test_completer_answers_for_two_students_at_once(served: Served) -> None:
    completers = [served.engine.completer(student) for student in served.students]

    async def both() -> list[str | None]:
        found = await asyncio.gather(*(one.complete(REQUEST) for one in completers * 5))
        for one in completers:
            await one.close()
        return [completion.text for completion in found]

    texts = asyncio.run(both())
    assert len(set(texts[::2])) == len(set(texts[1::2])) == 1
    assert texts[0] != texts[1]


class FakeLink:
    """An engine that says what it is told to, and remembers what is asked of it."""

    def __init__(self, *replies: Piece | Done | None) -> None:
        self.replies = replies
        self.asked: list[Ask] = []
        self.cancelled: list[int] = []

    async def send(self, ask: Ask, replies: Replies) -> None:
        self.asked.append(ask)
        for reply in self.replies:
            replies.put_nowait(reply)

    async def cancel(self, ask_id: int) -> None:
        self.cancelled.append(ask_id)

    async def close(self) -> None:
        pass


class UnreachableLink(FakeLink):
    async def send(self, ask: Ask, replies: Replies) -> None:
        raise CompleterError("the engine cannot be reached")


DONE = Done(1, "hi", "stop", 3, b"", b"", b"")


def use(link: FakeLink, do: Any) -> Any:
    async def whole() -> Any:
        return await do(EngineCompleter(link, "s"))

    return asyncio.run(whole())


def test_completer_cancels_nothing_that_has_ended() -> None:
    link = FakeLink(Piece(1, "h"), DONE)
    use(link, lambda completer: completer.complete(REQUEST))
    use(link, lambda completer: collect(completer.stream(REQUEST)))
    assert link.cancelled == []
    assert [ask.is_stream for ask in link.asked] == [False, True]


def test_completer_cancels_what_nobody_waits_for() -> None:
    """A time-out, a cancelled task, an abandoned stream: each stops the engine's work."""

    async def time_out(completer: EngineCompleter) -> None:
        with pytest.raises(CompleterTimeout, match=r"no answer within 0\.0 s"):
            await completer.complete(REQUEST, timeout_s=0.0)

    async def cancel(completer: EngineCompleter) -> None:
        task = asyncio.ensure_future(completer.complete(REQUEST))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def abandon(completer: EngineCompleter) -> None:
        stream = completer.stream(REQUEST)
        assert (await anext(stream)).text == "h"
        await stream.aclose()  # pyright: ignore

    for do, replies in ((time_out, ()), (cancel, ()), (abandon, (Piece(1, "h"),))):
        link = FakeLink(*replies)
        use(link, do)
        assert link.cancelled == [1], do.__name__


def test_completer_fails_when_the_engine_dies() -> None:
    with pytest.raises(CompleterError, match="ended before it had answered") as failure:
        use(FakeLink(None), lambda completer: completer.complete(REQUEST))
    assert "stderr" in (failure.value.hint or "")
    with pytest.raises(CompleterError, match="ended before it had answered"):
        use(FakeLink(Piece(1, "h"), None), lambda c: collect(c.stream(REQUEST)))


def test_completer_passes_on_that_there_is_no_engine() -> None:
    with pytest.raises(CompleterError, match="cannot be reached"):
        use(UnreachableLink(), lambda completer: completer.complete(REQUEST))


def test_completer_numbers_its_asks() -> None:
    link = FakeLink(DONE)

    async def twice(completer: EngineCompleter) -> None:
        await completer.complete(REQUEST)
        await completer.complete(REQUEST)

    use(link, twice)
    assert [ask.id for ask in link.asked] == [1, 2]


def test_engine_client_needs_no_torch() -> None:
    code = (
        "import sys, ownweights.engine, ownweights.engine.client\n"
        "print([name for name in ('torch', 'tokenizers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
