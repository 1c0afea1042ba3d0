"""Who can answer: the protocol that a rented endpoint, our engine and the tests' fakes all satisfy.

    async with completer: await completer.complete(ChatRequest) -> Completion

Errors are CompleterError and its leaves, ContextTooLong, or Ineligible; nothing else leaves a
Completer. Contract: tests/core/completer_contract.py, which every implementation passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ownweights.core.chat import ChatRequest, Completion, CompletionChunk

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Completer(Protocol):
    """Answers chat requests; safe to call concurrently; `close` may be called twice."""

    async def complete(self, request: ChatRequest, *, timeout_s: float | None = None) -> Completion:
        """The whole answer at once."""
        ...

    def stream(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> AsyncIterator[CompletionChunk]:
        """The answer in pieces; joined they equal what `complete` would have said."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


class Sampler(Protocol):
    """Continues token sequences: what on-policy training methods need from a generator.

    Shapes: prompts are lists of int32 (T,); results are, for each, ids (T',) and logprobs (T',)
    """

    def sample(
        self, prompts: Sequence[np.ndarray], *, max_tokens: int, temperature: float, seed: int
    ) -> list[tuple[np.ndarray, np.ndarray]]: ...
