"""The weights of a step: gradients against PEFT and between dtypes, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.model.lora import Linear, LoraConfig, attach_lora
from ownweights.model.transformer import Transformer
from ownweights.student import forming as forming_module
from ownweights.student.examples import pad_rows
from ownweights.student.forming import Forming, is_dense_cheaper
from ownweights.student.trainer import Batch, Recipe, Trainer, batch_loss
from ownweights.weights.adapter import save_adapter
from ownweights.weights.save import save_model
from tests.student.rows import ListPlan, make_rows, small_trainer
from tests.tiny import VOCAB_SIZE, tiny_model, with_adapter

PEFT_TOLERANCE = 1e-5  # float32, relative to the greatest
DTYPE_TOLERANCE = 0.05  # of the norm: a network of two layers with activations of 8 bits
DTYPES = (torch.float32, torch.bfloat16)


def whole_batch() -> Batch:
    ids = torch.randint(0, VOCAB_SIZE, (2, 16), generator=torch.Generator().manual_seed(4))
    return Batch(ids[:, :-1], torch.arange(30), ids[:, 1:].flatten())


def step_gradients(
    model: Transformer, batch: Batch, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """What one training step gives each parameter."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with Forming(model, dtype).step() as formed:
        wanted = [*parameters.values(), *formed.leaves]
        loss = batch_loss(model, batch, len(batch.targets))
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
    for parameter, grad in zip(parameters.values(), found, strict=False):
        parameter.grad = grad
    formed.pass_on([g if g is None else g.float() for g in found[len(parameters) :]])
    return {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("rank", [4, 64])
def test_acting_gradients_match_peft(tmp_path: Path, rank: int) -> None:
    """Thin (rank 4) and dense (rank 64) gradients of a step, in float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    batch, config = whole_batch(), LoraConfig(rank=rank, alpha=6.0)
    save_model(tiny_model(), tmp_path / "base")
    ours = with_adapter(tiny_model(), 5, config)
    save_adapter(ours, config, tmp_path / "adapter", base_id="b", base_name="tiny")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    F.cross_entropy(theirs(batch.tokens).logits.flatten(0, 1), batch.targets).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = step_gradients(ours, batch)
    for name, grad in found.items():
        layer, side = name.rsplit(".", 1)
        other = expected.pop(f"base_model.model.{layer}.lora_{side[-1].upper()}.default.weight")
        assert (grad - other).abs().max() <= PEFT_TOLERANCE * other.abs().max(), name
    assert not expected


def test_thin_and_dense_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Tensor]] = []
    for is_dense in (True, False):
        monkeypatch.setattr(forming_module, "is_dense_cheaper", lambda _, d=is_dense: d)
        found.append(step_gradients(with_adapter(tiny_model(), 5), whole_batch()))
    assert found[0].keys() == found[1].keys()
    for name, dense in found[0].items():
        torch.testing.assert_close(found[1][name], dense, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("rank", "is_dense"), [(4, False), (9, False), (10, True), (64, True)])
def test_dense_is_cheaper_where_the_rank_is_high(rank: int, is_dense: bool) -> None:
    layer = Linear(32, 48)  # 32 · 48 products against 2 · R · (32 + 48)
    layer.attach(LoraConfig(rank))
    assert is_dense_cheaper(layer) is is_dense


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_bfloat16_gradients_are_near_those_of_float32(method: str, is_tied: bool) -> None:
    found: list[dict[str, Tensor]] = []
    for dtype in DTYPES:
        model = tiny_model(2, std=0.1, tie_word_embeddings=is_tied)
        if method == "lora":
            with_adapter(model, 5)
        found.append(step_gradients(model, whole_batch(), dtype))
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for name, wide in found[0].items():
        low = found[1][name]
        assert low.dtype == torch.float32
        assert (low - wide).norm() <= DTYPE_TOLERANCE * wide.norm(), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_step_leaves_the_model_as_it_was(method: str, dtype: torch.dtype) -> None:
    model = tiny_model(2)
    if method == "lora":
        with_adapter(model, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        wanted = model.logits(model(whole_batch().tokens))
    step_gradients(model, whole_batch(), dtype)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(model.logits(model(whole_batch().tokens)), wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_computed_below_the_lowest_adapter(dtype: torch.dtype) -> None:
    """training.md e12.3: no gradient reaches a layer that nothing trained stands before."""
    model = tiny_model(2, num_hidden_layers=3)
    attach_lora(model, LoraConfig(2, 4.0))
    for layer in model.model.layers[:2]:
        for module in layer.modules():
            if isinstance(module, Linear):
                module.lora_a = module.lora_b = None
    reached: list[bool] = []
    for layer in model.model.layers:
        layer.post_attention_layernorm.register_forward_hook(
            lambda _, given, out: reached.append(given[0].requires_grad)
        )
    with Forming(model, dtype).step():
        batch_loss(model, whole_batch(), 30.0)
    assert reached == [False, False, True]


def test_small_updates_survive_bfloat16() -> None:
    """training.md c.35: W + s·B·A in 8 bits loses what is small beside W, so it is not formed."""
    model = with_adapter(tiny_model(2), 5)
    layer = model.model.layers[0].mlp.up_proj
    assert layer.lora_b is not None
    with torch.no_grad():
        layer.lora_b.mul_(1e-4)
    with Forming(model, torch.bfloat16).step():
        act = layer.acting
        assert act is not None and not act.is_formed
        assert torch.equal(act.weight, layer.weight.bfloat16())
        assert act.b is not None and torch.equal(act.b, layer.lora_b.bfloat16())


@pytest.mark.parametrize("rate", [1e-2, 1e-6])
def test_every_trained_tensor_moves_as_in_float32(rate: float) -> None:
    """training.md c.43, 44: at any rate, since what moves is float32 whatever is computed in."""
    moved: list[dict[str, Tensor]] = []
    for dtype in DTYPES:
        model = with_adapter(tiny_model(2, std=0.1), 5)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        plan = ListPlan([[pad_rows(make_rows(6, seed))] for seed in range(10)])
        recipe = Recipe(rate, warmup_frac=0.0)
        list(Trainer(model, plan, recipe=recipe, run_id="r", dtype=dtype))
        after = dict(model.named_parameters())
        moved.append({name: after[name].detach() - old for name, old in before.items()})
    for name, wide in moved[0].items():
        low = moved[1][name]
        assert (low != 0).float().mean() > 0.99, name
        assert F.cosine_similarity(low.flatten(), wide.flatten(), 0) > 0.8, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_training_learns_in_either_dtype(dtype: torch.dtype) -> None:
    model = tiny_model(1)
    attach_lora(model, LoraConfig(8, 16.0), 1)
    batch = pad_rows(make_rows(3))
    recipe = Recipe(2e-2, warmup_frac=0.0)
    trainer = Trainer(model, ListPlan([[batch]] * 60), recipe=recipe, run_id="r", dtype=dtype)
    losses = [report.loss for report in trainer]
    assert losses[-1] < 0.3 * losses[0]


def test_full_training_in_bfloat16_keeps_float32_parameters() -> None:
    trainer = small_trainer(dtype=torch.bfloat16)
    list(trainer)
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
