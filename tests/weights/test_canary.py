"""Canary logits: silent while all is well, loud at one wrong number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ownweights.core.errors import ModelError
from ownweights.model.lora import merge_lora
from ownweights.weights.canary import (
    CANARY_NAME,
    canary_inputs,
    canary_logits,
    check_canary,
    save_canary,
)
from tests.tiny import VOCAB_SIZE, tiny_model, with_adapter


def test_check_canary_is_content_with_the_same_model(tmp_path: Path) -> None:
    model = with_adapter(tiny_model(), 3)
    save_canary(model, tmp_path)
    assert check_canary(model, tmp_path)
    merge_lora(model)
    assert check_canary(model, tmp_path)


def test_check_canary_says_when_there_is_none(tmp_path: Path) -> None:
    assert check_canary(tiny_model(), tmp_path) is False


def test_check_canary_finds_one_changed_weight(tmp_path: Path) -> None:
    model = tiny_model()
    save_canary(model, tmp_path)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[0, 0] += 1.0
    with pytest.raises(ModelError, match="do not answer as they did") as refusal:
        check_canary(model, tmp_path)
    assert "train it again" in (refusal.value.hint or "")


def test_check_canary_finds_a_missing_adapter(tmp_path: Path) -> None:
    save_canary(with_adapter(tiny_model(), 3), tmp_path)
    with pytest.raises(ModelError, match="canary logits differ by"):
        check_canary(tiny_model(), tmp_path)


def test_check_canary_finds_nan(tmp_path: Path) -> None:
    model = tiny_model()
    save_canary(model, tmp_path)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="canary logits differ by nan"):
        check_canary(model, tmp_path)


def test_check_canary_refuses_another_vocabularys(tmp_path: Path) -> None:
    save_canary(tiny_model(vocab_size=100), tmp_path)
    with pytest.raises(ModelError, match="another vocabulary"):
        check_canary(tiny_model(), tmp_path)


def test_canary_inputs_are_ids_of_the_vocabulary() -> None:
    ids = canary_inputs(VOCAB_SIZE)
    assert ids.min() >= 0 and ids.max() < VOCAB_SIZE
    assert len(ids.unique()) > ids.numel() // 2
    assert torch.equal(ids, canary_inputs(VOCAB_SIZE))


def test_canary_file_stays_small_for_large_vocabularies(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=20_000)
    assert canary_logits(model).shape[1] <= 512
    save_canary(model, tmp_path)
    assert (tmp_path / CANARY_NAME).stat().st_size < 10_000


def test_canary_fits_a_short_window() -> None:
    assert torch.isfinite(canary_logits(tiny_model(max_position_embeddings=8))).all()
