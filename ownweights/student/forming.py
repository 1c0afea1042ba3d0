"""The weights as a training step uses them, made once for all the parts of the step.

In: a model and a compute dtype. Out: every linear layer told what to multiply by (`Acting`), the
tensors whose gradients are wanted besides the parameters, and, from their summed gradients, those
of the parameters. Parameters stay in float32, whatever is computed in.

In float32 an adapted layer multiplies by W + s·B·A; its factors get their gradient from that of the
whole matrix where that is the cheaper way (a rank that is high for the layer), else directly
(test_thin_and_dense_gradients_agree). In bfloat16 the sum would lose what is small in it, so the
adapter is computed beside the weight (test_small_updates_survive_bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ownweights.model.acting import Acting
from ownweights.model.lora import Linear
from ownweights.model.transformer import Transformer


class Forming:
    """What stays the same from step to step: which layers there are, frozen weights as copies."""

    def __init__(self, model: Transformer, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype
        self._layers = [m for m in model.modules() if isinstance(m, Linear)]
        frozen = [layer.weight for layer in self._layers if layer is not model.lm_head]
        head = model.model.embed_tokens if model.lm_head is None else model.lm_head
        self._copies = {
            id(weight): weight.detach().to(dtype)
            for weight in (*frozen, head.weight)
            if not weight.requires_grad
        }

    @contextmanager
    def step(self) -> Iterator[Formed]:
        """The model as a step computes with it; afterwards it is as it was."""
        formed = Formed()
        try:
            for layer in self._layers:
                layer.acting = self._act(layer, formed)
            if self.dtype != torch.float32:
                self.model.compute_dtype = self.dtype
                if self.model.lm_head is None:
                    self.model.acting_head = self._plain(
                        self.model.model.embed_tokens.weight, formed
                    )
            yield formed
        finally:
            for layer in self._layers:
                layer.acting = None
            self.model.compute_dtype = self.model.acting_head = None

    def _act(self, layer: Linear, formed: Formed) -> Acting:
        if layer.lora_a is None or layer.lora_b is None:
            return Acting(self._plain(layer.weight, formed), layer.bias)
        if layer is self.model.lm_head:  # its scores are made of one matrix, so that stays exact
            return Acting(formed.leaf(layer.effective_weight()), layer.bias)
        a, b, scale = layer.lora_a, layer.lora_b, layer.scale
        if self.dtype != torch.float32:
            low = self._copies[id(layer.weight)]
            factors = a.detach().to(self.dtype), b.detach().to(self.dtype)
            return Acting(low, layer.bias, a, b, *factors, scale, is_formed=False)
        if is_dense_cheaper(layer):
            return Acting(formed.leaf(layer.effective_weight()), layer.bias)
        weight = layer.effective_weight().detach()
        return Acting(weight, layer.bias, a, b, a.detach(), b.detach(), scale)

    def _plain(self, weight: Tensor, formed: Formed) -> Tensor:
        if not weight.requires_grad:
            return self._copies[id(weight)]
        return weight if weight.dtype == self.dtype else formed.leaf(weight, self.dtype)


class Formed:
    """The tensors of one step that stand for parameters, and what they were made by.

    A source is a parameter or a sum of parameters; gradients are passed on in its float32.
    """

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []
        self._sources: list[Tensor] = []

    def leaf(self, source: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor to multiply by, whose gradient goes on to what `source` was made of."""
        self._sources.append(source)
        self.leaves.append(source.detach().to(dtype).requires_grad_())
        return self.leaves[-1]

    def pass_on(self, grads: Sequence[Tensor | None]) -> None:
        """Add the parameters' gradients, from those of the leaves, which are in float32."""
        pairs = zip(self._sources, grads, strict=True)
        used = [(source, grad) for source, grad in pairs if grad is not None]
        if used:
            torch.autograd.backward([s for s, _ in used], [g for _, g in used])


def is_dense_cheaper(layer: Linear) -> bool:
    """Whether the gradient of the whole weight costs less than those of the factors.

    By tokens: in · out products for the weight, 2 · R · (in + out) for the factors.
    """
    assert layer.lora_a is not None, "asked of adapted layers"
    num_out, num_in = layer.weight.shape
    return num_in * num_out <= 2 * layer.lora_a.shape[0] * (num_in + num_out)
