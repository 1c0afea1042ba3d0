"""The plain way to continue a text: one sequence, one token at a time, no batching, no tricks.

It is the oracle of the engine: what the engine answers must equal this token for token
(test_batch_matches_generate). Also decides how a token is chosen and what is noted about the
choice, so that the engine and this agree by construction.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ownweights.core.chat import Features
from ownweights.core.errors import ContextTooLong
from ownweights.model.transformer import KVCache, Transformer


@dataclass(slots=True)
class Generated:
    """What was generated, the end token included; `is_ended`: the model itself stopped."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    is_ended: bool = False

    def features(self) -> Features:
        """As confidence reads it."""
        return Features(
            np.array(self.token_ids, np.int32),
            np.array(self.logprobs, np.float32),
            np.array(self.margins, np.float32),
        )


def score(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best token, its margin over the second best, and the log of the normaliser.

    Shapes: logits (B, V) → best (B,) int64, margins (B,), log_sums (B,)
    """
    log_sums = logits.logsumexp(-1)
    top = logits.topk(2, dim=-1).values  # (B, 2)
    return logits.argmax(-1), top[:, 0] - top[:, 1], log_sums


def draw(logits: Tensor, temperature: float, seed: int, position: int) -> int:
    """A token sampled at a temperature; seed and position alone decide the randomness.

    Shapes: logits (V,)
    """
    uniform = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), position])).random()
    scaled = logits.double().numpy() / temperature
    weights = np.exp(scaled - scaled.max()).cumsum()
    return min(int(np.searchsorted(weights, uniform * weights[-1], side="right")), len(weights) - 1)


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    end_ids: Container[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
    use_cache: bool = True,
) -> Generated:
    """Continue `prompt` until an end token, `max_tokens`, or the model's last position.

    Raises: ContextTooLong when the prompt leaves no room
    """
    window = model.config.max_position_embeddings
    if not prompt or len(prompt) >= window:
        raise ContextTooLong(len(prompt), window)
    result = Generated()
    cache = KVCache(model.config, 1, window) if use_cache else None
    tokens = list(prompt)
    for _ in range(min(max_tokens, window - len(prompt))):
        logits = _next_logits(model, tokens, cache, len(result.token_ids))
        best, margins, log_sums = score(logits)
        chosen = int(best) if temperature == 0 else draw(
            logits[0], temperature, seed, len(result.token_ids)
        )  # fmt: skip
        result.token_ids.append(chosen)
        result.logprobs.append(float(logits[0, chosen] - log_sums[0]))
        result.margins.append(float(margins[0]))
        tokens.append(chosen)
        if chosen in end_ids:
            result.is_ended = True
            break
    return result


def _next_logits(
    model: Transformer, tokens: list[int], cache: KVCache | None, num_new: int
) -> Tensor:
    """Scores of the token after `tokens`, of which the cache misses the prompt or the last one."""
    if cache is None:
        hidden = model(torch.tensor([tokens]))
    else:
        start = 0 if num_new == 0 else len(tokens) - 1
        positions = torch.arange(start, len(tokens))[None]  # (1, T)
        hidden = model(
            torch.tensor([tokens[start:]]), cache=cache, rows=torch.tensor([0]), positions=positions
        )
    return model.logits(hidden[:, -1])  # (1, V)
