"""What every Completer does, as tests: subclass `CompleterContract` in a test file and give `case`.

    class TestTeacherClient(CompleterContract):
        @pytest.fixture
        def case(self, replay_url):
            return CompleterCase(make=lambda: TeacherClient(replay_url), request=REQUEST)

`make` is called inside a running event loop, once a test, and must return a new Completer that has
not yet been used; whatever it talks to belongs in the fixture.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterRefused, CompleterTimeout, Ineligible, InputError

T = TypeVar("T")

FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
CALLS_AT_ONCE = 8
# Shorter than any real answer takes and longer than nothing: the clock is asked, nobody waits.
NO_TIME_S = 1e-6


@dataclass(frozen=True)
class CompleterCase:
    """How to get a Completer, and a request that it answers the same way every time.

    `expected` is the answer's text where it is known. `make_stuck` gives a Completer whose upstream
    does not answer; without it the time-out tests ask `make`'s for an answer within a microsecond.
    """

    make: Callable[[], Completer]
    request: ChatRequest
    expected: str | None = None
    make_stuck: Callable[[], Completer] | None = None


async def collect(stream: AsyncIterator[CompletionChunk]) -> list[CompletionChunk]:
    """Every piece of a streamed answer."""
    return [chunk async for chunk in stream]


def run(make: Callable[[], Completer], use: Callable[[Completer], Awaitable[T]]) -> T:
    """What `use` makes of a fresh Completer, which is closed afterwards."""

    async def whole() -> T:
        completer = make()
        try:
            return await use(completer)
        finally:
            await completer.close()

    return asyncio.run(whole())


class CompleterContract:
    """The contract; a subclass whose name starts with `Test` runs it."""

    def test_completer_satisfies_the_protocol(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> bool:
            return isinstance(completer, Completer)

        assert run(case.make, use)

    def test_complete_returns_the_answer(self, case: CompleterCase) -> None:
        completion = run(case.make, lambda completer: completer.complete(case.request))
        assert isinstance(completion, Completion)
        assert isinstance(completion.text, str)
        assert completion.finish_reason in FINISH_REASONS
        if case.expected is not None:
            assert completion.text == case.expected

    def test_complete_features_agree_in_length(self, case: CompleterCase) -> None:
        features = run(case.make, lambda completer: completer.complete(case.request)).features
        if features is None:
            return  # a Completer need not know how sure it was
        count = len(features.token_ids)
        assert features.token_logprobs.shape == features.margins.shape == (count,)
        assert np.all(features.token_logprobs <= 0)
        assert not np.any(np.isnan(features.margins))

    def test_stream_joined_equals_complete(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> tuple[Completion, list[CompletionChunk]]:
            completion = await completer.complete(case.request)
            return completion, await collect(completer.stream(case.request))

        completion, chunks = run(case.make, use)
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert chunks[-1].finish_reason == completion.finish_reason

    def test_stream_says_its_end_only_in_the_last_chunk(self, case: CompleterCase) -> None:
        chunks = run(case.make, lambda completer: collect(completer.stream(case.request)))
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].finish_reason in FINISH_REASONS

    def test_completer_answers_concurrent_calls_alike(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> list[str | None]:
            calls = [completer.complete(case.request) for _ in range(CALLS_AT_ONCE)]
            return [completion.text for completion in await asyncio.gather(*calls)]

        texts = run(case.make, use)
        assert len(texts) == CALLS_AT_ONCE
        assert set(texts) == {texts[0]}

    def test_completer_mixes_streams_and_completes(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> tuple[Completion, list[CompletionChunk]]:
            return await asyncio.gather(
                completer.complete(case.request), collect(completer.stream(case.request))
            )

        completion, chunks = run(case.make, use)
        assert "".join(chunk.text for chunk in chunks) == completion.text

    def test_completer_leaves_the_request_unchanged(self, case: CompleterCase) -> None:
        before = copy.deepcopy(dict(case.request.body))
        run(case.make, lambda completer: completer.complete(case.request))
        assert case.request.body == before

    def test_completer_survives_an_abandoned_stream(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> str | None:
            stream = completer.stream(case.request)
            async for _ in stream:
                break
            await stream.aclose()  # pyright: ignore
            return (await completer.complete(case.request)).text

        text = run(case.make, use)
        assert text == run(case.make, lambda completer: completer.complete(case.request)).text

    def test_completer_survives_a_cancelled_call(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> str | None:
            call = asyncio.ensure_future(completer.complete(case.request))
            await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            return (await completer.complete(case.request)).text

        assert isinstance(run(case.make, use), str)

    def test_complete_raises_on_time_out(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> None:
            await completer.complete(case.request, timeout_s=NO_TIME_S)

        with pytest.raises(CompleterTimeout):
            run(case.make_stuck or case.make, use)

    def test_stream_raises_on_time_out(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> None:
            await collect(completer.stream(case.request, timeout_s=NO_TIME_S))

        with pytest.raises(CompleterTimeout):
            run(case.make_stuck or case.make, use)

    def test_completer_answers_after_a_time_out(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> str | None:
            with contextlib.suppress(CompleterTimeout):
                await completer.complete(case.request, timeout_s=NO_TIME_S)
            return (await completer.complete(case.request)).text

        assert isinstance(run(case.make, use), str)

    def test_complete_refuses_a_request_without_messages(self, case: CompleterCase) -> None:
        bad = ChatRequest({"model": "m", "messages": []})
        with pytest.raises((InputError, CompleterRefused, Ineligible)):
            run(case.make, lambda completer: completer.complete(bad))

    def test_stream_refuses_a_request_without_messages(self, case: CompleterCase) -> None:
        bad = ChatRequest({"model": "m", "messages": []})
        with pytest.raises((InputError, CompleterRefused, Ineligible)):
            run(case.make, lambda completer: collect(completer.stream(bad)))

    def test_close_may_be_called_twice(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> str | None:
            text = (await completer.complete(case.request)).text
            await completer.close()
            return text

        assert isinstance(run(case.make, use), str)  # `run` closes again

    def test_close_is_allowed_before_any_call(self, case: CompleterCase) -> None:
        async def use(completer: Completer) -> bool:
            return (await completer.close()) is None

        assert run(case.make, use)
