"""Frames on the socket: whole or not at all, and the same on both sides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.chat import CompletionChunk, Usage
from ownweights.core.errors import (
    CompleterError,
    CompleterGarbled,
    ContextTooLong,
    Ineligible,
    OwnError,
)
from ownweights.engine.wire import (
    HEAD_BYTES,
    MAX_FRAME_BYTES,
    REPLIES,
    REQUESTS,
    Ask,
    Cancel,
    Done,
    Failed,
    Piece,
    chunk_of,
    completion_of,
    error_of,
    failure_of,
    frame,
    frame_length,
    take_frames,
)

MESSAGES = [{"role": "user", "content": "Grüße 漢 \x00"}]


def done(text: str = "hi", ids: tuple[int, ...] = (7, 8, 2)) -> Done:
    return Done(
        id=3, text=text, finish_reason="stop", prompt_tokens=5,
        token_ids=np.array(ids, "<i4").tobytes(),
        logprobs=np.full(len(ids), -0.5, "<f4").tobytes(),
        margins=np.full(len(ids), 2.0, "<f4").tobytes(),
    )  # fmt: skip


@given(st.lists(st.text(max_size=9), max_size=5), st.lists(st.integers(0, 200), max_size=9))
def test_frames_always_survive_any_cut(texts: list[str], cuts: list[int]) -> None:
    sent = [Piece(index, text) for index, text in enumerate(texts)]
    stream = b"".join(frame(piece) for piece in sent)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    buffer, received = bytearray(), []
    for start, end in itertools.pairwise(bounds):
        buffer += stream[start:end]
        received += [REPLIES.decode(body) for body in take_frames(buffer)]
    assert received == sent
    assert not buffer


@pytest.mark.parametrize(
    "message",
    [
        Ask(1, "s", MESSAGES, max_tokens=3, temperature=0.5, seed=9, is_stream=True),
        Ask(2, "s", MESSAGES),
        Cancel(1),
    ],
)
def test_requests_arrive_as_they_were_sent(message: Ask | Cancel) -> None:
    assert REQUESTS.decode(frame(message)[HEAD_BYTES:]) == message


def test_frame_refuses_an_absurd_length() -> None:
    head = (MAX_FRAME_BYTES + 1).to_bytes(HEAD_BYTES, "big")
    with pytest.raises(CompleterGarbled, match="at most 67108864 are allowed"):
        frame_length(head)


def test_prompt_state_survives_the_wire() -> None:
    state = np.linspace(-2, 2, 8, dtype="<f4")
    sent = done()
    sent.prompt_state = state.tobytes()
    whole = completion_of(REPLIES.decode(frame(sent)[HEAD_BYTES:]), "student")
    piece = REPLIES.decode(frame(Piece(3, "", 5, state.tobytes()))[HEAD_BYTES:])
    chunk = chunk_of(piece)
    for features in (whole.features, chunk.features):
        assert features is not None and features.prompt_state is not None
        assert features.prompt_state.tolist() == state.tolist()
    assert (chunk.text, chunk.usage, chunk.finish_reason) == ("", Usage(5, 0), None)
    assert chunk_of(Piece(3, "hi")) == CompletionChunk("hi")


def test_completion_of_an_engine_without_states_has_none() -> None:
    features = completion_of(done(), "student").features
    assert features is not None
    assert features.prompt_state is None


def test_completion_of_carries_everything() -> None:
    completion = completion_of(done(), "student")
    assert (completion.text, completion.finish_reason, completion.model) == (
        "hi",
        "stop",
        "student",
    )
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 3)
    assert completion.message == {"role": "assistant", "content": "hi"}
    features = completion.features
    assert features is not None
    assert features.token_ids.tolist() == [7, 8, 2]
    assert features.token_logprobs.dtype == features.margins.dtype == np.float32
    assert features.margins.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ContextTooLong(99, 96), ContextTooLong),
        (Ineligible("tools", "no tools"), Ineligible),
        (CompleterError("broken", hint="mend it"), CompleterError),
    ],
)
def test_error_of_is_the_error_that_was_raised(error: OwnError, kind: type[OwnError]) -> None:
    body = frame(failure_of(4, error))[HEAD_BYTES:]
    reply = REPLIES.decode(body)
    assert isinstance(reply, Failed) and reply.id == 4
    found = error_of(reply)
    assert type(found) is kind
    assert str(found) == str(error)
    assert getattr(found, "field", None) == getattr(error, "field", None)
    assert getattr(found, "prompt_tokens", None) == getattr(error, "prompt_tokens", None)
