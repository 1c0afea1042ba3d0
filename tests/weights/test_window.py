"""Perplexity by position and hidden numbers, against whole passes and a model that only copies."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F

from ownweights.core.errors import InputError
from ownweights.model.tokenizer import Tokenizer
from ownweights.weights.window import (
    DEPTHS,
    Hidden,
    bucket_edges,
    compare_by_position,
    hide,
    needle_test,
    token_losses,
)
from tests.tiny import byte_tokenizer, tiny_model

TEXT = "The harbour was quiet, and 12 boats lay in it.\n" * 30


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_tokenizer(), {})


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(TEXT)


def test_bucket_edges_part_at_the_old_window() -> None:
    assert bucket_edges(96, 192) == [0, 24, 48, 72, 96, 120, 144, 168, 192]
    assert bucket_edges(4, 6) == [0, 1, 2, 3, 4, 5, 6]


@torch.inference_mode()
def test_perplexity_by_position_matches_whole_passes(ids: list[int]) -> None:
    before, after = tiny_model(), tiny_model(max_position_embeddings=192, rope_theta=2e4)
    found = compare_by_position(before, after, ids, max_windows=3)
    windows = [ids[at : at + 192] for at in (0, 192, 384)]
    for bucket in found:
        for model, told, end in ((before, bucket.before, 96), (after, bucket.after, 192)):
            losses: list[float] = []
            for window in windows:
                logits = model.logits(model(torch.tensor([window[:end]])))[0].log_softmax(-1)
                losses += [
                    -float(logits[position - 1, window[position]])
                    for position in range(max(bucket.start, 1), min(bucket.end, end))
                ]
            expected = math.exp(sum(losses) / len(losses)) if losses else None
            assert told == (expected if expected is None else pytest.approx(expected, rel=1e-4))
    assert sum(bucket.num_tokens for bucket in found) == 3 * 191


def test_compare_by_position_refuses_a_short_text(ids: list[int]) -> None:
    with pytest.raises(InputError, match="the text has 95 tokens, one window takes 96"):
        compare_by_position(tiny_model(), tiny_model(), ids[:95])


@torch.inference_mode()
def test_token_losses_in_parts_are_those_of_the_whole(ids: list[int]) -> None:
    model = tiny_model(max_position_embeddings=1400)
    few = ids[:1300]
    logits = model.logits(model(torch.tensor([few])))[0, :-1]
    expected = F.cross_entropy(logits, torch.tensor(few[1:]), reduction="none")
    assert torch.allclose(token_losses(model, few), expected, atol=1e-4)


@pytest.mark.parametrize("depth", DEPTHS)
def test_hide_fills_the_length_and_asks_at_the_end(
    tokenizer: Tokenizer, ids: list[int], depth: float
) -> None:
    hidden = hide(tokenizer, ids, 120, depth, random.Random(1))
    text, answer = tokenizer.decode(hidden.prompt), tokenizer.decode(hidden.answer)
    assert len(hidden.prompt) + len(hidden.answer) == 120
    assert text.endswith("\nThe pass key is")
    at = text.index(f"\nThe pass key is{answer}.\n")
    assert at == int(depth * (len(text) - 2 * len("\nThe pass key is") - len(answer) - 2))
    assert answer not in tokenizer.decode(hidden.other_prompt)
    assert isinstance(hidden, Hidden)


def test_hide_refuses_where_there_is_no_room(tokenizer: Tokenizer, ids: list[int]) -> None:
    for length, few in ((30, ids), (120, ids[:10])):
        with pytest.raises(InputError, match="too few to hide something"):
            hide(tokenizer, few, length, 0.5, random.Random(1))


def test_needle_test_asks_nobody_beyond_its_window(tokenizer: Tokenizer, ids: list[int]) -> None:
    before, after = tiny_model(), tiny_model(max_position_embeddings=192)
    found = needle_test(before, after, tokenizer=tokenizer, ids=ids, trials=2)
    assert [(one.length, one.depth) for one in found] == [
        (length, depth) for length in (48, 96, 144, 192) for depth in DEPTHS
    ]
    assert all((one.found_before is None) == (one.length > 96) for one in found)
    assert all(one.found_after == 0 for one in found)  # random weights know nothing
    again = needle_test(before, after, tokenizer=tokenizer, ids=ids, trials=2)
    assert again == found


def test_needle_test_finds_what_a_copying_model_repeats(
    tokenizer: Tokenizer, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in whose likeliest token is what followed the same five tokens before."""
    model = tiny_model(max_position_embeddings=192)

    def copying(tokens: torch.Tensor) -> torch.Tensor:
        row = tokens[0].tolist()
        scores = torch.zeros(1, len(row), model.config.vocab_size)
        for end in range(5, len(row) + 1):
            for start in range(end - 6, -1, -1):
                if row[start : start + 5] == row[end - 5 : end]:
                    scores[0, end - 1, row[start + 5]] = 20.0
                    break
        return scores

    monkeypatch.setattr(model, "forward", copying)
    monkeypatch.setattr(model, "logits", lambda scores: scores)
    found = needle_test(model, model, tokenizer=tokenizer, ids=ids, trials=2)
    assert all(one.found_after == one.trials for one in found if one.depth < 0.9)
    assert all((one.gain_after or 0.0) > 1.0 for one in found)
