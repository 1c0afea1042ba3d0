"""A rented model behind OpenAI's chat API, Azure's or Anthropic's, as a Completer.

In: ChatRequests. Out: Completions, or a CompleterError that says what the endpoint did. Errors that
may pass (no connection, 408, 409, 429, 5xx) are tried again within the time allowed, never after
the first streamed piece. Invariants: the key comes from the caller or the environment and appears
in no message (test_client_error_hides_the_key); nothing but CompleterError and InputError leaves
(test_client_garbage_is_garbled).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk, check_chat_body
from ownweights.core.errors import (
    CompleterError,
    CompleterGarbled,
    CompleterRefused,
    CompleterTimeout,
    SettingsError,
)
from ownweights.core.strict import key_text
from ownweights.teacher.dialect import ANTHROPIC_VERSION, chat_answer, messages_request
from ownweights.teacher.kinds import Kind
from ownweights.teacher.sse import DONE, SseDecoder
from ownweights.teacher.wire import parse_completion, parse_usage

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_RETRIES = 2
MAX_ANSWER_BYTES = 64 * 2**20
MAX_WAIT_S = 30.0  # the longest `retry-after` that is waited for
_PASSING = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_SHOWN_CHARS = 300


class TeacherClient:
    """An OpenAI-compatible endpoint; `model` and `api_key` are used where given.

    `base_url` goes up to and with `/v1`. Use it in one event loop.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_MAX_RETRIES,
        kind: Kind | None = None,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._kind = kind or Kind()
        self._pause = pause
        self._http: httpx.AsyncClient | None = None

    @classmethod
    def from_env(cls, base_url: str, *, key_env: str = "", **options: Any) -> TeacherClient:
        """A client whose key is in the environment variable `key_env`, if one is named."""
        key = key_text(key_env, os.environ.get(key_env)) if key_env else None
        if key_env and not key:
            raise SettingsError(
                f"the teacher's key_env names {key_env}, which is not set",
                hint=f"export {key_env}=…",
            )
        return cls(base_url, api_key=key, **options)

    def __repr__(self) -> str:
        return f"TeacherClient({self.base_url!r}, model={self.model!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    async def close(self) -> None:
        """Let go of every connection."""
        client, self._http = self._http, None
        if client is not None:
            await client.aclose()

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        """The teacher's whole answer."""
        body = self._body(request, is_stream=False)
        give_up_s = self._give_up_at(timeout_s)
        url = self._answer_url(request)
        async with self._answered(url, body, give_up_s) as response:
            content = await self._read(response, give_up_s)
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = _decode(content)
        if self._kind.speaks_messages:
            answer = chat_answer(answer, created=int(time.time()))
        return replace(parse_completion(answer), headers=headers)

    async def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        """The teacher's answer as it comes; the time allowed is for all of it."""
        if self._kind.speaks_messages:  # its answer as one piece
            done = await self.complete(request, timeout_s=timeout_s)
            yield CompletionChunk(done.text or "", done.finish_reason, done.usage)
            return
        body = self._body(request, is_stream=True)
        url, give_up_s = self._answer_url(request), self._give_up_at(timeout_s)
        async with (
            self._answered(url, body, give_up_s) as response,
            contextlib.aclosing(_chunks(self._payloads(response, give_up_s))) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def models(self, *, timeout_s: float | None = None) -> list[str]:
        """The models that the endpoint says it has."""
        give_up_s = self._give_up_at(timeout_s)
        url = self._kind.url(self.base_url, "/models", "")
        async with self._answered(url, None, give_up_s) as response:
            listed = _decode(await self._read(response, give_up_s))
        rows = listed.get("data") if isinstance(listed, Mapping) else None
        if not isinstance(rows, list):
            raise CompleterGarbled("the list of models has no 'data'")
        return [str(row["id"]) for row in rows if isinstance(row, Mapping) and "id" in row]

    def _give_up_at(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

    def _body(self, request: ChatRequest, *, is_stream: bool) -> bytes:
        check_chat_body(request.body)
        body = {**request.body, "stream": is_stream}
        if self.model:
            body["model"] = self.model
        if not is_stream:
            body.pop("stream_options", None)
        if self._kind.speaks_messages:
            del body["stream"]
            body = messages_request(body, max_tokens=self._kind.max_tokens).body
        return msgspec.json.encode(body)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            headers = {"content-type": "application/json"}
            if self._api_key:
                headers |= dict([self._kind.key_header(self._api_key)])
            if self._kind.speaks_messages:
                headers["anthropic-version"] = ANTHROPIC_VERSION
            self._http = httpx.AsyncClient(
                headers=headers, timeout=None,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )  # fmt: skip
        return self._http

    @contextlib.asynccontextmanager
    async def _answered(
        self, url: str, body: bytes | None, give_up_s: float
    ) -> AsyncGenerator[httpx.Response, None]:
        """A successful answer's head, after as many tries as are allowed."""
        attempt = 0
        while True:
            told = ""
            try:
                response = await self._ask(url, body, give_up_s)
                if response.is_success:
                    break
                told = response.headers.get("retry-after", "")
                failure: CompleterError = await self._refusal(response, give_up_s)
            except CompleterError as error:
                failure = error
            wait_s = _wait_s(told, attempt)
            is_last = attempt >= self._max_retries or time.monotonic() + wait_s >= give_up_s
            if is_last or not _may_pass(failure):
                raise failure
            attempt += 1
            await self._pause(wait_s)
        try:
            yield response
        finally:
            await response.aclose()

    async def _ask(self, url: str, body: bytes | None, give_up_s: float) -> httpx.Response:
        client, kind = self._client(), "GET" if body is None else "POST"
        async with self._in_time(give_up_s):
            try:
                request = client.build_request(kind, url, content=body)
            except httpx.InvalidURL as error:
                raise CompleterError(f"{self.base_url!r} is not an address: {error}") from None
            return await client.send(request, stream=True)

    def _answer_url(self, request: ChatRequest) -> str:
        model = self.model or request.model
        return self._kind.url(self.base_url, self._kind.answer_path, model)

    async def _refusal(self, response: httpx.Response, give_up_s: float) -> CompleterRefused:
        """What an endpoint said when it refused, without the key."""
        async with contextlib.aclosing(response):
            content = await self._read(response, give_up_s)
        what = f"the teacher answered {response.status_code}"
        with contextlib.suppress(CompleterGarbled):
            what += f": {_said(_decode(content))}"
        what = what.replace(self._api_key, "***") if self._api_key else what
        return CompleterRefused(what, status=response.status_code, body=content)

    @contextlib.asynccontextmanager
    async def _in_time(self, give_up_s: float) -> AsyncGenerator[None, None]:
        """Say what the connection did, in errors of ours."""
        try:
            async with asyncio.timeout(give_up_s - time.monotonic()):
                yield
        except CompleterError:
            raise
        except (TimeoutError, httpx.TimeoutException):
            raise CompleterTimeout("the teacher did not answer in time") from None
        except (httpx.RemoteProtocolError, httpx.DecodingError):
            raise CompleterGarbled("the teacher's answer broke off or is not HTTP") from None
        except (httpx.HTTPError, OSError) as error:
            what = f"the teacher at {self.base_url} cannot be reached: {type(error).__name__}"
            raise CompleterError(what, hint="is it running, and is base_url right?") from None

    async def _read(self, response: httpx.Response, give_up_s: float) -> bytes:
        parts = [part async for part in self._parts(response, give_up_s)]
        return b"".join(parts)

    async def _parts(
        self, response: httpx.Response, give_up_s: float
    ) -> AsyncGenerator[bytes, None]:
        size, parts = 0, response.aiter_bytes()
        while True:
            async with self._in_time(give_up_s):
                part = await anext(parts, None)
            if part is None:
                return
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise CompleterGarbled(f"the teacher's answer is longer than {MAX_ANSWER_BYTES} B")
            yield part

    async def _payloads(
        self, response: httpx.Response, give_up_s: float
    ) -> AsyncGenerator[bytes, None]:
        decoder = SseDecoder()
        async with contextlib.aclosing(self._parts(response, give_up_s)) as parts:
            async for part in parts:
                for payload in decoder.feed(part):
                    yield payload


async def _chunks(
    payloads: AsyncGenerator[bytes, None],
) -> AsyncGenerator[CompletionChunk, None]:
    """Chunks of a stream's first choice; the last one, with its end, is held for the usage."""
    last: CompletionChunk | None = None
    is_done = False
    async with contextlib.aclosing(payloads):
        async for payload in payloads:
            if payload == DONE:
                is_done = True
                break
            chunk = _chunk(payload)
            if last is None and chunk.finish_reason is None:
                yield chunk
            elif last is None:
                last = chunk
            elif chunk.usage is not None:
                last = replace(last, usage=chunk.usage)
    if last is None:
        end = "[DONE]" if is_done else "the connection's end"
        raise CompleterGarbled(f"the stream came to {end} without a finish_reason")
    yield last


def _chunk(payload: bytes) -> CompletionChunk:
    event = _decode(payload)
    if not isinstance(event, Mapping):
        raise CompleterGarbled("a stream event is not a JSON object")
    if event.get("error"):
        raise CompleterRefused(f"the teacher ended the stream: {_said(event)}", status=200)
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise CompleterGarbled("a stream event has no 'choices'")
    usage, raw = parse_usage(event.get("usage")), b"data: " + payload + b"\n\n"
    for choice in choices:
        if isinstance(choice, Mapping) and choice.get("index", 0) == 0:
            delta, reason = choice.get("delta"), choice.get("finish_reason")
            text = delta.get("content") if isinstance(delta, Mapping) else None
            end = reason if isinstance(reason, str) else None
            return CompletionChunk(text if isinstance(text, str) else "", end, usage, raw)
    return CompletionChunk("", None, usage, raw)


def _decode(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        raise CompleterGarbled("the teacher's answer is not JSON in UTF-8") from None


def _said(body: Any) -> str:
    """The message of an error body, shortened."""
    error = body.get("error") if isinstance(body, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else error
    return str(message)[:_SHOWN_CHARS] if message else "no message"


def _may_pass(error: CompleterError) -> bool:
    if isinstance(error, CompleterRefused):
        return error.status in _PASSING
    return not isinstance(error, CompleterTimeout)


def _wait_s(told: str, attempt: int) -> float:
    """How long to wait before the next try: as told, else doubling with chance."""
    with contextlib.suppress(ValueError):
        seconds = float(told)
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MAX_WAIT_S)
    return 0.5 * 2**attempt * random.uniform(0.75, 1.25)
