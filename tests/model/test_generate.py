"""The plain generator: its choices, its limits, and the numbers it notes about them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ownweights.core.errors import ContextTooLong
from ownweights.model.generate import Dice, choose, draw, generate
from tests.tiny import CONFIG, tiny_model

PROMPT = [1, 4, 78, 79, 2, 5]
LOGPROB_TOLERANCE = 1e-5
RARE = 1e-4  # a fair sampler fails the test below this often


def test_generate_is_the_same_without_a_cache() -> None:
    model = tiny_model()
    cached = generate(model, PROMPT, max_tokens=40)
    plain = generate(model, PROMPT, max_tokens=40, use_cache=False)
    assert cached.token_ids == plain.token_ids
    assert np.allclose(cached.logprobs, plain.logprobs, atol=LOGPROB_TOLERANCE)


def test_generate_notes_the_unmodified_distribution() -> None:
    model = tiny_model()
    found = generate(model, PROMPT, max_tokens=6, temperature=0.7, seed=3)
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([PROMPT + found.token_ids])))[0]
    logprobs = logits.log_softmax(-1)
    for index, token in enumerate(found.token_ids):
        row = logprobs[len(PROMPT) - 1 + index]
        top = row.topk(2).values
        assert found.logprobs[index] == pytest.approx(float(row[token]), abs=LOGPROB_TOLERANCE)
        assert found.margins[index] == pytest.approx(
            float(top[0] - top[1]), abs=10 * LOGPROB_TOLERANCE
        )


def test_generate_stops_at_an_end_token_and_counts_it() -> None:
    model = tiny_model()
    free = generate(model, PROMPT, max_tokens=12)
    end = free.token_ids[4]
    stopped = generate(model, PROMPT, max_tokens=12, end_ids={end})
    first = free.token_ids.index(end)
    assert stopped.token_ids == free.token_ids[: first + 1]
    assert stopped.is_ended and not free.is_ended


def test_generate_stops_at_the_window() -> None:
    model = tiny_model(max_position_embeddings=10)
    assert len(generate(model, PROMPT, max_tokens=99).token_ids) == 10 - len(PROMPT)


@pytest.mark.parametrize("length", [0, 96, 97])
def test_generate_refuses_a_prompt_without_room(length: int) -> None:
    with pytest.raises(ContextTooLong) as refusal:
        generate(tiny_model(), [7] * length, max_tokens=1)
    assert refusal.value.prompt_tokens == length
    assert refusal.value.max_tokens == CONFIG.max_position_embeddings


def test_generate_repeats_itself_by_seed() -> None:
    model = tiny_model()

    def said(seed: int) -> list[int]:
        return generate(model, PROMPT, max_tokens=20, temperature=1.0, seed=seed).token_ids

    assert said(1) == said(1) != said(2)


def test_generated_features_have_their_types() -> None:
    features = generate(tiny_model(), PROMPT, max_tokens=5).features()
    assert features.token_ids.dtype == np.int32
    assert features.token_logprobs.dtype == features.margins.dtype == np.float32
    assert len(features.token_ids) == len(features.token_logprobs) == len(features.margins) == 5


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_notes_the_state_of_the_prompt_alone(use_cache: bool) -> None:
    model = tiny_model()
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT]))[0, -1].numpy()
    for tokens in (1, 7):
        found = generate(model, PROMPT, max_tokens=tokens, use_cache=use_cache).features()
        assert found.prompt_state is not None
        assert np.allclose(found.prompt_state, expected, atol=LOGPROB_TOLERANCE)


def test_choose_takes_the_first_of_equals_and_leaves_logits_alone() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 0.0, 0.0, 0.0]])
    before = logits.clone()
    first, second = choose(logits, [None, None])
    assert torch.equal(logits, before)
    assert (first.token, first.margin) == (1, 0.0)
    assert (second.token, second.margin) == (0, 3.0)
    assert second.logprob == pytest.approx(float(logits[1].log_softmax(-1)[0]), abs=1e-6)


def test_choose_never_notes_a_positive_logprob() -> None:
    logits = torch.zeros(1, 50)
    logits[0, 3] = 60.0
    assert choose(logits, [None])[0].logprob == 0.0


def test_draw_follows_the_distribution() -> None:
    scores, temperature = np.array([1.0, 0.0, -1.0, 2.0], np.float32), 1.5
    weights = np.exp(scores.astype(np.float64) / temperature)
    expected = weights / weights.sum()
    drawn = [draw(scores, Dice(temperature, seed, 0)) for seed in range(4000)]
    counts = np.bincount(drawn, minlength=4)
    assert stats.chisquare(counts, expected * len(drawn)).pvalue > RARE


def test_draw_uses_a_new_number_at_each_position() -> None:
    scores = np.zeros(1000, np.float32)
    assert len({draw(scores, Dice(1.0, 0, position)) for position in range(50)}) > 40


def test_draw_at_a_low_temperature_is_the_best() -> None:
    scores = np.array([0.0, 5.0, 4.0], np.float32)
    assert {draw(scores, Dice(0.01, seed, 0)) for seed in range(50)} == {1}


def test_draw_takes_any_seed() -> None:
    scores = np.zeros(10, np.float32)
    assert draw(scores, Dice(1.0, -1, 0)) == draw(scores, Dice(1.0, 2**64 - 1, 0))
