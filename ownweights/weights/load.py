"""A checkpoint folder as a running model: names and shapes must be exactly right.

In: a hub folder (config.json, and model.safetensors or shards with an index) in any of three float
formats. Out: a `Transformer` that computes in float32. Invariant: every weight of the network is
read from the file, and every tensor in the file is used; anything else is refused by name
(test_load_model_refuses_*).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.config import read_config
from ownweights.model.transformer import Transformer
from ownweights.weights.fused import split_fused

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
STORED = (torch.float32, torch.bfloat16, torch.float16)
_TIED_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_MAX_NAMED = 5


def load_model(folder: Path) -> Transformer:
    """The model in a hub folder, in float32, ready to run.

    Raises: ModelError naming the file or tensor that is missing, not expected or of another shape
    """
    model = Transformer(read_config(folder))
    fill(model, read_tensors(folder), where=str(folder))
    return model.eval()


def fill(model: Transformer, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy hub-named tensors into the model, strictly."""
    wanted = model.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(".inv_freq")}
    found = split_fused(found, model.config, where)
    if model.lm_head is None and _TIED_HEAD in found:
        _check_tied(found, where)
        del found[_TIED_HEAD]
    _refuse("lacks", wanted.keys() - found.keys(), where)
    _refuse("has more than the network:", found.keys() - wanted.keys(), where)
    for name, tensor in found.items():
        _check_tensor(name, tensor, wanted[name], where)
        wanted[name].copy_(tensor)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the checkpoint, in one file or in shards."""
    if (folder / WEIGHTS_NAME).is_file():
        return read_file(folder / WEIGHTS_NAME)
    if not (folder / INDEX_NAME).is_file():
        raise ModelError(
            f"{folder} has neither {WEIGHTS_NAME} nor {INDEX_NAME}",
            hint="pickled checkpoints (.bin, .pt) are not read; save as safetensors",
        )
    weight_map = _read_index(folder / INDEX_NAME)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if "/" in shard or not (folder / shard).is_file():
            raise ModelError(f"{folder / INDEX_NAME} names the shard {shard!r}, which is not there")
        held = read_file(folder / shard)
        _refuse("lacks", (n for n, s in weight_map.items() if s == shard and n not in held), shard)
        tensors |= held
    return tensors


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}",
            hint="it may be cut short; copy or make it again",
        ) from None


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
        return {str(name): str(shard) for name, shard in weight_map.items()}
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a shard index: {error!r}") from None


def _check_tensor(name: str, tensor: Tensor, wanted: Tensor, where: str) -> None:
    if tensor.shape != wanted.shape:
        raise ModelError(
            f"{where}: {name} has shape {tuple(tensor.shape)}, expected {tuple(wanted.shape)}"
        )
    if tensor.dtype not in STORED:
        raise ModelError(
            f"{where}: {name} is stored as {tensor.dtype}, expected float32, bfloat16 or float16",
            hint="quantised checkpoints are not read; take the original one",
        )
    if not bool(tensor.isfinite().all()):
        raise ModelError(f"{where}: {name} holds NaN or infinity")


def _check_tied(tensors: Mapping[str, Tensor], where: str) -> None:
    embedding = tensors.get(_EMBEDDING)
    if embedding is not None and not torch.equal(tensors[_TIED_HEAD], embedding):
        raise ModelError(
            f"{where}: config.json ties the output head to the embedding, yet {_TIED_HEAD} differs",
            hint="set tie_word_embeddings to false in config.json",
        )


def _refuse(what: str, names: Iterable[str], where: str) -> None:
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - _MAX_NAMED} more" if len(listed) > _MAX_NAMED else ""
        raise ModelError(f"{where} {what} {', '.join(listed[:_MAX_NAMED])}{more}")
