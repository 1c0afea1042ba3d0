"""A teacher that answers from recorded traffic: an OpenAI-compatible server that rents nothing.

In: files of recorded requests with their answers (JSON lines, plain or gzip; also OpenAI
fine-tuning lines). Out: to a request it knows, a recorded answer; to any other, 404 `not_recorded`.
It says what it is: at `/`, in the header `x-own-teacher: replay`, and in `system_fingerprint`.

A request is known by messages, tools and response_format; model and sampling fields are ignored.
Invariants: several answers to one request come in turn, from a place the seed picks
(test_replay_cycles_answers_by_seed); streamed words join to the unstreamed answer
(test_replay_streamed_equals_unstreamed).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import canonical_json, hash_file
from ownweights.core.errors import InputError, UsageError
from ownweights.core.jsonl import Line, read_jsonl
from ownweights.teacher.asgi import (
    SSE_HEADERS,
    ClientGone,
    Headers,
    HttpError,
    Receive,
    Scope,
    Send,
    check_method,
    decode_json,
    read_body,
    run_lifespan,
    send_error,
    send_json,
)
from ownweights.teacher.serving import bind, serve
from ownweights.teacher.wire import chunk_events

MAX_BODY_BYTES = 64 * 2**20
MARK: Headers = [(b"x-own-teacher", b"replay")]
ABOUT = "A replay teacher: it answers with recorded answers only, and rents no model."


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One recorded answer: who gave it, the message, and why it ended."""

    model: str
    message: Mapping[str, Any]
    finish_reason: str
    usage: Mapping[str, Any] | None


def request_key(body: Mapping[str, Any]) -> bytes:
    """What makes two requests the same: messages, tools, response format."""
    messages = [_plain_message(message) for message in body["messages"]]
    named = {
        "messages": messages,
        "tools": body.get("tools") or None,
        "response_format": body.get("response_format"),
    }
    return hashlib.blake2b(canonical_json(named), digest_size=16).digest()


def _plain_message(message: Any) -> Any:
    """A message without null fields, its content as text where it is one text part."""
    if not isinstance(message, Mapping):
        return message
    plain = {name: value for name, value in message.items() if value is not None}
    parts = plain.get("content")
    if isinstance(parts, list) and len(parts) == 1:
        part = parts[0]
        if isinstance(part, Mapping) and part.get("type") == "text":
            plain["content"] = part.get("text")
    return plain


def read_exchange(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], RecordedAnswer]:
    """The request and the answer of one recorded line; InputError when it holds none."""
    if "request" not in value and isinstance(value.get("messages"), list):
        return _read_fine_tuning(value)
    request, response = value.get("request"), value.get("response")
    if not isinstance(request, Mapping) or not isinstance(request.get("messages"), list):
        raise InputError("no request with messages")
    try:
        choice = response["choices"][0]  # type: ignore[index]
        message, reason = dict(choice["message"]), choice.get("finish_reason")
    except (TypeError, KeyError, IndexError, ValueError):
        raise InputError("no response with a choice") from None
    assert isinstance(response, Mapping), "a response that was indexed by name is a mapping"
    model = str(response.get("model") or request.get("model") or "unknown")
    usage = response.get("usage")
    usage = usage if isinstance(usage, Mapping) else None
    return request, RecordedAnswer(model, _plain_answer(message), str(reason or "stop"), usage)


def _read_fine_tuning(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], RecordedAnswer]:
    *asked, answer = value["messages"] or [None]
    if not asked or not isinstance(answer, Mapping) or answer.get("role") != "assistant":
        raise InputError("no messages that end with an assistant's")
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    model = str(value.get("model") or "unknown")
    recorded = RecordedAnswer(model, _plain_answer(answer), reason, None)
    return {**value, "messages": asked}, recorded


def _plain_answer(message: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as the API gives it: its content one text or null, its tool calls objects."""
    content, calls = message.get("content"), message.get("tool_calls") or []
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise InputError("the answer's content is more than text")
        content = "".join(map(str, texts))
    if content is not None and not isinstance(content, str):
        raise InputError(f"the answer's content is a {type(content).__name__}, expected text")
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise InputError("the answer's tool_calls are no list of objects")
    return {**message, "content": content}


class ReplayTeacher:
    """Recorded answers by request; `skipped` counts the lines that held none, by reason."""

    def __init__(
        self, exchanges: Iterable[tuple[Mapping[str, Any], RecordedAnswer]], *, seed: int = 0
    ) -> None:
        self.seed = seed
        self.skipped: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.fingerprint = "replay-scripted"
        self._answers: dict[bytes, list[RecordedAnswer]] = {}
        self._asked: Counter[bytes] = Counter()
        for request, answer in exchanges:
            self.add(request, answer)

    @classmethod
    def load(cls, paths: Iterable[Path], *, seed: int = 0) -> ReplayTeacher:
        """All answers in recorded files; InputError when there is not one."""
        teacher, hashes = cls((), seed=seed), []
        for path in paths:
            for line in read_jsonl(path):
                teacher._add_line(line)
            hashes.append(hash_file(path))
        if not teacher.models:
            listing = ", ".join(f"{n} {why}" for why, n in teacher.skipped.items()) or "no lines"
            raise InputError(
                f"holds no recorded answer ({listing})",
                where=", ".join(map(str, paths)),
                hint='expected lines like {"request": {"messages": …}, "response": {"choices": …}}',
            )
        digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
        teacher.fingerprint = f"replay-{digest[:12]}"
        return teacher

    def _add_line(self, line: Line) -> None:
        if line.value is None:
            self.skipped[str(line.fault)] += 1
            return
        try:
            self.add(*read_exchange(line.value))
        except (InputError, ValueError):
            self.skipped["no_answer"] += 1

    def add(self, request: Mapping[str, Any], answer: RecordedAnswer) -> None:
        """Know one more answer to a request."""
        self._answers.setdefault(request_key(request), []).append(answer)
        self.models[answer.model] += 1

    @property
    def num_requests(self) -> int:
        """How many different requests it can answer."""
        return len(self._answers)

    def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The next recorded answer as a completion body; HttpError 404 when there is none."""
        if not isinstance(body.get("messages"), list):
            what = "'messages' must be a list of messages"
            raise HttpError(400, what, code="invalid_messages", param="messages")
        key = request_key(body)
        known = self._answers.get(key)
        if known is None:
            what = "this replay teacher has no recorded answer to that request"
            raise HttpError(404, what, code="not_recorded", param="messages")
        if body.get("n") not in (None, 1):
            raise HttpError(400, "a replay gives one choice", code="unsupported", param="n")
        start = int.from_bytes(hashlib.sha256(b"%d" % self.seed + key).digest()[:4], "big")
        turn, self._asked[key] = self._asked[key], self._asked[key] + 1
        return self._body(known[(start + turn) % len(known)], key, turn)

    def _body(self, answer: RecordedAnswer, key: bytes, turn: int) -> dict[str, Any]:
        message = {"refusal": None, "content": None, **answer.message}
        choice = {"index": 0, "message": message, "logprobs": None}
        body: dict[str, Any] = {
            "id": f"chatcmpl-replay-{key.hex()[:12]}-{turn}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answer.model,
            "system_fingerprint": self.fingerprint,
            "choices": [{**choice, "finish_reason": answer.finish_reason}],
        }
        return body if answer.usage is None else {**body, "usage": answer.usage}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app."""
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, _nothing, _nothing)
            return
        assert scope["type"] == "http", "websockets are switched off"
        try:
            await self._respond(scope, receive, send)
        except HttpError as error:
            await send_error(send, error, MARK)
        except ClientGone:
            return

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        pages: dict[str, Callable[[], Any]] = {"/": self._about, "/health": self._about,
                                               "/v1/models": self._models}  # fmt: skip
        wanted = "POST" if path == "/v1/chat/completions" else "GET"
        if path not in pages and wanted == "GET":
            raise HttpError(404, f"there is no {path} here", code="unknown_url")
        check_method(scope, wanted)
        if wanted == "GET":
            await send_json(send, 200, pages[path](), MARK)
            return
        body = decode_json(await read_body(receive, MAX_BODY_BYTES))
        answer = self.answer(body)
        if body.get("stream"):
            options = body.get("stream_options")
            wants_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
            await _send_stream(send, answer, wants_usage)
        else:
            await send_json(send, 200, answer, MARK)

    def _about(self) -> dict[str, Any]:
        return {
            "status": "ok", "teacher": "replay", "about": ABOUT, "requests": self.num_requests,
            "system_fingerprint": self.fingerprint, "seed": self.seed,
        }  # fmt: skip

    def _models(self) -> dict[str, Any]:
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "replay"}
            for name in sorted(self.models)
        ]
        return {"object": "list", "data": rows}


async def _nothing() -> None:
    return


async def _send_stream(send: Send, answer: Mapping[str, Any], wants_usage: bool) -> None:
    headers = [*SSE_HEADERS, *MARK]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in chunk_events(answer, include_usage=wants_usage):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def serve_replay(
    paths: Iterable[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    on_ready: Callable[[str, ReplayTeacher], None] = lambda url, teacher: None,
) -> None:
    """Answer from recorded files over HTTP until a signal; `on_ready` gets the address."""
    files = list(paths)
    if not files:
        raise UsageError("name at least one file of recorded traffic")
    listener = bind(host, port)
    try:
        teacher = ReplayTeacher.load(files, seed=seed)
        serve(teacher, listener, lambda url: on_ready(url, teacher))
    finally:
        listener.close()
