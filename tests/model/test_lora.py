"""Low-rank adaptation: against PEFT, and against its own definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ownweights.model.lora import TARGETS, Linear, LoraConfig, attach_lora, lora_layers, merge_lora
from ownweights.weights.adapter import save_adapter
from ownweights.weights.save import save_model
from tests.tiny import LORA, VOCAB_SIZE, tiny_model, with_adapter

GRADIENT_TOLERANCE = 1e-5  # relative: W + sBA summed first, or x·A·B added after
ROUNDING = 1e-5


def tokens(rows: int = 2, length: int = 15) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(4))


def next_token_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_lora_gradients_match_peft(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids, config = tokens(), LoraConfig(rank=4, alpha=6.0)
    save_model(tiny_model(), tmp_path / "base")
    ours = with_adapter(tiny_model(), 5, config)
    save_adapter(ours, config, tmp_path / "adapter", base_id="b", base_name="tiny")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    next_token_loss(ours.logits(ours(ids)), ids).backward()
    next_token_loss(theirs(ids).logits, ids).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            continue
        layer, side = name.rsplit(".", 1)
        peft_name = f"base_model.model.{layer}.lora_{side[-1].upper()}.default.weight"
        error = (parameter.grad - expected[peft_name]).abs().max() / expected[peft_name].abs().max()
        assert error <= GRADIENT_TOLERANCE, name
        compared += 1
    assert compared == len(expected) == 2 * 2 * len(TARGETS)


def test_fresh_adapter_changes_nothing() -> None:
    model, ids = tiny_model(), tokens()
    before = model(ids)
    attach_lora(model, LORA, seed=1)
    assert torch.equal(model(ids), before)


def test_attach_lora_trains_the_adapter_alone() -> None:
    model = tiny_model()
    trainable = attach_lora(model, LORA, seed=1)
    assert [p for p in model.parameters() if p.requires_grad] == trainable
    assert len(trainable) == 2 * 2 * len(TARGETS)


def test_attach_lora_adapts_the_targets_alone() -> None:
    model = tiny_model()
    attach_lora(model, LoraConfig(rank=2, alpha=2, targets=("q_proj", "down_proj")))
    adapted = {
        name for name, layer in lora_layers(model, TARGETS).items() if layer.lora_a is not None
    }
    assert adapted == {
        f"model.layers.{index}.{name}" for index in range(2)
        for name in ("self_attn.q_proj", "mlp.down_proj")
    }  # fmt: skip


def test_attach_lora_is_decided_by_its_seed() -> None:
    first, same, other = tiny_model(), tiny_model(), tiny_model()
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        attach_lora(model, LORA, seed)
    name = "model.layers.0.mlp.up_proj.lora_a"
    assert torch.equal(first.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_effective_weight_is_its_definition() -> None:
    layer = Linear(6, 5)
    torch.nn.init.normal_(layer.weight)
    layer.attach(LoraConfig(rank=3, alpha=12.0))
    assert layer.lora_a is not None and layer.lora_b is not None
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 6)
    expected = x @ layer.weight.T + 4.0 * (x @ layer.lora_a.T) @ layer.lora_b.T
    assert torch.allclose(layer(x), expected, atol=ROUNDING)


def test_merged_answers_as_unmerged() -> None:
    model, ids = with_adapter(tiny_model(), 5), tokens()
    with torch.inference_mode():
        apart = model.logits(model(ids))
    merge_lora(model)
    assert not any("lora" in name for name in model.state_dict())
    with torch.inference_mode():
        merged = model.logits(model(ids))
    assert (apart - merged).abs().max() <= ROUNDING * apart.abs().max()


def test_lora_scale_is_alpha_over_rank() -> None:
    assert LoraConfig(rank=8, alpha=32.0).scale == 4.0
