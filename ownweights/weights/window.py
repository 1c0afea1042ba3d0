"""What a window is worth: perplexity by position, and whether something said far back is found.

In: one or two models of the same tokenizer, and text. Out: for stretches of positions the
perplexity of each model, within the old window and beyond; for lengths and depths how often a
number hidden in text is repeated when asked for. A model is not asked beyond its own window (None
there), so the columns within the old window say what an extension costs at short range
(test_perplexity_by_position_matches_whole_passes).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from ownweights.core.errors import InputError
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer

_POSITIONS = 512  # whose scores are held at a time
_OLD_PARTS, _NEW_PARTS = 4, 4
DEPTHS = (0.1, 0.5, 0.9)
_NEEDLE, _ASKED, _END = "\nThe pass key is", "\nThe pass key is", ".\n"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Perplexity of the tokens at positions start to end (excluded); None where there are none."""

    start: int
    end: int
    num_tokens: int
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class Needle:
    """A number hidden at a share `depth` of `length` tokens: how often it was repeated exactly, and
    by how many nats it became likelier than where another number was hidden."""

    length: int
    depth: float
    trials: int
    found_before: int | None
    found_after: int | None
    gain_before: float | None
    gain_after: float | None


@dataclass(frozen=True, slots=True)
class Hidden:
    """One trial: ids that end before the answer, the answer, and the same with another number."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    other_prompt: tuple[int, ...]


def bucket_edges(old_window: int, new_window: int) -> list[int]:
    """Where stretches begin and end: quarters of the old window, then equal parts up to the new."""
    edges = [old_window * part // _OLD_PARTS for part in range(_OLD_PARTS)]
    beyond = new_window - old_window
    edges += [old_window + beyond * part // _NEW_PARTS for part in range(_NEW_PARTS)]
    return sorted({*edges, new_window})


def compare_by_position(
    before: Transformer, after: Transformer, ids: Sequence[int], *,
    max_windows: int = 8, on_window: Progress | None = None,
) -> list[Bucket]:  # fmt: skip
    """Perplexity of both models by position, on the same text in windows of the longer one.

    Raises: InputError when the text is too short for one window
    """
    length = after.config.max_position_embeddings
    windows = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    if not windows:
        raise InputError(
            f"the text has {len(ids)} tokens, one window takes {length}",
            hint="give a longer one with --text FILE",
        )
    windows = windows[:max_windows]
    edges = bucket_edges(before.config.max_position_embeddings, length)
    sums = {"before": [0.0] * len(edges), "after": [0.0] * len(edges)}
    counts = {"before": [0] * len(edges), "after": [0] * len(edges)}
    for number, window in enumerate(windows, start=1):
        for side, model in (("before", before), ("after", after)):
            losses = token_losses(model, window[: model.config.max_position_embeddings])
            for index, (start, end) in enumerate(pairwise(edges)):
                part = losses[max(start - 1, 0) : max(end - 1, 0)]  # losses[i] is of position i + 1
                sums[side][index] += float(part.double().sum())
                counts[side][index] += len(part)
        if on_window is not None:
            on_window(number, len(windows))

    def perplexity(side: str, index: int) -> float | None:
        count = counts[side][index]
        return math.exp(sums[side][index] / count) if count else None

    return [
        Bucket(start, end, counts["after"][index],
               perplexity("before", index), perplexity("after", index))
        for index, (start, end) in enumerate(pairwise(edges))
    ]  # fmt: skip


@torch.inference_mode()
def token_losses(model: Transformer, ids: Sequence[int]) -> torch.Tensor:
    """Nats of each token but the first, given all before it. Shapes: → (T - 1,)"""
    hidden = model(torch.tensor([list(ids)]))[0, :-1]  # (T - 1, E)
    wanted = torch.tensor(list(ids[1:]))
    return torch.cat([
        F.cross_entropy(model.logits(part).float(), target, reduction="none")
        for part, target in zip(hidden.split(_POSITIONS), wanted.split(_POSITIONS), strict=True)
    ])  # fmt: skip


def needle_test(
    before: Transformer, after: Transformer, *, tokenizer: Tokenizer, ids: Sequence[int],
    trials: int = 4, seed: int = 1, on_cell: Progress | None = None,
) -> list[Needle]:  # fmt: skip
    """Hide numbers in the text at several depths and lengths, and ask both models for them."""
    old, new = before.config.max_position_embeddings, after.config.max_position_embeddings
    cells = [
        (length, depth) for length in sorted({old // 2, old, (old + new) // 2, new})
        for depth in DEPTHS
    ]  # fmt: skip
    found: list[Needle] = []
    for number, (length, depth) in enumerate(cells, start=1):
        rng = random.Random(f"{seed} {length} {depth}")
        hidden = [hide(tokenizer, ids, length, depth, rng) for _ in range(trials)]
        told = [
            _ask(model, hidden) if length <= window else (None, None)
            for model, window in ((before, old), (after, new))
        ]
        found.append(Needle(length, depth, trials, told[0][0], told[1][0], told[0][1], told[1][1]))
        if on_cell is not None:
            on_cell(number, len(cells))
    return found


def hide(
    tokenizer: Tokenizer, ids: Sequence[int], length: int, depth: float, rng: random.Random
) -> Hidden:
    """A number in a stretch of the text, so that prompt and answer fill `length` tokens.

    Raises: InputError when the text or the length has no room for it
    """
    number, other = (f" {rng.randrange(10_000, 100_000)}" for _ in range(2))
    answer = tokenizer.encode(number)
    lead, ask, end = (tokenizer.encode(text) for text in (_NEEDLE, _ASKED, _END))
    room = length - len(lead) - len(end) - len(ask) - 2 * len(answer)
    if room < 0 or len(ids) < room:
        raise InputError(
            f"{len(ids)} tokens of text are too few to hide something in {length}",
            hint="give a longer one with --text FILE",
        )
    start = rng.randrange(len(ids) - room + 1)
    hay = list(ids[start : start + room])
    at = int(depth * room)

    def around(value: Sequence[int]) -> tuple[int, ...]:
        return (*hay[:at], *lead, *value, *end, *hay[at:], *ask)

    return Hidden(around(answer), tuple(answer), around(tokenizer.encode(other)))


@torch.inference_mode()
def _ask(model: Transformer, hidden: Sequence[Hidden]) -> tuple[int, float]:
    """How many answers are the likeliest tokens throughout, and the mean gain in nats."""
    num_found, gain = 0, 0.0
    for one in hidden:
        here, is_best = _answer_logprob(model, one.prompt, one.answer)
        elsewhere, _ = _answer_logprob(model, one.other_prompt, one.answer)
        num_found += is_best
        gain += here - elsewhere
    return num_found, round(gain / len(hidden), 4)


def _answer_logprob(
    model: Transformer, prompt: Sequence[int], answer: Sequence[int]
) -> tuple[float, bool]:
    whole = [*prompt, *answer]
    window = model.config.max_position_embeddings
    whole = whole[-window:]  # another number may have a token more
    hidden = model(torch.tensor([whole]))[0, -len(answer) - 1 : -1]  # (answer, E)
    logprobs = model.logits(hidden).float().log_softmax(-1)
    wanted = torch.tensor(list(answer))
    chosen = logprobs.gather(-1, wanted[:, None])
    return float(chosen.sum()), bool((logprobs.argmax(-1) == wanted).all())
