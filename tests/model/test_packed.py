"""Weights in fewer bits: what is lost is bounded, and products are those of the whole weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ownweights.model.packed import BLOCK, FORMATS, NF4, pack, packed_product


def weight_of(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@given(rows=st.integers(1, 9), columns=st.integers(1, 3 * BLOCK), seed=st.integers(0, 2**31))
def test_int8_always_stays_within_half_a_step(rows: int, columns: int, seed: int) -> None:
    weight = weight_of(rows, columns, seed)
    found = pack(weight, "int8").whole()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((found - weight).abs() <= step / 2 * (1 + 1e-5)).all()


@given(rows=st.integers(1, 9), columns=st.integers(1, 3 * BLOCK), seed=st.integers(0, 2**31))
def test_nf4_always_takes_the_nearest_value(rows: int, columns: int, seed: int) -> None:
    """By brute force over the sixteen values of each block."""
    weight = weight_of(rows, columns, seed)
    found = pack(weight, "nf4").whole()
    assert found.shape == weight.shape
    for start in range(0, columns, BLOCK):
        block = weight[:, start : start + BLOCK]
        scale = block.abs().amax(1)[:, None, None]
        errors = (block[..., None] - NF4 * scale).abs()
        ours = (found[:, start : start + BLOCK] - block).abs()
        torch.testing.assert_close(ours, errors.amin(-1), rtol=1e-5, atol=1e-8)


def test_nf4_values_are_sixteen_and_symmetric_in_their_ends() -> None:
    assert NF4.shape == (16,) and (NF4.diff() > 0).all()
    assert (NF4[0], NF4[7], NF4[15]) == (-1, 0, 1)


@pytest.mark.parametrize(("form", "share"), [("int8", 0.26), ("nf4", 0.15)])
def test_packed_weight_is_as_small_as_it_says(form: str, share: float) -> None:
    packed = pack(weight_of(64, 512), form)
    assert packed.num_bytes <= share * 64 * 512 * 4


@pytest.mark.parametrize("form", FORMATS)
def test_packed_zeros_stay_zero(form: str) -> None:
    assert torch.equal(pack(torch.zeros(3, 70), form).whole(), torch.zeros(3, 70))


@pytest.mark.parametrize("form", FORMATS)
def test_packed_product_matches_the_dense_one(form: str) -> None:
    packed = pack(weight_of(6, 100), form)
    x, again = (torch.randn(2, 5, 100, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    ours = packed_product(x.requires_grad_(), packed)
    theirs = F.linear(again.requires_grad_(), packed.whole())
    torch.testing.assert_close(ours, theirs)
    for y in (ours, theirs):
        (y * torch.arange(6)).sum().backward()
    assert x.grad is not None and again.grad is not None
    torch.testing.assert_close(x.grad, again.grad)
