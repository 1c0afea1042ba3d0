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
from ownweights.model.lora import formed_weights
from ownweights.model.transformer import KVCache, Transformer


@dataclass(frozen=True, slots=True)
class Choice:
    """A row's next token, its logprob, and the best logprob minus the second best."""

    token: int
    logprob: float
    margin: float


@dataclass(slots=True)
class Generated:
    """What was generated, the end token included; `is_ended`: the model itself stopped."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    is_ended: bool = False
    prompt_state: np.ndarray | None = field(default=None, compare=False)  # (E,)

    def add(self, choice: Choice, *, is_end: bool) -> None:
        """Note one more token."""
        self.token_ids.append(choice.token)
        self.logprobs.append(choice.logprob)
        self.margins.append(choice.margin)
        self.is_ended = is_end

    def features(self) -> Features:
        """As confidence reads it."""
        return Features(
            np.array(self.token_ids, np.int32),
            np.array(self.logprobs, np.float32),
            np.array(self.margins, np.float32),
            self.prompt_state,
        )


@dataclass(frozen=True, slots=True)
class Dice:
    """How to draw instead of taking the best: seed and position alone decide the randomness."""

    temperature: float
    seed: int
    position: int


def choose(logits: Tensor, dice: Sequence[Dice | None]) -> list[Choice]:
    """The next token of each row: the best (the first of equals), or one drawn by its dice.

    What is noted is of the unmodified distribution. Shapes: logits (B, V); it is left as it was
    """
    scores, rows = logits.numpy(), np.arange(logits.shape[0])
    log_sums = logits.logsumexp(-1).numpy()
    best = scores.argmax(1)  # numpy's is many times faster than torch's or a top-2
    top = scores[rows, best].copy()
    scores[rows, best] = -np.inf
    margins = top - scores.max(1)
    scores[rows, best] = top
    tokens = np.array([
        best[row] if one is None else draw(scores[row], one) for row, one in enumerate(dice)
    ])  # fmt: skip
    logprobs = np.minimum(scores[rows, tokens] - log_sums, 0.0)  # rounding may leave +1e-7
    found = zip(tokens.tolist(), logprobs.tolist(), margins.tolist(), strict=True)
    return [Choice(*one) for one in found]


def draw(scores: np.ndarray, dice: Dice) -> int:
    """A token from softmax(scores / temperature), by inversion in float64. Shapes: scores (V,)"""
    key = np.array([dice.seed % 2**64, dice.position], np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random()
    scaled = scores.astype(np.float64) / dice.temperature
    sums = np.exp(scaled - scaled.max()).cumsum()
    return min(int(np.searchsorted(sums, uniform * sums[-1], side="right")), len(sums) - 1)


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
    limit = min(max_tokens, window - len(prompt))
    cache = KVCache(model.config, 1, len(prompt) + limit) if use_cache else None
    tokens = list(prompt)
    for _ in range(limit):
        state = _last_state(model, tokens, cache, len(result.token_ids))
        if result.prompt_state is None:
            result.prompt_state = state[0].numpy()
        logits = model.logits(state)
        dice = Dice(temperature, seed, len(result.token_ids)) if temperature else None
        choice = choose(logits, [dice])[0]
        result.add(choice, is_end=choice.token in end_ids)
        tokens.append(choice.token)
        if result.is_ended:
            break
    return result


class NaiveSampler:
    """A `core.completer.Sampler` by `generate`, one prompt after the other: the oracle of others.

    Logprobs are of the unmodified distribution, whatever the temperature; an end token that the
    model chose is among the ids. Each prompt has a seed of its own.
    """

    def __init__(self, model: Transformer, end_ids: Container[int] = ()) -> None:
        self.model, self.end_ids = model, end_ids

    def sample(
        self, prompts: Sequence[np.ndarray], *, max_tokens: int, temperature: float, seed: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and logprobs of each prompt's continuation."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        with formed_weights(self.model):
            for index, prompt in enumerate(prompts):
                one = generate(
                    self.model, prompt.tolist(), max_tokens=max_tokens, end_ids=self.end_ids,
                    temperature=temperature, seed=seed + index,
                )  # fmt: skip
                found.append(
                    (np.array(one.token_ids, np.int32), np.array(one.logprobs, np.float32))
                )
        return found


def _last_state(
    model: Transformer, tokens: list[int], cache: KVCache | None, num_new: int
) -> Tensor:
    """The state at the last of `tokens`, of which the cache misses the prompt or the last one.

    A text that grows past the border where other frequencies begin is read again (see `rope`).
    """
    if cache is None:
        hidden = model(torch.tensor([tokens]))
    else:
        length = len(tokens)
        is_anew = num_new == 0 or length - 1 == model.rope.border
        start = 0 if is_anew else length - 1
        positions = torch.arange(start, length)[None]  # (1, T)
        hidden = model(
            torch.tensor([tokens[start:]]), cache=cache, rows=torch.tensor([0]),
            positions=positions, visible=length,
        )  # fmt: skip
    return hidden[:, -1]  # (1, E)
