"""Phi's fused projections: split and joined byte for byte, and adapters with one product."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownweights.core.errors import ModelError
from ownweights.model.lora import LoraConfig, lora_layers, merge_lora
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import (
    ADAPTER_NAME,
    CONFIG_NAME,
    attach_adapter,
    read_adapter,
    save_adapter,
)
from ownweights.weights.fused import join_adapter, join_fused, split_adapter, split_fused
from ownweights.weights.load import WEIGHTS_NAME, load_model
from ownweights.weights.save import save_model
from tests.model.test_transformer import relative_error, some_tokens
from tests.tiny import LORA, tiny_model, with_adapter
from tests.variants import VARIANTS

PHI = VARIANTS["phi"]
QKV = "model.layers.1.self_attn.qkv_proj.weight"
LOGIT_TOLERANCE = 1e-4  # as two implementations in float32
SAME_TOLERANCE = 1e-6  # the same products with zeros among the summands


@torch.inference_mode()
def logits(model: Transformer) -> torch.Tensor:
    return model.logits(model(some_tokens(2, 20)))


def test_fused_round_trip() -> None:
    model = tiny_model(**PHI)
    state = model.state_dict()
    joined = join_fused(state, model.config)
    assert "model.layers.0.self_attn.q_proj.weight" not in joined
    assert joined[QKV].shape == (4 * 8 + 2 * 2 * 8, 32)
    assert joined["model.layers.0.mlp.gate_up_proj.weight"].shape == (96, 32)
    split = split_fused(joined, model.config, "here")
    assert split.keys() == state.keys()
    assert all(torch.equal(split[name], state[name]) for name in state)


def test_fused_leaves_other_families_alone() -> None:
    model = tiny_model()
    assert join_fused(model.state_dict(), model.config).keys() == model.state_dict().keys()


def test_load_model_refuses_a_fused_tensor_of_another_size(tmp_path: Path) -> None:
    save_model(tiny_model(**PHI), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_NAME)
    tensors[QKV] = tensors[QKV][:-1].contiguous()
    save_file(tensors, tmp_path / WEIGHTS_NAME)
    with pytest.raises(ModelError, match=r"qkv_proj\.weight has shape \(63, 32\), expected 64"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "targets", [(*LORA.targets, "lm_head"), ("q_proj", "v_proj", "up_proj", "down_proj")]
)
def test_split_adapter_undoes_join_adapter(targets: tuple[str, ...]) -> None:
    config = LoraConfig(4, 8.0, targets)
    model = tiny_model(**PHI)
    model.own_head()
    layers = lora_layers(with_adapter(model, 3, config), targets).items()
    held = {name: (layer.lora_a.detach(), layer.lora_b.detach()) for name, layer in layers
            if layer.lora_a is not None and layer.lora_b is not None}  # fmt: skip
    joined, wide = join_adapter(held, config, model.config)
    assert wide.rank == 12
    split, narrow = split_adapter(joined, wide, model.config)
    assert (narrow.rank, narrow.alpha) == (4, 8.0)
    assert set(targets) <= set(narrow.targets)
    for name, factors in held.items():
        assert all(map(torch.equal, split[name], factors))
    again, same = split_adapter(split, narrow, model.config)
    assert same == narrow and again.keys() == split.keys()


@pytest.mark.parametrize("targets", [LORA.targets, ("q_proj", "v_proj", "up_proj")])
def test_adapter_of_phi_round_trip(tmp_path: Path, targets: tuple[str, ...]) -> None:
    config = LoraConfig(4, 8.0, targets)
    model = with_adapter(tiny_model(**PHI), 3, config)
    save_adapter(model, config, tmp_path, base_id="b", base_name="phi")
    raw = json.loads((tmp_path / CONFIG_NAME).read_text("utf-8"))
    assert (raw["r"], raw["lora_alpha"]) == (12, 24)
    assert "qkv_proj" in raw["target_modules"] and "q_proj" not in raw["target_modules"]
    again = tiny_model(**PHI)
    attach_adapter(again, read_adapter(tmp_path))
    assert relative_error(logits(again), logits(model)) <= SAME_TOLERANCE
    merge_lora(again)
    assert relative_error(logits(again), logits(model)) <= SAME_TOLERANCE


def test_adapter_of_a_fused_module_is_refused_where_nothing_is_fused(tmp_path: Path) -> None:
    model = with_adapter(tiny_model(**PHI), 3)
    save_adapter(model, LORA, tmp_path, base_id="b", base_name="phi")
    with pytest.raises(ModelError, match="names an unknown layer"):
        attach_adapter(tiny_model(), read_adapter(tmp_path))


def test_adapter_of_phi_refuses_factors_of_another_size(tmp_path: Path) -> None:
    save_adapter(with_adapter(tiny_model(**PHI), 3), LORA, tmp_path, base_id="b", base_name="phi")
    tensors = load_file(tmp_path / ADAPTER_NAME)
    name = "base_model.model.model.layers.0.self_attn.qkv_proj.lora_B.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, tmp_path / ADAPTER_NAME)
    with pytest.raises(ModelError, match="has 63 rows, expected 64"):
        attach_adapter(tiny_model(**PHI), read_adapter(tmp_path))


def test_every_family_has_the_layers_that_adapters_name() -> None:
    for shape in VARIANTS.values():
        model = tiny_model(**shape)
        assert len(lora_layers(model, LORA.targets)) == 7 * model.config.num_hidden_layers


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("shape", ["phi", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_adapter_of_every_family_matches_peft(shape: str, tmp_path: Path) -> None:
    """PEFT puts our folder on the hub's modules, fused or not, and gets our logits."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = tiny_model(**VARIANTS[shape])
    save_model(model, tmp_path / "base")
    with_adapter(model, 3)
    save_adapter(model, LORA, tmp_path / "adapter", base_id="b", base_name="base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.inference_mode():
        expected = theirs(some_tokens(2, 20)).logits
    assert relative_error(logits(model), expected) <= LOGIT_TOLERANCE


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapter_that_peft_trained_on_phi_is_read(tmp_path: Path) -> None:
    from peft import LoraConfig as TheirConfig
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    save_model(tiny_model(**PHI), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    targets = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    config = TheirConfig(r=3, lora_alpha=5, target_modules=targets, task_type="CAUSAL_LM")
    theirs = get_peft_model(base, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "base")
    attach_adapter(ours, read_adapter(tmp_path / "adapter"))
    with torch.inference_mode():
        expected = theirs(some_tokens(2, 20)).logits
    assert relative_error(logits(ours), expected) <= LOGIT_TOLERANCE
