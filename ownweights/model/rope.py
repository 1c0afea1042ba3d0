"""Rotary position embedding, half-rotation convention of the hub's checkpoints, and its scalings.

A table holds cosines and sines of positions, made as far as they are needed. Two scalings depend
on how long the whole text is: longrope has one set of frequencies up to the window that the base
was trained with and another beyond it; dynamic NTK changes its base with every token beyond the
window. A whole pass over a text of T tokens uses, as transformers does, what T asks for. Of a
cached continuation:

    longrope      exact, if all tokens are read again when a text grows past `border`, once
                  (generate and the engine do; KVCache refuses what was read before)
    dynamic NTK   exact up to max_position_embeddings, where nothing is scaled yet; beyond, every
                  token would change all keys, so a cache is refused there (ContextTooLong)

Source: Su et al. 2021, arXiv 2104.09864; linear: Chen et al. 2023, arXiv 2306.15595; YaRN: Peng et
al. 2023, arXiv 2309.00071; longrope: Ding et al. 2024, arXiv 2402.13753; llama3 and dynamic NTK as
transformers 5.23 computes them. Checked: tests/model/test_rope.py against transformers and golden
values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ownweights.model.scaling import DEFAULT, UNSCALED, Scaling

_FIRST_POSITIONS = 4096  # tables longer than this grow as they are used
_BETA_FAST, _BETA_SLOW = 32.0, 1.0
_CPU = torch.device("cpu")
_NO_SPAN = 0.001  # the ramp's width where its ends meet


def rope_table(head_dim: int, max_positions: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, unscaled.

    Shapes: → cos (S, D), sin (S, D), the second half of D repeating the first
    """
    frequencies, factor = inverse_frequencies(
        head_dim, theta, UNSCALED, max_positions, max_positions
    )
    return _table(frequencies, factor, max_positions)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys to their positions; what of a head the tables do not cover stays.

    Shapes: x (B, T, heads, D), cos and sin (T, W) or (B, T, W), W ≤ D → as x
    """
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat([rotate(x[..., :width], cos, sin), x[..., width:]], dim=-1)
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)  # (..., T, 1, D)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class RopeTable:
    """The cosines and sines of one RoPE, for texts of any length that its kind allows."""

    def __init__(self, width: int, theta: float, scaling: Scaling, max_positions: int) -> None:
        self._width, self._theta, self._scaling = width, theta, scaling
        self._max_positions = max_positions
        self._tables: dict[tuple[bool, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def border(self) -> int | None:
        """The text length beyond which all keys are others; None where there is none."""
        is_long = self._scaling.rope_type == "longrope"
        return self._scaling.original_max_position_embeddings if is_long else None

    def of(self, length: int, device: torch.device = _CPU) -> tuple[Tensor, Tensor]:
        """Tables of at least `length` positions, as a text of that length is turned.

        Shapes: → cos (S, W), sin (S, W), S ≥ length
        """
        if self._scaling.rope_type == "dynamic" and length > self._max_positions:
            cos, sin = _table(*self.frequencies(length), length)
            return cos.to(device), sin.to(device)
        key = self.border is not None and length > self.border, device
        found = self._tables.get(key)
        if found is None or found[0].shape[0] < length:
            rows = _rounded_up(length, self._max_positions)
            cos, sin = _table(*self.frequencies(length), rows)
            found = self._tables[key] = cos.to(device), sin.to(device)
        return found

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tables for new tokens of rows that grow one by one, each row as its own length asks.

        Shapes: positions (B, T) → cos (B, T, W), sin (B, T, W)
        """
        length = int(positions.max()) + 1
        cos, sin = self.of(length, positions.device)
        cos, sin = cos[positions], sin[positions]  # (B, T, W)
        border = self.border
        if border is not None and length > border:
            is_long = (positions.amax(1) >= border)[:, None, None]  # (B, 1, 1)
            short = self.of(border, positions.device)
            before = positions.clamp_max(border - 1)
            cos = torch.where(is_long, cos, short[0][before])
            sin = torch.where(is_long, sin, short[1][before])
        return cos, sin

    def frequencies(self, length: int) -> tuple[Tensor, float]:
        """What a text of `length` tokens is turned by. Shapes: → (W/2,) in float64, and a factor"""
        return inverse_frequencies(
            self._width, self._theta, self._scaling, self._max_positions, length
        )


def inverse_frequencies(
    width: int, theta: float, scaling: Scaling, max_positions: int, length: int
) -> tuple[Tensor, float]:
    """The angle that one position adds to each pair, and what cosines and sines are multiplied by.

    Shapes: → (W/2,) in float64
    """
    plain = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)  # (W/2,)
    kind, factor = scaling.rope_type, scaling.factor or 1.0
    if kind == DEFAULT:
        return plain, 1.0
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "dynamic":
        stretch = factor * max(length, max_positions) / max_positions - (factor - 1)
        base = theta * stretch ** (width / (width - 2))
        return base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width), 1.0
    if kind == "llama3":
        return _llama3(plain, scaling), 1.0
    if kind == "yarn":
        return _yarn(plain, theta, scaling), _yarn_factor(scaling)
    assert kind == "longrope", f"{kind} is not a RoPE scaling"
    original = scaling.original_max_position_embeddings or max_positions
    divisors = scaling.long_factor if length > original else scaling.short_factor
    return (
        plain / torch.tensor(divisors, dtype=torch.float64),
        _longrope_factor(scaling, max_positions / original),
    )


def _llama3(plain: Tensor, scaling: Scaling) -> Tensor:
    factor, window = scaling.factor, scaling.original_max_position_embeddings
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    assert factor and window and low and high, "the scaling is complete"
    turns = window * plain / (2 * math.pi)  # how often each pair turns in the window
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (share + (1 - share) / factor)


def _yarn(plain: Tensor, theta: float, scaling: Scaling) -> Tensor:
    """Fast pairs as they are, slow ones divided by the factor, a ramp between."""
    width = 2 * plain.shape[0]
    factor, window = scaling.factor, scaling.original_max_position_embeddings
    assert factor and window, "the scaling is complete"

    def pair_that_turns(times: float) -> float:
        return width * math.log(window / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(scaling.beta_fast or _BETA_FAST)
    high = pair_that_turns(scaling.beta_slow or _BETA_SLOW)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = (high - low) or _NO_SPAN
    slow = ((torch.arange(width // 2, dtype=torch.float64) - low) / span).clamp(0, 1)
    return plain / factor * slow + plain * (1 - slow)


def _yarn_factor(scaling: Scaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    log = math.log(scaling.factor or 1.0)
    if scaling.mscale and scaling.mscale_all_dim:
        return (0.1 * scaling.mscale * log + 1) / (0.1 * scaling.mscale_all_dim * log + 1)
    return 0.1 * log + 1


def _longrope_factor(scaling: Scaling, stretch: float) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    factor = scaling.factor or stretch
    original = scaling.original_max_position_embeddings
    assert original, "the scaling is complete"
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _table(frequencies: Tensor, factor: float, rows: int) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # a table made while answering must serve training too
        frequencies = frequencies.clone()
        angles = torch.arange(rows, dtype=torch.float64)[:, None] * frequencies  # (S, W/2)
        angles = torch.cat([angles, angles], dim=-1)  # (S, W)
        cos, sin = angles.cos(), angles.sin()
        if factor != 1.0:
            cos, sin = cos * factor, sin * factor
        return cos.float(), sin.float()


def _rounded_up(length: int, max_positions: int) -> int:
    """All positions of a short window at once; of a long one, a power of two at a time."""
    if max_positions <= _FIRST_POSITIONS:
        return max(length, max_positions)
    wanted = max(_FIRST_POSITIONS, 1 << (length - 1).bit_length())
    return max(length, min(wanted, max_positions))
