"""Muon: judged by torch's, by singular values, and by what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ownweights.student.muon import Muon, orthogonalised

SHAPES = [(6, 10), (10, 6), (6, 10), (8, 8), (1, 5)]
BF16_REL = 0.05  # torch iterates in bfloat16: five steps of a relative rounding of 0.4 %


def make_matrices(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(matrices: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_matches_torch(weight_decay: float) -> None:
    ours, theirs, start = make_matrices(), make_matrices(), make_matrices()
    mine = Muon(ours, 0.02, weight_decay=weight_decay)
    other = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        for matrices, optimiser in ((ours, mine), (theirs, other)):
            give_gradients(matrices, step)
            optimiser.step()
    for a, b, first in zip(ours, theirs, start, strict=True):
        assert float((a - b).detach().norm()) < BF16_REL * float((b - first).detach().norm())


@given(
    rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 2**31),
    size=st.sampled_from([1e-4, 1.0, 1e6]),
)  # fmt: skip
def test_orthogonalised_keeps_directions_and_evens_lengths(
    rows: int, columns: int, seed: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    count = min(rows, columns)
    values = torch.rand(count, generator=generator) * 0.9 + 0.1
    matrix = size * left[:, :count] * values @ right[:, :count].T
    found = left[:, :count].T @ orthogonalised(matrix[None])[0] @ right[:, :count]
    assert bool((found.diagonal() > 0.6).all()) and bool((found.diagonal() < 1.3).all())
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-3, rtol=0)


def test_orthogonalised_matrices_do_not_see_each_other() -> None:
    both = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonalised(one[None]) for one in both])
    torch.testing.assert_close(orthogonalised(both), alone)


def test_orthogonalised_nothing_is_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


def test_muon_steps_have_about_the_size_of_adamw_s() -> None:
    (matrix,) = ours = [nn.Parameter(torch.zeros(64, 256))]
    give_gradients(ours, 0)
    Muon(ours, 0.01).step()
    rms = float(matrix.detach().square().mean().sqrt())
    assert rms == pytest.approx(0.01 * 0.2, rel=0.2)


def test_muon_leaves_a_matrix_without_gradient() -> None:
    ours, start = make_matrices(), make_matrices()
    give_gradients(ours, 0)
    ours[0].grad = None
    Muon(ours, 0.1, weight_decay=0.5).step()
    assert torch.equal(ours[0], start[0])
    assert not any(torch.equal(a, b) for a, b in zip(ours[1:], start[1:], strict=True))


def test_muon_moves_only_matrices() -> None:
    with pytest.raises(AssertionError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))], 0.1)


def test_muon_goes_on_from_its_state() -> None:
    whole, parted = make_matrices(), make_matrices()
    first, before = Muon(whole, 0.1), Muon(parted, 0.1)
    for matrices, optimiser in ((whole, first), (parted, before)):
        give_gradients(matrices, 0)
        optimiser.step()
    after = Muon(parted, 0.1)
    after.load_state_dict(before.state_dict())
    for matrices, optimiser in ((whole, first), (parted, after)):
        give_gradients(matrices, 1)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, parted, strict=True))
