"""Phi's fused projections: split when a checkpoint or adapter is read, joined when it is written.

    qkv_proj      rows of q, then k, then v          gate_up_proj      rows of gate, then up

The network has the seven projections that every family has, so LoRA's targets hold for all.
Splitting a tensor and joining it again gives the same bytes (test_fused_round_trip). An adapter of
a fused projection has one A for all its parts: reading gives each part that A and its own rows of
B, which is the same product. Writing puts the parts' As under one another and their Bs on a
diagonal, exact at three times the rank; the other layers get zeros to the same rank, as portable
readers want one rank everywhere (test_adapter_of_every_family_matches_peft).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig
from ownweights.model.lora import HEAD, TARGETS, LoraConfig

PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_WHOLE_OF = {part: whole for whole, parts in PARTS.items() for part in parts}
_MOST_PARTS = max(len(parts) for parts in PARTS.values())
Factors = Mapping[str, tuple[Tensor, Tensor]]


def split_fused(
    tensors: Mapping[str, Tensor], config: ModelConfig, where: str
) -> dict[str, Tensor]:
    """Hub tensors under the names of the network's seven projections.

    Raises: ModelError naming a fused tensor of another size
    """
    if not config.family.is_fused:
        return dict(tensors)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, whole, rest = _place(name)
        if whole not in PARTS:
            found[name] = tensor
            continue
        rows = _rows(whole, config)
        if tensor.ndim == 0 or tensor.shape[0] != sum(rows):
            raise ModelError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, expected {sum(rows)} rows"
            )
        for part, piece in zip(PARTS[whole], tensor.split(rows), strict=True):
            found[f"{path}{part}{rest}"] = piece
    return found


def join_fused(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The network's tensors under the hub's names."""
    if not config.family.is_fused:
        return dict(tensors)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, part, rest = _place(name)
        whole = _WHOLE_OF.get(part)
        if whole is None:
            found[name] = tensor
        elif part == PARTS[whole][0]:
            pieces = [tensors[f"{path}{one}{rest}"] for one in PARTS[whole]]
            found[f"{path}{whole}{rest}"] = torch.cat(pieces)
    return found


def join_adapter(
    factors: Factors, lora: LoraConfig, config: ModelConfig
) -> tuple[dict[str, tuple[Tensor, Tensor]], LoraConfig]:
    """An adapter of the seven projections as one of the hub's modules, with the same product.

    A part that has no factors gets zeros.
    """
    if not config.family.is_fused:
        return dict(factors), lora
    rank = _MOST_PARTS * lora.rank
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (a, b) in factors.items():
        path, part, _ = _place(f"{name}.")
        whole = _WHOLE_OF.get(part)
        if whole is None:
            found[name] = _padded(a, b, rank)
        elif f"{path}{whole}" not in found:
            found[f"{path}{whole}"] = _padded(*_stacked(factors, path, whole, config), rank)
    targets = {_WHOLE_OF.get(one, one) for one in lora.targets}
    joined = LoraConfig(rank, lora.alpha * _MOST_PARTS, tuple(sorted(targets)))
    return found, joined


def split_adapter(
    factors: Factors, lora: LoraConfig, config: ModelConfig
) -> tuple[dict[str, tuple[Tensor, Tensor]], LoraConfig]:
    """An adapter of the hub's modules as one of the seven projections, with the same product.

    What `join_adapter` wrote has its own rank again (test_split_adapter_undoes_join_adapter).
    """
    if not config.family.is_fused:
        return dict(factors), lora
    found: dict[str, tuple[Tensor, Tensor]] = {}
    num_fused = 0
    for name, (a, b) in factors.items():
        path, whole, _ = _place(f"{name}.")
        if whole not in PARTS:
            found[name] = (a, b)
            continue
        num_fused += 1
        rows = _rows(whole, config)
        if b.shape[0] != sum(rows):
            raise ModelError(f"the adapter of {name} has {b.shape[0]} rows, expected {sum(rows)}")
        for part, piece in zip(PARTS[whole], b.split(rows), strict=True):
            found[f"{path}{part}"] = (a, piece)
    wanted = {part for one in lora.targets for part in PARTS.get(one, (one,))}
    targets = tuple(one for one in (*TARGETS, HEAD) if one in wanted)
    own = _own_ranks(found, lora.rank) if num_fused else None
    if own is None:
        return found, LoraConfig(lora.rank, lora.alpha, targets)
    return own, LoraConfig(lora.rank // _MOST_PARTS, lora.alpha / _MOST_PARTS, targets)


def _own_ranks(factors: Factors, rank: int) -> dict[str, tuple[Tensor, Tensor]] | None:
    """The factors without the zeros that joining put around them; None where there is more."""
    own, rest = divmod(rank, _MOST_PARTS)
    if rest:
        return None
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (a, b) in factors.items():
        part = _place(f"{name}.")[1]
        start = own * PARTS[_WHOLE_OF[part]].index(part) if part in _WHOLE_OF else 0
        kept = slice(start, start + own)
        if b[:, :start].any() or b[:, start + own :].any():
            return None
        found[name] = (a[kept], b[:, kept])
    return found


def _stacked(factors: Factors, path: str, whole: str, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The As of a module's parts under one another, their Bs on a diagonal."""
    held = [factors.get(f"{path}{part}") for part in PARTS[whole]]
    like, rank = next((a, a.shape[0]) for a, _ in filter(None, held))
    pairs = [
        pair or (like.new_zeros(rank, like.shape[1]), like.new_zeros(rows, rank))
        for pair, rows in zip(held, _rows(whole, config), strict=True)
    ]
    return torch.cat([a for a, _ in pairs]), torch.block_diag(*(b for _, b in pairs))


def _padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors with zeros up to a rank. Shapes: a (R, in), b (out, R)"""
    more = rank - a.shape[0]
    return torch.cat([a, a.new_zeros(more, a.shape[1])]), torch.cat(
        [b, b.new_zeros(b.shape[0], more)], dim=1
    )


def _rows(whole: str, config: ModelConfig) -> list[int]:
    """How many rows of a fused tensor each of its parts has."""
    if whole == "gate_up_proj":
        return [config.intermediate_size] * 2
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    return [count * config.head_dim for count in heads]


def _place(name: str) -> tuple[str, str, str]:
    """A tensor's name as what stands before its module, the module, and the rest with its point."""
    head, _, leaf = name.rpartition(".")
    path, _, module = head.rpartition(".")
    return f"{path}." if path else "", module, f".{leaf}"
