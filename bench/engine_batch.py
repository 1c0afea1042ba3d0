"""The batching engine beside its naive twin, and adapters folded in beside adapters kept apart.

Caveats: one process, no HTTP and no socket; both sides use the same single thread, weights and
prompts in turns; random answers run to their limit instead of ending by themselves. On a shared
machine only the ratios within a run mean anything. The naive twin has a key/value cache, so this is
what batching and fused weights bring, not what a cache brings. `bound` is the ratio that would be
reached if the engine took only as long as its matrix products do at the speed measured for them in
the same run.

Cases: `streams=1`, `streams=8`, `streams=32`: 25-token prompts and 30-token answers of the embedded
base, in answers a second, against `model.generate`. `merged students=1`, `merged students=4`: one
token for 32 rows, with each student's adapter (rank 16, all layers) folded into weights of its own,
in milliseconds, against one pass of the base with every adapter applied to its rows. Reproduce:
make bench NAME=engine_batch
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.result import ratio_line
from ownweights.engine.lane import Lane, Sequence
from ownweights.engine.runner import Runner
from ownweights.model.generate import generate
from ownweights.model.memory import keep_freed_memory
from ownweights.model.transformer import Transformer
from ownweights.weights.base import EMBEDDED_DIR
from ownweights.weights.load import load_model

PROMPT_TOKENS, ANSWER_TOKENS, ROWS, RANK = 25, 30, 32, 16
REQUESTS_PER_STREAM = 2
PACKAGES = ("torch", "numpy")


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each case."""
    keep_freed_memory()
    torch.set_num_threads(1)
    model = load_model(EMBEDDED_DIR)
    rng = random.Random(seed)
    repeats = 3 if is_quick else 9
    for streams in (1, 8, 32):
        prompts = [
            [rng.randrange(7, model.config.vocab_size) for _ in range(PROMPT_TOKENS)]
            for _ in range(streams * REQUESTS_PER_STREAM)
        ]
        yield _batched(model, prompts, streams, repeats)
    for students in (1, 4):
        yield _merged(model, students, 10 * repeats)


def _batched(
    model: Transformer, prompts: list[list[int]], streams: int, repeats: int
) -> dict[str, Any]:
    runner = Runner(model)
    num_naive = min(len(prompts), 4)  # it answers one after the other: no need to wait for all
    pairs = [
        (
            len(prompts) / seconds(lambda: _answer(runner, prompts, streams)),
            num_naive / seconds(lambda: _answer_naively(model, prompts[:num_naive])),
        )
        for _ in range(repeats + 1)
    ][1:]
    ours, naive = zip(*pairs, strict=True)
    best = 1 / (PROMPT_TOKENS + ANSWER_TOKENS - 1) / _product_seconds(runner, streams)
    return ratio_line(
        "engine_batch",
        f"streams={streams}",
        ours=ours,
        peer=naive,
        peer_name="model.generate",
        unit="answers/s",
        is_less_better=False,
        bound=round(best / sorted(naive)[len(naive) // 2], 3),
        workload=f"{PROMPT_TOKENS} tokens read, {ANSWER_TOKENS} written, embedded base, 1 thread",
        packages=PACKAGES,
    )


def _answer(runner: Runner, prompts: list[list[int]], streams: int) -> None:
    lane = Lane(runner, frozenset(), streams)
    for prompt in prompts:
        lane.add(Sequence(prompt, ANSWER_TOKENS))
    while lane.has_work:
        lane.step()


def _answer_naively(model: Transformer, prompts: list[list[int]]) -> None:
    for prompt in prompts:
        generate(model, prompt, max_tokens=ANSWER_TOKENS)


def _product_seconds(runner: Runner, rows: int) -> float:
    """A token's share of a step that consists of nothing but the products of a decode."""
    weights = [
        w for layer in runner._layers for w in (layer.qkv, layer.out, layer.gate_up, layer.down)
    ]
    inputs = [torch.randn(rows, weight.shape[0]) for weight in [*weights, runner._head]]

    def products() -> None:
        for x, weight in zip(inputs, [*weights, runner._head], strict=True):
            torch.mm(x, weight)

    return min(seconds(products) for _ in range(20)) / rows


class ApartRunner(Runner):
    """The base's weights for all rows, and each student's factors for its own rows."""

    def __init__(self, model: Transformer, students: int) -> None:
        super().__init__(model)
        self._factors = [
            {
                name: [
                    (torch.randn(weight.shape[0], RANK) * 0.01, torch.randn(RANK, out) * 0.01)
                    for _ in range(students)
                ]
                for name, weight, out in _targets(layer)
            }
            for layer in self._layers
        ]
        self._current: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def apply(self, name: str, x: Tensor, weight: Tensor) -> Tensor:
        """x @ weight, and what the adapters add to it."""
        out = torch.mm(x, weight)
        pairs = self._current[name]
        share = x.shape[0] // len(pairs)
        for index, (a, b) in enumerate(pairs):
            rows = slice(index * share, (index + 1) * share)
            out[rows].addmm_(torch.mm(x[rows], a), b)
        return out

    def _project(self, x: Tensor, layer: Any, turns: Tensor) -> tuple[Tensor, Tensor]:
        self._current = self._factors[self._layers.index(layer)]
        batch, length, width = x.shape
        turned = self._heads + self._kv_heads
        x = F.rms_norm(x, (width,), layer.norm_1, self.config.rms_norm_eps)
        qkv = self.apply("qkv", x.view(-1, width), layer.qkv)
        qkv = qkv.view(batch, length, -1, self.config.head_dim)
        pairs = torch.view_as_complex(qkv[:, :, :turned].unflatten(-1, (-1, 2)))
        qk = torch.view_as_real(pairs * turns).flatten(-2)
        kv = torch.cat([qk[:, :, self._heads :], qkv[:, :, turned:]], dim=2)
        return qk[:, :, : self._heads], kv.flatten(2)

    def _finish(self, x: Tensor, mixed: Tensor, layer: Any) -> Tensor:
        flat = x.view(-1, x.shape[-1]) + self.apply("out", mixed, layer.out)
        normed = F.rms_norm(flat, (flat.shape[-1],), layer.norm_2, self.config.rms_norm_eps)
        gate, up = self.apply("gate_up", normed, layer.gate_up).chunk(2, dim=-1)
        return (flat + self.apply("down", F.silu(gate).mul_(up), layer.down)).view(x.shape)


def _targets(layer: Any) -> list[tuple[str, Tensor, int]]:
    """Fused layers; one pair of factors each, so fewer and larger products than seven would be."""
    names = ("qkv", "out", "gate_up", "down")
    return [(name, getattr(layer, name), getattr(layer, name).shape[1]) for name in names]


def _merged(model: Transformer, students: int, repeats: int) -> dict[str, Any]:
    merged = [Runner(model) for _ in range(students)]
    apart = ApartRunner(model, students)
    share = ROWS // students
    tokens, positions = list(range(7, 7 + ROWS)), [PROMPT_TOKENS + 15] * ROWS

    def decode_merged() -> None:
        for runner in merged:
            runner.decode(tokens[:share], positions[:share])

    pairs = [
        (1e3 * seconds(decode_merged), 1e3 * seconds(lambda: apart.decode(tokens, positions)))
        for _ in range(repeats + 3)
    ][3:]
    ours, theirs = zip(*pairs, strict=True)
    return ratio_line(
        "engine_batch",
        f"merged students={students}",
        ours=ours,
        peer=theirs,
        peer_name="adapters kept apart",
        unit="ms/step",
        is_less_better=True,
        workload=f"one token for {ROWS} rows, rank {RANK}, embedded base, 1 thread",
        packages=PACKAGES,
    )


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    with torch.inference_mode():
        do()
    return time.perf_counter() - start
