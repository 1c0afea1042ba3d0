"""Adapters as PEFT writes them: read exactly, or refused by the name of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownweights.core.errors import ArtefactMissing, ModelError
from ownweights.model.lora import LoraConfig, merge_lora
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import (
    ADAPTER_NAME,
    CONFIG_NAME,
    attach_adapter,
    read_adapter,
    save_adapter,
)
from ownweights.weights.save import save_model
from tests.tiny import LORA, tiny_model, with_adapter

ROUNDING = 1e-5
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


def write(folder: Path, config: LoraConfig = LORA, seed: int = 5) -> Path:
    model = with_adapter(tiny_model(), seed, config)
    save_adapter(model, config, folder, base_id="abc", base_name="tiny")
    return folder


def logits(model: Transformer) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model(torch.arange(7, 27).view(2, 10)))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    (folder / CONFIG_NAME).write_text(json.dumps({**config, **changes}), "utf-8")


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / ADAPTER_NAME)
    change(tensors)
    save_file(tensors, folder / ADAPTER_NAME)


def read_onto_base(folder: Path, **changes: Any) -> Transformer:
    model = tiny_model(**changes)
    attach_adapter(model, read_adapter(folder))
    return model


@pytest.mark.parametrize(
    "config",
    [
        LORA,
        LoraConfig(rank=1, alpha=1.0),
        LoraConfig(rank=8, alpha=12.5, targets=("q_proj", "v_proj")),
    ],
)
def test_adapter_round_trip(tmp_path: Path, config: LoraConfig) -> None:
    folder = write(tmp_path, config)
    adapter = read_adapter(folder, base_id="abc")
    assert adapter.config == config
    assert adapter.base_id == "abc"
    expected = with_adapter(tiny_model(), 5, config)
    assert torch.equal(logits(read_onto_base(folder)), logits(expected))
    trained = [p for p in expected.parameters() if p.requires_grad]
    assert adapter.num_parameters == sum(p.numel() for p in trained)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("targets", [LORA.targets, ("q_proj", "down_proj")])
def test_adapter_matches_peft(tmp_path: Path, targets: tuple[str, ...]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = LoraConfig(rank=4, alpha=6.0, targets=targets)
    save_model(tiny_model(), tmp_path / "base")
    folder = write(tmp_path / "adapter", config)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(base, folder)
    with torch.inference_mode():
        expected = theirs(torch.arange(7, 27).view(2, 10)).logits
    ours = read_onto_base(folder)
    assert (logits(ours) - expected).abs().max() <= ROUNDING * expected.abs().max()
    merge_lora(ours)
    assert (logits(ours) - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("is_stabilised", [False, True])
def test_adapter_that_peft_wrote_is_read(tmp_path: Path, is_stabilised: bool) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    save_model(tiny_model(), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = PeftConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM",
        init_lora_weights=False, use_rslora=is_stabilised,
    )  # fmt: skip
    theirs = get_peft_model(base, config)
    theirs.save_pretrained(tmp_path / "adapter")
    with torch.inference_mode():
        expected = theirs(torch.arange(7, 27).view(2, 10)).logits
    ours = logits(read_onto_base(tmp_path / "adapter"))
    assert (ours - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file in tiny:UserWarning")
def test_save_adapter_uses_the_keys_and_names_of_peft(tmp_path: Path) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = write(tmp_path / "ours")
    config = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    assert config.keys() <= PeftConfig(task_type="CAUSAL_LM").to_dict().keys() | {"peft_version"}
    save_model(tiny_model(), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    PeftModel.from_pretrained(base, folder).save_pretrained(tmp_path / "theirs")
    ours, theirs = load_file(folder / ADAPTER_NAME), load_file(tmp_path / "theirs" / ADAPTER_NAME)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_save_adapter_names_tensors_as_peft(tmp_path: Path) -> None:
    names = load_file(write(tmp_path) / ADAPTER_NAME)
    assert f"{QUERY}.lora_A.weight" in names
    assert names[f"{QUERY}.lora_A.weight"].shape == (4, 32)
    assert names["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"].shape == (32, 4)


def test_save_adapter_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="q_proj has no adapter"):
        save_adapter(tiny_model(), LORA, tmp_path, base_id="abc", base_name="tiny")


@pytest.mark.parametrize("name", [CONFIG_NAME, ADAPTER_NAME])
def test_read_adapter_refuses_a_folder_without_its_files(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(ArtefactMissing, match=f"has no {name}"):
        read_adapter(tmp_path)


def test_read_adapter_refuses_another_base(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="was trained on base abc, not on xyz") as refusal:
        read_adapter(write(tmp_path), base_id="xyz")
    assert "point `base` at" in (refusal.value.hint or "")


def test_read_adapter_takes_one_that_does_not_know_its_base(tmp_path: Path) -> None:
    change_tensors(write(tmp_path), lambda tensors: None)  # rewritten without our metadata
    assert read_adapter(tmp_path, base_id="xyz").base_id is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported, expected 'LORA'"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern = {'q_proj': 2} is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'] is not supported"),
        ({"r": 0}, "r must be a positive integer, got 0"),
        ({"r": "4"}, "r must be a positive integer, got '4'"),
        ({"target_modules": ["c_attn"]}, "target_modules ['c_attn'] are not all among q_proj"),
        ({"target_modules": "all-linear"}, "target_modules 'all-linear' are not all among"),
    ],
)
def test_read_adapter_refuses_what_it_would_not_apply_exactly(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    change_config(write(tmp_path), **changes)
    with pytest.raises(ModelError) as refusal:
        read_adapter(tmp_path)
    assert said in str(refusal.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"peft_type": "LORA"}'])
def test_read_adapter_refuses_a_broken_config(tmp_path: Path, content: str) -> None:
    (write(tmp_path) / CONFIG_NAME).write_text(content, "utf-8")
    with pytest.raises(ModelError, match="is not a PEFT configuration"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_B.weight"), "q_proj has only one of its two factors"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(5, 32)}),
         "q_proj.lora_A.weight has shape (5, 32), expected rank 4"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(4)}),
         "q_proj.lora_A.weight has shape (4,), expected rank 4"),
        (lambda t: t[f"{QUERY}.lora_A.weight"].view(-1)[0].fill_(torch.nan),
         "q_proj.lora_A.weight holds NaN or infinity"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(4, 32).double()}),
         "q_proj.lora_A.weight is stored as torch.float64"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2, 2)}),
         "lm_head.weight is not a LoRA factor of a linear layer"),
    ],
)  # fmt: skip
def test_read_adapter_refuses_a_wrong_tensor_by_name(
    tmp_path: Path, change: Callable[[Tensors], object], said: str
) -> None:
    change_tensors(write(tmp_path), change)
    with pytest.raises(ModelError) as refusal:
        read_adapter(tmp_path)
    assert said in str(refusal.value)


def test_read_adapter_refuses_a_corrupt_file(tmp_path: Path) -> None:
    (write(tmp_path) / ADAPTER_NAME).write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1}, "names an unknown layer model.layers.1"),
        ({"num_hidden_layers": 3}, "has no factors for the layer model.layers.2"),
        ({"intermediate_size": 40},
         "model.layers.0.mlp.gate_proj has factors for 32 → 48, the base's layer is 32 → 40"),
    ],
)  # fmt: skip
def test_attach_adapter_refuses_a_base_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        read_onto_base(write(tmp_path), **changes)
    assert said in str(refusal.value)


def test_attach_adapter_trains_the_factors_alone(tmp_path: Path) -> None:
    model = read_onto_base(write(tmp_path))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all(name.endswith(("lora_a", "lora_b")) for name in trainable)
