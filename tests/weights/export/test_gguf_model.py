"""What stands in a GGUF file of a model or an adapter, read back by the format's own package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ownweights.core.errors import ArtefactMissing, ModelError, UpdateLost, UsageError
from ownweights.model.lora import LoraConfig
from ownweights.weights.adapter import read_adapter
from ownweights.weights.export.gguf_adapter import write_adapter_gguf
from ownweights.weights.export.gguf_file import export_adapter_gguf, export_gguf
from ownweights.weights.export.names import interleave_rows
from ownweights.weights.export.numbers import as_stored
from ownweights.weights.load import load_model
from ownweights.weights.student import load_student
from tests.tiny import CHAT_TEMPLATE, CONFIG, SPECIAL_TOKENS
from tests.weights.made import WORDS, make_full, make_lora, project_with_base

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


class Read:
    """Keys and tensors of a GGUF file."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.types = {one.name: one.tensor_type.name for one in reader.tensors}
        self.tensors = {
            one.name: torch.from_numpy(
                np.array(gguf.quants.dequantize(one.data, one.tensor_type), np.float32)
            )
            for one in reader.tensors
        }


def test_export_gguf_of_a_base_says_its_shape_and_words(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    made = export_gguf(project, "tiny", tmp_path / "tiny.gguf", dtype="f32")
    assert (made.kind, made.survival) == ("base", None)
    found = Read(made.path).keys
    expected: dict[str, Any] = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 32,
        "llama.context_length": 96, "llama.feed_forward_length": 48, "llama.vocab_size": WORDS,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8, "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10_000.0, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "superbpe", "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert found["tokenizer.ggml.tokens"][:7] == list(SPECIAL_TOKENS)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_export_gguf_rounds_once(tmp_path: Path, dtype: str, is_tied: bool) -> None:
    """training.md c.33: merged in float32, then stored; never merged into what was rounded."""
    project = project_with_base(tmp_path, tie_word_embeddings=is_tied)
    student = make_lora(project)
    made = export_gguf(project, student, tmp_path / "student.gguf", dtype=dtype)
    found, exact = Read(made.path), load_student(project, student).model.state_dict()
    assert ("output.weight" in found.tensors) is not is_tied
    name = "model.layers.1.self_attn.q_proj.weight"
    expected = as_stored(interleave_rows(exact[name], 4), dtype)
    assert torch.equal(found.tensors["blk.1.attn_q.weight"], expected)
    down = as_stored(exact["model.layers.0.mlp.down_proj.weight"], dtype)
    assert torch.equal(found.tensors["blk.0.ffn_down.weight"], down)
    norm = exact["model.norm.weight"]
    assert torch.equal(found.tensors["output_norm.weight"], norm)
    assert found.types["output_norm.weight"] == "F32"
    assert found.types["blk.0.attn_q.weight"] == dtype.upper()
    assert found.types["blk.0.ffn_down.weight"] == ("F16" if dtype == "q8_0" else dtype.upper())
    assert made.survival is not None and made.survival.cosine > 0.98


def test_export_gguf_refuses_a_format_that_loses_the_update(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project, update_std=1e-4)
    path = tmp_path / "student.gguf"
    with pytest.raises(UpdateLost):
        export_gguf(project, student, path, dtype="bf16")
    assert not path.exists()
    assert export_gguf(project, student, path, dtype="bf16", is_forced=True).survival is not None
    export_gguf(project, student, path, dtype="f32")


def test_export_gguf_of_full_weights(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    made = export_gguf(project, make_full(project), tmp_path / "full.gguf", dtype="f16")
    assert made.kind == "student"


def test_export_gguf_says_when_there_is_nothing_of_that_name(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    with pytest.raises(ArtefactMissing, match="neither a student nor a base 'nope'") as refusal:
        export_gguf(project, "nope", tmp_path / "a.gguf")
    assert "own student show" in (refusal.value.hint or "")


def test_export_gguf_tells_every_end_of_an_answer(tmp_path: Path) -> None:
    """training.md c.17: EOS, end of turn and one more; a fourth cannot be told."""
    project = project_with_base(tmp_path, eos_token_ids=(3, 4))
    keys = Read(export_gguf(project, "tiny", tmp_path / "a.gguf").path).keys
    ends = [keys[f"tokenizer.ggml.{kind}_token_id"] for kind in ("eos", "eot", "eom")]
    assert ends == [2, 3, 4]
    more = project_with_base(tmp_path / "more", eos_token_ids=(3, 4, 5))
    with pytest.raises(ModelError, match=r"4 tokens end an answer, llama.cpp can be told 3"):
        export_gguf(more, "tiny", tmp_path / "b.gguf")


@pytest.mark.parametrize("rank", [3, 8])
def test_export_adapter_gguf_is_of_one_rank_and_alpha(tmp_path: Path, rank: int) -> None:
    """training.md c.40: alpha over the rank is one, for every tensor."""
    project = project_with_base(tmp_path)
    student = make_lora(project, LoraConfig(rank, 6.0))
    made = export_adapter_gguf(project, student, tmp_path / "adapter.gguf")
    found = Read(made.path)
    assert found.keys["general.type"] == "adapter"
    assert (found.keys["adapter.type"], found.keys["adapter.lora.alpha"]) == ("lora", 8.0)
    assert len(found.tensors) == 2 * 7 * 2
    base = load_model(tmp_path / "tiny").state_dict()
    exact = load_student(project, student).model.state_dict()
    for name, ours in (("self_attn.k_proj", "attn_k"), ("mlp.gate_proj", "ffn_gate")):
        a, b = (found.tensors[f"blk.0.{ours}.weight.lora_{side}"] for side in "ab")
        full = f"model.layers.0.{name}.weight"
        update = exact[full] - base[full]
        expected = interleave_rows(update, 2) if "attn" in ours else update
        assert torch.allclose(b @ a, expected, atol=1e-5)


def test_export_adapter_gguf_refuses(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project)
    with pytest.raises(UsageError, match="an adapter is not stored as q8_0"):
        export_adapter_gguf(project, student, tmp_path / "a.gguf", dtype="q8_0")
    with pytest.raises(ModelError, match="has weights of its own"):
        export_adapter_gguf(project, make_full(project), tmp_path / "a.gguf")


def test_write_adapter_gguf_refuses_a_head(tmp_path: Path) -> None:
    """training.md c.41."""
    project = project_with_base(tmp_path)
    adapter = read_adapter(project.kind_dir("student") / make_lora(project))
    factors = {**adapter.factors, "lm_head": (torch.ones(4, 32), torch.ones(WORDS, 4))}
    with_head = type(adapter)(adapter.config, factors, None)
    with pytest.raises(ModelError, match=r"llama.cpp loads no adapter of lm_head"):
        write_adapter_gguf(with_head, CONFIG, tmp_path / "a.gguf", name="a")
