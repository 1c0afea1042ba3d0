"""The fused model against the plain one, and its store as it grows and moves."""

from __future__ import annotations

import pytest
import torch

from ownweights.engine.runner import MIN_POSITIONS, MIN_ROWS, Runner
from ownweights.model.transformer import Transformer
from tests.model.test_transformer import SHAPES, relative_error, some_tokens
from tests.tiny import tiny_model, with_adapter
from tests.variants import BORDER, LONG, VARIANTS

# The same float32 sums in another order: a few 1e-7 of the greatest logit a layer.
FUSED_TOLERANCE = 1e-5


def next_logits(model: Transformer, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model(torch.tensor([tokens]))[:, -1])[0]


def prompts_of(*lengths: int) -> list[list[int]]:
    return [some_tokens(1, length, seed=length)[0].tolist() for length in lengths]


@pytest.mark.parametrize("shape", SHAPES)
def test_runner_matches_transformer(shape: str) -> None:
    model = tiny_model(**SHAPES[shape])
    runner, prompts = Runner(model), prompts_of(3, 9, 5)
    read = runner.prefill(prompts, 0)
    for step in range(3):
        for row, prompt in enumerate(prompts):
            assert relative_error(read[row], next_logits(model, prompt)) <= FUSED_TOLERANCE
        read = runner.decode([step + 10] * 3, [len(prompt) for prompt in prompts])
        prompts = [[*prompt, step + 10] for prompt in prompts]


def test_runner_read_is_the_transformers_last_state() -> None:
    model, prompts = tiny_model(), prompts_of(3, 9, 5)
    runner = Runner(model)
    states = runner.read(prompts, 0)
    for row, prompt in enumerate(prompts):
        with torch.inference_mode():
            expected = model(torch.tensor([prompt]))[0, -1]
        assert relative_error(states[row], expected) <= FUSED_TOLERANCE
    assert torch.equal(runner.scores(states), runner.prefill(prompts, 0))


def test_runner_folds_an_attached_adapter_in() -> None:
    model, prompt = with_adapter(tiny_model(), 3), prompts_of(6)[0]
    read = Runner(model).prefill([prompt], 0)[0]
    assert relative_error(read, next_logits(model, prompt)) <= FUSED_TOLERANCE


def test_runner_reads_a_second_batch_beside_the_first() -> None:
    model, prompts = tiny_model(), prompts_of(4, 7, 11)
    runner = Runner(model)
    runner.prefill(prompts[:1], 0)
    runner.prefill(prompts[1:], 1)
    read = runner.decode([9, 9, 9], [4, 7, 11])
    for row, prompt in enumerate(prompts):
        assert relative_error(read[row], next_logits(model, [*prompt, 9])) <= FUSED_TOLERANCE


def test_runner_keeps_what_it_read_while_it_grows() -> None:
    model = tiny_model(max_position_embeddings=400)
    runner, short = Runner(model), prompts_of(5)[0]
    runner.prefill([short], 0)
    before = runner.kv_bytes
    many = prompts_of(*range(10, 10 + MIN_ROWS))
    runner.prefill(many, 1)
    long = prompts_of(MIN_POSITIONS + 40)[0]
    runner.prefill([long], 1 + MIN_ROWS)
    assert runner.kv_bytes > before
    rows = [short, *many, long]
    read = runner.decode([9] * len(rows), [len(prompt) for prompt in rows])
    for row in (0, 3, len(rows) - 1):
        assert relative_error(read[row], next_logits(model, [*rows[row], 9])) <= FUSED_TOLERANCE


def test_runner_never_stores_more_than_the_window() -> None:
    runner = Runner(tiny_model())  # a window of 96, less than the least store
    runner.prefill(prompts_of(90), 0)
    assert runner.kv_bytes == 2 * MIN_ROWS * 96 * (2 * 2 * 8) * 4


def test_runner_moves_a_row() -> None:
    model, prompts = tiny_model(), prompts_of(4, 7)
    runner = Runner(model)
    runner.prefill(prompts, 0)
    runner.move(1, 0, 7)
    read = runner.decode([9], [7])[0]
    assert relative_error(read, next_logits(model, [*prompts[1], 9])) <= FUSED_TOLERANCE


def test_runner_is_blind_to_what_a_row_held_before() -> None:
    model, prompts = tiny_model(), prompts_of(30, 4)
    runner = Runner(model)
    runner.prefill(prompts[:1], 0)
    runner.prefill(prompts[1:], 0)
    read = runner.decode([9], [4])[0]
    assert relative_error(read, next_logits(model, [*prompts[1], 9])) <= FUSED_TOLERANCE


def test_runner_counts_parameters() -> None:
    model = tiny_model()
    assert Runner(model).num_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("shape", VARIANTS)
def test_runner_looks_back_as_far_as_each_layer_does(shape: str) -> None:
    """Prompts longer and shorter than the window, read together, then continued past it."""
    model = tiny_model(**VARIANTS[shape])
    runner, prompts = Runner(model), prompts_of(20, 4, 11)
    read = runner.prefill(prompts, 0)
    for step in range(9):
        for row, prompt in enumerate(prompts):
            assert relative_error(read[row], next_logits(model, prompt)) <= FUSED_TOLERANCE
        read = runner.decode([step + 10] * 3, [len(prompt) for prompt in prompts])
        prompts = [[*prompt, step + 10] for prompt in prompts]


def test_runner_turns_each_row_by_its_own_length() -> None:
    model = tiny_model(**LONG)
    runner, prompts = Runner(model), prompts_of(BORDER - 4, BORDER + 3, BORDER)
    read = runner.prefill(prompts, 0)
    for row, prompt in enumerate(prompts):
        assert relative_error(read[row], next_logits(model, prompt)) <= FUSED_TOLERANCE
    read = runner.decode([9, 9], [BORDER - 4, BORDER + 3])
    for row, prompt in enumerate(prompts[:2]):
        assert relative_error(read[row], next_logits(model, [*prompt, 9])) <= FUSED_TOLERANCE
