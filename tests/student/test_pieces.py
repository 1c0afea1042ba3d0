"""What a worker computes at a time: the same rows, less padding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ownweights.student.examples import pad_rows
from ownweights.student.trainer import batch_loss, halves, piece_tokens, pieces, trimmed
from tests.student.rows import SMALL, make_rows
from tests.tiny import tiny_model


@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_halves_always_hold_all_rows_in_order(count: int, seed: int) -> None:
    batch = pad_rows(make_rows(count, seed))
    pieces = halves(batch)
    assert [len(piece.tokens) for piece in pieces] == [n for n in (count // 2, -(-count // 2)) if n]
    assert torch.equal(torch.cat([piece.tokens for piece in pieces]), batch.tokens)
    assert torch.equal(torch.cat([piece.targets for piece in pieces]), batch.targets)
    read = [piece.tokens.flatten()[piece.where] for piece in pieces]
    assert torch.equal(torch.cat(read), batch.tokens.flatten()[batch.where])


@given(count=st.integers(1, 9), seed=st.integers(0, 99), most=st.integers(1, 80))
def test_pieces_always_read_and_train_the_same(count: int, seed: int, most: int) -> None:
    batch = pad_rows(make_rows(count, seed))
    parts = pieces(batch, most)
    assert all(part.tokens.numel() <= most or len(part.tokens) == 1 for part in parts)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    read = [part.tokens.flatten()[part.where] for part in parts]
    assert torch.equal(torch.cat(read), batch.tokens.flatten()[batch.where])
    assert sum(part.tokens.numel() for part in parts) <= batch.tokens.numel()


def test_piece_tokens_go_by_what_a_layer_keeps() -> None:
    small = tiny_model(1).config
    large = replace(small, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    assert piece_tokens(small, torch.float32) > 8192  # a whole part
    assert 256 < piece_tokens(large, torch.float32) < 512
    assert piece_tokens(large, torch.bfloat16) // 2 == piece_tokens(large, torch.float32)
    assert piece_tokens(replace(large, hidden_size=8192), torch.float32) == 256


def test_trimmed_gives_the_same_loss_of_less() -> None:
    """Right padding needs no mask, and none of it is computed that nothing trained looks at."""
    rows = make_rows(5, 2)
    batch = pad_rows(rows)
    wide = replace(
        batch, tokens=F.pad(batch.tokens, (0, 7)),
        where=batch.where // batch.tokens.shape[1] * 7 + batch.where,
    )  # fmt: skip
    assert torch.equal(trimmed(wide).tokens, batch.tokens)
    model = tiny_model(1, **SMALL)
    apart = sum(float(batch_loss(model, pad_rows([row]), 1.0).detach()) for row in rows)
    for padded in (batch, wide, trimmed(wide)):
        assert float(batch_loss(model, padded, 1.0).detach()) == pytest.approx(apart, rel=1e-5)
