"""Completers that do as they are told: they pass the contract of the real ones, and never sleep.

`ScriptedTeacher` answers from a script; `FlakyTeacher` wraps any Completer and fails on the calls
it is told to. Checked: tests/test_fakes.py, with tests/core/completer_contract.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk, Usage, check_chat_body
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, CompleterRefused, CompleterTimeout

Answer = str | Completion
Script = str | Mapping[str, Answer] | Callable[[ChatRequest], Answer]


def last_user_text(request: ChatRequest) -> str:
    """The text of the last user message, the key of a script that is a mapping."""
    for message in reversed(request.messages):
        if message.get("role") == "user" and isinstance(message.get("content"), str):
            return message["content"]
    return ""


class ScriptedTeacher:
    """Answers by a script: one text for all, a mapping from user text, or a function.

    `asked` holds every request in the order of asking; `is_closed` says whether `close` was called.
    With `is_stuck` it never answers, and only a time-out or a cancellation ends the wait.
    """

    def __init__(
        self, script: Script, *, model: str = "scripted", chunk_chars: int = 4,
        is_stuck: bool = False,
    ) -> None:  # fmt: skip
        self.script = script
        self.model = model
        self.chunk_chars = chunk_chars
        self.is_stuck = is_stuck
        self.asked: list[ChatRequest] = []
        self.is_closed = False

    async def __aenter__(self) -> ScriptedTeacher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        check_chat_body(request.body)
        self.asked.append(request)
        await self._wait(timeout_s)
        return self._answer(request)

    async def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        check_chat_body(request.body)
        self.asked.append(request)
        await self._wait(timeout_s)
        completion = self._answer(request)
        text = completion.text or ""
        for start in range(0, len(text), self.chunk_chars):
            yield CompletionChunk(text[start : start + self.chunk_chars])
            await asyncio.sleep(0)  # let the others run; no time passes
        yield CompletionChunk("", completion.finish_reason, completion.usage)

    async def close(self) -> None:
        self.is_closed = True

    async def _wait(self, timeout_s: float | None) -> None:
        if timeout_s is not None and timeout_s <= 0:
            raise CompleterTimeout(f"no answer within {timeout_s} s")
        if not self.is_stuck:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            raise CompleterTimeout(f"no answer within {timeout_s} s") from None

    def _answer(self, request: ChatRequest) -> Completion:
        answer = self._look_up(request)
        if isinstance(answer, Completion):
            return dataclasses.replace(answer, model=answer.model or self.model)
        prompt_tokens = sum(len(str(message.get("content"))) for message in request.messages)
        return Completion(
            text=answer,
            finish_reason="stop",
            model=self.model,
            usage=Usage(prompt_tokens, len(answer)),
            message={"role": "assistant", "content": answer},
        )

    def _look_up(self, request: ChatRequest) -> Answer:
        if isinstance(self.script, str):
            return self.script
        if isinstance(self.script, Mapping):
            answer = self.script.get(last_user_text(request))
            if answer is None:
                raise CompleterRefused("not in the script", status=404)
            return answer
        return self.script(request)


class FlakyTeacher:
    """Another Completer that fails by plan: call k raises `faults[k]`, unless that is None.

    After the plan it only passes on. With `after_chunks`, a stream breaks after that many pieces
    instead of before the first.
    """

    def __init__(
        self, inner: Completer, faults: Sequence[CompleterError | None], *, after_chunks: int = 0
    ) -> None:
        self.inner = inner
        self.faults = list(faults)
        self.after_chunks = after_chunks
        self.calls = 0

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        if fault := self._next_fault():
            raise fault
        return await self.inner.complete(request, timeout_s=timeout_s)

    async def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        fault, sent = self._next_fault(), 0
        if fault and not self.after_chunks:
            raise fault
        async for chunk in self.inner.stream(request, timeout_s=timeout_s):
            yield chunk
            sent += 1
            if fault and sent >= self.after_chunks:
                raise fault

    async def close(self) -> None:
        await self.inner.close()

    def _next_fault(self) -> CompleterError | None:
        index = self.calls
        self.calls += 1
        return self.faults[index] if index < len(self.faults) else None
