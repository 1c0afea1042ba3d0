"""A frozen weight held in 8 or 4 bits, made whole again for each product that needs it.

    int8   one scale a row:   w ≈ scale · q,  q in -127 … 127
    nf4    one scale for each 64 numbers of a row, q one of 16 quantiles of a normal distribution

In: a weight in float32. Out: a `PackedWeight`, and products with it whose backward pass makes the
weight whole once more instead of keeping it. It is never trained, and nothing is merged into it:
adapters learnt on it are merged into the weights that were packed
(training.md c.33; test_packed_product_matches_the_dense_one).

Source: Dettmers et al. 2023, arXiv 2305.14314 (NF4, and its sixteen values).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FORMATS = ("int8", "nf4")
BLOCK = 64
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A matrix (out, in) as codes and scales.

    Shapes: int8: codes (out, in) int8, scales (out, 1); nf4: codes (out, ⌈in / 64⌉ · 32) uint8, two
    to a byte, scales (out, ⌈in / 64⌉)
    """

    form: str
    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        return self.codes.nbytes + self.scales.nbytes

    def whole(self) -> Tensor:
        """The weight in float32. Shapes: → (out, in)"""
        if self.form == "int8":
            return self.codes.float() * self.scales
        num_out, num_in = self.shape
        pairs = torch.stack([self.codes >> 4, self.codes & 15], -1)  # (out, n, 2)
        values = NF4[pairs.flatten(1).long()]  # (out, blocks · 64)
        blocks = values.view(num_out, -1, BLOCK) * self.scales[..., None]
        return blocks.flatten(1)[:, :num_in].contiguous()


def pack(weight: Tensor, form: str) -> PackedWeight:
    """The weight in fewer bits; rows of zeros stay zero."""
    assert form in FORMATS, f"{form!r} is not one of {FORMATS}"
    shape = (weight.shape[0], weight.shape[1])
    weight = weight.detach().float()
    if form == "int8":
        scales = weight.abs().amax(1, keepdim=True) / 127  # (out, 1)
        codes = (weight / scales.clamp_min(1e-30)).round().clamp(-127, 127).to(torch.int8)
        return PackedWeight(form, shape, codes, scales)
    padded = F.pad(weight, (0, -shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))  # (out, n, 64)
    scales = padded.abs().amax(-1)  # (out, n)
    between = (NF4[1:] + NF4[:-1]) / 2
    near = torch.bucketize(padded / scales.clamp_min(1e-30)[..., None], between)
    codes = near.flatten(1).to(torch.uint8).unflatten(1, (-1, 2))
    return PackedWeight(form, shape, codes[..., 0] << 4 | codes[..., 1], scales)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: PackedWeight) -> Tensor:
        ctx.weight = weight
        return x @ weight.whole().to(x.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        return grads[0] @ ctx.weight.whole().to(grads[0].dtype), None


def packed_product(x: Tensor, weight: PackedWeight) -> Tensor:
    """x · Wᵀ. Shapes: x (..., in) → (..., out)"""
    return _PackedProduct.apply(x, weight)
