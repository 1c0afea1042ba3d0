"""Checkpoints are read exactly or refused by the name of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownweights.core.errors import ModelError
from ownweights.weights.load import INDEX_NAME, WEIGHTS_NAME, load_model, read_tensors
from ownweights.weights.save import save_model
from tests.tiny import make_base, tiny_model

Tensors = dict[str, torch.Tensor]
UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> Path:
    """A base whose tensors were changed on disk."""
    make_base(folder)
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME)
    return folder


def shard(folder: Path) -> Path:
    """A base whose tensors lie in two files with an index."""
    make_base(folder)
    tensors = load_file(folder / WEIGHTS_NAME)
    (folder / WEIGHTS_NAME).unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / INDEX_NAME).write_text(json.dumps(index), "utf-8")
    return folder


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    mine, yours = ours.state_dict(), theirs.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(mine[n], yours[n]) for n in mine)


def test_load_model_reads_shards_as_one(tmp_path: Path) -> None:
    assert same(load_model(shard(tmp_path)), tiny_model())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_load_model_computes_in_float32_whatever_is_stored(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    save_model(tiny_model(), tmp_path, dtype=dtype)
    model = load_model(tmp_path)
    for name, weight in tiny_model().state_dict().items():
        found = model.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, weight.to(dtype).float())


def test_load_model_ignores_the_rope_tables_of_old_checkpoints(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert same(
        load_model(rewrite(tmp_path, lambda t: t.update({name: torch.ones(4)}))), tiny_model()
    )


def test_load_model_takes_a_tied_head_that_is_the_embedding(tmp_path: Path) -> None:
    folder = rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t[EMBEDDING].clone()}))
    assert same(load_model(folder), tiny_model())


def test_load_model_refuses_a_tied_head_that_differs(tmp_path: Path) -> None:
    folder = rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t[EMBEDDING] + 1}))
    with pytest.raises(ModelError, match=r"yet lm_head\.weight differs") as refusal:
        load_model(folder)
    assert "tie_word_embeddings" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(UP), f"lacks {UP}"),
        (lambda t: t.update(extra=torch.ones(1)), "has more than the network: extra"),
        (lambda t: t.update({UP: t[UP][:, :-1].contiguous()}),
         f"{UP} has shape (48, 31), expected (48, 32)"),
        (lambda t: t.update({UP: t[UP].double()}), f"{UP} is stored as torch.float64"),
        (lambda t: t[UP].view(-1)[3].fill_(torch.nan), f"{UP} holds NaN or infinity"),
        (lambda t: t[UP].view(-1)[3].fill_(torch.inf), f"{UP} holds NaN or infinity"),
    ],
)  # fmt: skip
def test_load_model_refuses_a_wrong_tensor_by_name(
    tmp_path: Path, change: Callable[[Tensors], object], said: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        load_model(rewrite(tmp_path, change))
    assert said in str(refusal.value)


def test_load_model_names_five_of_many(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks (\S+, ){4}\S+ and 14 more"):
        load_model(rewrite(tmp_path, lambda t: [t.pop(n) for n in list(t) if n != EMBEDDING]))


def test_load_model_says_that_pickles_are_not_read(tmp_path: Path) -> None:
    (make_base(tmp_path) / WEIGHTS_NAME).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has neither model\.safetensors nor") as refusal:
        load_model(tmp_path)
    assert "pickled checkpoints" in (refusal.value.hint or "")


def test_load_model_refuses_a_file_cut_short(tmp_path: Path) -> None:
    path = make_base(tmp_path) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors file") as refusal:
        load_model(tmp_path)
    assert "cut short" in (refusal.value.hint or "")


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_read_tensors_refuses_a_broken_index(tmp_path: Path, content: str) -> None:
    (shard(tmp_path) / INDEX_NAME).write_text(content, "utf-8")
    with pytest.raises(ModelError, match="is not a shard index"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model-3.safetensors", "../model-1.safetensors"])
def test_read_tensors_refuses_a_shard_that_is_not_there(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {EMBEDDING: name}}
    (shard(tmp_path) / INDEX_NAME).write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError, match="names the shard"):
        read_tensors(tmp_path)


def test_read_tensors_refuses_a_shard_without_its_tensor(tmp_path: Path) -> None:
    folder = shard(tmp_path)
    index = json.loads((folder / INDEX_NAME).read_text("utf-8"))
    index["weight_map"]["ghost"] = "model-1.safetensors"
    (folder / INDEX_NAME).write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError, match=r"model-1\.safetensors lacks ghost"):
        read_tensors(folder)
