"""What a reader gets back of a tensor."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from ownweights.core.errors import ModelError
from ownweights.weights.export.numbers import as_stored, encode, gguf_package, stored_type


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("dtype", "same"), [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_as_stored_rounds_as_torch_does(dtype: str, same: torch.dtype) -> None:
    tensor = normal(7, 64)
    assert torch.equal(as_stored(tensor, dtype), tensor.to(same).float())


def test_as_stored_in_blocks_matches_brute_force() -> None:
    tensor = normal(5, 64)
    found = as_stored(tensor, "q8_0")
    for row, stored in zip(tensor.reshape(-1, 32), found.reshape(-1, 32), strict=True):
        scale = row.abs().max() / 127
        steps = stored / scale.half().float()
        assert torch.allclose(steps, steps.round(), atol=1e-4)
        assert (row - stored).abs().max() <= 0.51 * scale


def test_stored_type_keeps_vectors_and_odd_rows_whole() -> None:
    assert [stored_type(normal(64), dtype) for dtype in ("f16", "q8_0")] == ["f32", "f32"]
    assert stored_type(normal(2, 48), "q8_0") == "f16"
    assert stored_type(normal(2, 96), "q8_0") == "q8_0"


def test_encode_refuses_what_float16_cannot_hold() -> None:
    with pytest.raises(ModelError, match="a holds values beyond ±65504") as refusal:
        encode(torch.full((2, 2), 1e5), "f16", "a")
    assert refusal.value.hint == "--dtype bf16 or f32"
    assert torch.equal(as_stored(torch.full((2, 32), 1e5), "f32"), torch.full((2, 32), 1e5))


def test_gguf_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "gguf":
            raise ImportError(name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModelError, match="needs the package `gguf`") as refusal:
        gguf_package()
    assert refusal.value.hint == "pip install 'ownweights[gguf]'"
