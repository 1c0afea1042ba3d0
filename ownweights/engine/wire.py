"""What is said between the engine process and those who ask it, and how it is framed.

    4 bytes, big-endian: the length of what follows · one msgpack value

Any number of asks may be under way on one connection; replies carry the ask's id. Invariant:
whatever is cut off, the reader sees whole frames or none (test_frames_always_survive_any_cut).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from ownweights.core.chat import Completion, CompletionChunk, Features, Usage
from ownweights.core.errors import (
    CompleterError,
    CompleterGarbled,
    ContextTooLong,
    Ineligible,
    OwnError,
)

HEAD_BYTES = 4
MAX_FRAME_BYTES = 64 << 20


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """Continue a conversation. Without `max_tokens` the model's window is the limit."""

    id: int
    student: str
    messages: list[dict[str, str]]
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    is_stream: bool = False


class Cancel(msgspec.Struct, tag="cancel", array_like=True):
    """Nobody waits for this ask any more."""

    id: int


class Piece(msgspec.Struct, tag="piece", array_like=True):
    """The next stretch of a streamed answer's text; the first says what was read, maybe no text."""

    id: int
    text: str
    prompt_tokens: int = 0
    prompt_state: bytes = b""


class Done(msgspec.Struct, tag="done", array_like=True):
    """An answer's end: all of its text, and what the model knew about it (little-endian arrays)."""

    id: int
    text: str
    finish_reason: str
    prompt_tokens: int
    token_ids: bytes
    logprobs: bytes
    margins: bytes
    prompt_state: bytes = b""


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """There is no answer; enough to raise the same error on the other side."""

    id: int
    kind: str
    what: str
    field: str = ""
    prompt_tokens: int = 0
    max_tokens: int = 0


Request = Ask | Cancel
Reply = Piece | Done | Failed
_ENCODER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(Request)
REPLIES = msgspec.msgpack.Decoder(Reply)


def frame(message: Request | Reply) -> bytes:
    """A message as it goes over the socket."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def frame_length(head: bytes | bytearray) -> int:
    """How many bytes follow this head.

    Raises: CompleterGarbled when no frame is that long
    """
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME_BYTES:
        raise CompleterGarbled(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return length


def take_frames(buffer: bytearray) -> Iterator[bytes]:
    """Remove and yield the whole frames at the start of a buffer."""
    while len(buffer) >= HEAD_BYTES:
        end = HEAD_BYTES + frame_length(buffer[:HEAD_BYTES])
        if len(buffer) < end:
            return
        body = bytes(buffer[HEAD_BYTES:end])
        del buffer[:end]
        yield body


def completion_of(done: Done, model: str) -> Completion:
    """The answer as a Completer returns it."""
    features = Features(
        np.frombuffer(done.token_ids, "<i4"),
        np.frombuffer(done.logprobs, "<f4"),
        np.frombuffer(done.margins, "<f4"),
        _state_of(done.prompt_state),
    )
    return Completion(
        text=done.text,
        finish_reason=done.finish_reason,
        model=model,
        usage=Usage(done.prompt_tokens, len(features.token_ids)),
        features=features,
        message={"role": "assistant", "content": done.text},
    )


def chunk_of(piece: Piece) -> CompletionChunk:
    """A piece as a Completer streams it; the first carries what is known before the answer is."""
    if not piece.prompt_state:
        return CompletionChunk(piece.text)
    nothing = np.zeros(0, np.float32)
    features = Features(np.zeros(0, np.int32), nothing, nothing, _state_of(piece.prompt_state))
    return CompletionChunk(piece.text, None, Usage(piece.prompt_tokens, 0), features=features)


def _state_of(state: bytes) -> np.ndarray | None:
    return np.frombuffer(state, "<f4") if state else None


def failure_of(ask_id: int, error: OwnError) -> Failed:
    """An error as a reply."""
    if isinstance(error, ContextTooLong):
        return Failed(
            ask_id, "context", error.what,
            prompt_tokens=error.prompt_tokens, max_tokens=error.max_tokens,
        )  # fmt: skip
    if isinstance(error, Ineligible):
        return Failed(ask_id, "ineligible", error.what, field=error.field)
    return Failed(ask_id, "error", str(error))


def error_of(failed: Failed) -> OwnError:
    """The error that a reply stands for."""
    if failed.kind == "context":
        return ContextTooLong(failed.prompt_tokens, failed.max_tokens)
    if failed.kind == "ineligible":
        return Ineligible(failed.field, failed.what)
    return CompleterError(failed.what)
