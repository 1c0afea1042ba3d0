"""The words of a chat: a request as it was asked, a completion as it was answered.

A `ChatRequest` keeps the caller's decoded JSON whole (unknown fields included), because the gateway
must pass it on unchanged; typed views are properties. A `Completion` is what any Completer returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ownweights.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, slots=True)
class Features:
    """What the model knew about its own answer, so that confidence needs no torch.

    Shapes:  token_ids (T,) int32, token_logprobs (T,) float32 of the chosen tokens from the
             unmodified distribution, margins (T,) float32 best minus second-best logprob;
             the end token's are included when the model produced it;
             prompt_state (E,) float32, the prompt's last hidden state after the final norm
    """

    token_ids: np.ndarray
    token_logprobs: np.ndarray
    margins: np.ndarray
    prompt_state: np.ndarray | None = None  # known before the first token is
    agreement: float | None = None  # share of further answers, sampled, that say the same


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One OpenAI chat-completions request; `body` is the caller's JSON, never changed in place."""

    body: Mapping[str, Any]

    @classmethod
    def of(
        cls, messages: Sequence[Mapping[str, Any]], model: str = "", **fields: Any
    ) -> ChatRequest:
        """A request from messages, checked."""
        return cls.checked({"model": model, "messages": list(messages), **fields})

    @classmethod
    def checked(cls, body: Any, *, where: str = "request") -> ChatRequest:
        """The request in `body`, or an InputError that names the field which is wrong."""
        check_chat_body(body, where=where)
        return cls(body)

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        return self.body["messages"]

    @property
    def model(self) -> str:
        return self.body.get("model") or ""

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))

    def with_fields(self, **fields: Any) -> ChatRequest:
        """The same request with some top-level fields replaced."""
        return ChatRequest({**self.body, **fields})


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `text` is None when the message has none (a tool call); `message` is whole."""

    text: str | None
    finish_reason: str
    model: str = ""
    usage: Usage = Usage()
    features: Features | None = None
    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None  # the upstream's JSON as it came, where there was one
    headers: Mapping[str, str] = field(default_factory=dict)  # of its HTTP answer, in lower case


@dataclass(frozen=True, slots=True)
class CompletionChunk:
    """One piece of a streamed answer; the last carries `finish_reason` (and `usage` if known).

    The first may carry what is known before the answer is: in `features` the prompt's state, in
    `usage` the prompt's length; its text may be empty.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    raw: bytes | None = None  # the upstream's own SSE event, for byte-exact forwarding
    features: Features | None = None


def check_chat_body(body: Any, *, where: str = "request") -> None:
    """Raise InputError unless `body` is a chat request: a JSON object with well-formed messages."""
    if not isinstance(body, Mapping):
        raise InputError(f"expected a JSON object, got {type(body).__name__}", where=where)
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError("'messages' must be a non-empty list", where=where)
    for index, message in enumerate(messages):
        _check_message(message, f"{where}.messages[{index}]")


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, Mapping):
        raise InputError(f"expected an object, got {type(message).__name__}", where=where)
    role = message.get("role")
    if role not in ROLES:
        raise InputError(f"role {role!r} is not one of {', '.join(ROLES)}", where=where)
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise InputError("content must be text, null, or a list of content parts", where=where)
