"""Layers as a training step computes them: judged by plain autograd, finite steps and PEFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.model.acting import Acting, gated_mlp, projections, rms_norm

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64: where rounding is no excuse
BFLOAT16_TOLERANCE = 3e-3  # of a gradient's norm; one rounding to 8 bits is 2e-3 at most
WIDTH, INNER, RANK, SCALE = 6, 9, 2, 1.5
KINDS = ("frozen", "trained", "formed", "beside")


def parameters(kind: str, num_in: int, num_out: int, seed: int) -> list[Tensor]:
    """W, bias, A and B in float64; those that the kind trains want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((num_out, num_in), (num_out,), (RANK, num_in), (num_out, RANK))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    wanted = {"frozen": (), "trained": (0, 1)}.get(kind, (2, 3))
    return [t.requires_grad_(index in wanted) for index, t in enumerate(made)]


def acting(kind: str, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Acting:
    """How a step prepares a layer of that kind."""
    if kind in ("frozen", "trained"):
        return Acting(weight, bias)
    if kind == "formed":
        weight = (weight + SCALE * b @ a).detach()
    return Acting(weight, bias, a, b, a.detach(), b.detach(), SCALE, is_formed=kind == "formed")


def plain(kind: str, layer: Sequence[Tensor], x: Tensor) -> Tensor:
    """The definition."""
    weight, bias, a, b = layer
    return x @ weight.T + bias + (SCALE * (x @ a.T) @ b.T if kind in ("formed", "beside") else 0)


def gradients(function: Callable[[], Sequence[Tensor]], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of the outputs, each weighed by random numbers, to what wants one."""
    outs = function()
    generator = torch.Generator().manual_seed(9)
    value = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum() for out in outs
    )
    assert isinstance(value, Tensor)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [*outs, *torch.autograd.grad(value, wanted)]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("wants_input", [True, False])
@pytest.mark.parametrize("kinds", [("formed",), ("beside", "frozen", "trained"), KINDS], ids=str)
def test_projections_match_autograd(kinds: tuple[str, ...], wants_input: bool) -> None:
    layers = [parameters(kind, WIDTH, 3 + seed, seed) for seed, kind in enumerate(kinds)]
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64, requires_grad=wants_input)
    leaves = [x, *(leaf for layer in layers for leaf in layer)]
    pairs = list(zip(kinds, layers, strict=True))
    ours = gradients(lambda: projections([acting(k, *p) for k, p in pairs], x), leaves)
    theirs = gradients(lambda: [plain(kind, p, x) for kind, p in pairs], leaves)
    assert_same(ours, theirs)


@pytest.mark.parametrize("wants_input", [True, False])
@pytest.mark.parametrize("kinds", [(k, k, k) for k in KINDS[1:]] + [KINDS[:3], KINDS[1:]], ids=str)
def test_gated_mlp_matches_autograd(kinds: tuple[str, ...], wants_input: bool) -> None:
    shapes = ((WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH))
    layers = [
        parameters(k, *s, seed) for seed, (k, s) in enumerate(zip(kinds, shapes, strict=True))
    ]
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64, requires_grad=wants_input)
    leaves = [x, *(leaf for layer in layers for leaf in layer)]
    gate, up, down = (partial(plain, k, p) for k, p in zip(kinds, layers, strict=True))
    acts = [acting(k, *p) for k, p in zip(kinds, layers, strict=True)]
    ours = gradients(lambda: [gated_mlp(acts[0], acts[1], acts[2], x)], leaves)
    theirs = gradients(lambda: [down(F.silu(gate(x)) * up(x))], leaves)
    assert_same(ours, theirs)


def test_gated_mlp_with_nothing_below_computes_the_last_layer_alone() -> None:
    """Only down_proj is adapted and the input wants nothing: gate and up get no gradient."""
    layers = [parameters(k, *s, 1) for k, s in (
        ("frozen", (WIDTH, INNER)), ("frozen", (WIDTH, INNER)), ("beside", (INNER, WIDTH)),
    )]  # fmt: skip
    acts = [acting(k, *p) for k, p in zip(("frozen", "frozen", "beside"), layers, strict=True)]
    x = torch.randn(3, WIDTH, dtype=torch.float64)
    leaves = layers[2][2:]
    ours = gradients(lambda: [gated_mlp(acts[0], acts[1], acts[2], x)], leaves)
    inner = F.silu(plain("frozen", layers[0], x)) * plain("frozen", layers[1], x)
    assert_same(ours, gradients(lambda: [plain("beside", layers[2], inner)], leaves))


def test_gated_mlp_passes_gradcheck() -> None:
    layers = [parameters("beside", *s, i) for i, s in enumerate(
        ((WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH))
    )]  # fmt: skip
    x = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *factors: Tensor) -> Tensor:
        pairs = zip(factors[::2], factors[1::2], layers, strict=True)
        acts = [acting("beside", *layer[:2], a, b) for a, b, layer in pairs]
        return gated_mlp(acts[0], acts[1], acts[2], x)

    assert torch.autograd.gradcheck(function, (x, *(f for layer in layers for f in layer[2:])))


def test_rms_norm_passes_gradcheck() -> None:
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(WIDTH, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        rms_norm(x, weight, 1e-5), F.rms_norm(x, (WIDTH,), weight, 1e-5), **EXACT
    )
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5), (x, weight))


def test_rms_norm_of_bfloat16_is_float32_inside() -> None:
    x = torch.randn(4, 512).bfloat16().requires_grad_()
    weight = torch.rand(512, requires_grad=True)
    out = rms_norm(x, weight, 1e-5)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, F.rms_norm(x.float(), (512,), weight, 1e-5).bfloat16())
    out.float().pow(3).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.oracle
def test_bfloat16_gradients_match_peft() -> None:
    """training.md §b and c.43: the factors stay float32; PEFT computes them there, too."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = torch.nn.Sequential()
    base.lin = torch.nn.Linear(96, 160, bias=False, dtype=torch.bfloat16)
    config = LoraConfig(r=8, lora_alpha=12, target_modules=["lin"], init_lora_weights=False)
    theirs = get_peft_model(base, config).base_model.model.lin
    weight = theirs.base_layer.weight.detach()
    a, b = theirs.lora_A.default.weight, theirs.lora_B.default.weight
    assert a.dtype == b.dtype == torch.float32
    x = torch.randn(256, 96).bfloat16().requires_grad_()
    act = Acting(
        weight, None, a, b, a.detach().bfloat16(), b.detach().bfloat16(), 1.5, is_formed=False
    )
    grad = torch.randn(256, 160).bfloat16()
    outs = [projections((act,), x)[0], theirs(x)]
    for mine, other in zip(
        *(torch.autograd.grad(out, (x, a, b), grad) for out in outs), strict=True
    ):
        assert mine.dtype == other.dtype
        error = (mine.float() - other.float()).norm() / other.float().norm()
        assert error <= BFLOAT16_TOLERANCE
