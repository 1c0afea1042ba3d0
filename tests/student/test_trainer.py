"""The trainer: what a step does to the parameters, and that a stopped run ends in the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ownweights.core.errors import ArtefactError, ArtefactUnwritten
from ownweights.model import lora as lora_module
from ownweights.model import transformer as transformer_module
from ownweights.model.lora import Linear, LoraConfig, attach_lora
from ownweights.model.transformer import Transformer
from ownweights.student.examples import TokenRow, pad_rows
from ownweights.student.trainer import (
    CHECKPOINT_NAME,
    Batch,
    Recipe,
    Trainer,
    batch_loss,
)
from tests.disk import max_file_bytes
from tests.student.rows import (
    RECIPES,
    SMALL,
    ListPlan,
    empty_batch,
    make_rows,
    small_plan,
    small_trainer,
)  # fmt: skip
from tests.tiny import LORA, tiny_model, with_adapter

NO_CLIP = Recipe(1e-2, max_grad_norm=1e9)
# gradients of one batch summed in parts: float32 rounding of the sums
CLOSE_REL, CLOSE_ABS = 1e-4, 1e-6


class StepSpy:
    """What the optimisers were given at each of their steps: gradients and learning rates."""

    def __init__(self) -> None:
        self.gradients: list[list[Tensor]] = []
        self.rates: list[list[float]] = []

    def __call__(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimiser.param_groups
        self.rates.append([group["lr"] for group in groups])
        self.gradients.append([p.grad.clone() for g in groups for p in g["params"]])


@pytest.fixture
def spy() -> Iterator[StepSpy]:
    found = StepSpy()
    handle = register_optimizer_step_pre_hook(found)
    yield found
    handle.remove()


def bits(model: Transformer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def split_rows(rows: Sequence[TokenRow], sizes: Sequence[int]) -> list[Batch]:
    """Parts of the given sizes, the rest in one."""
    parts, at = [], 0
    for size in [*sizes, len(rows)]:
        if at < len(rows):
            parts.append(pad_rows(rows[at : at + size]))
        at += size
    return parts


# --- one step


@pytest.mark.parametrize("sizes", [[1] * 9, [3, 3], [8], [2, 5], [1, 1]], ids=str)
def test_accumulated_parts_equal_the_large_batch(spy: StepSpy, sizes: list[int]) -> None:
    rows = make_rows(9, 3)
    assert len({len(row.ids) - row.num_prompt for row in rows}) > 3  # unequal trained counts
    reports = [
        Trainer(tiny_model(1, **SMALL), ListPlan([parts]), recipe=NO_CLIP, run_id="r").train_step()
        for parts in ([pad_rows(rows)], split_rows(rows, sizes))
    ]
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-5)
    assert reports[0].num_trained == reports[1].num_trained
    for whole, summed in zip(*spy.gradients, strict=True):
        torch.testing.assert_close(summed, whole, rtol=CLOSE_REL, atol=CLOSE_ABS)


def test_train_step_reports_what_was_done() -> None:
    rows = [
        TokenRow(torch.arange(7, 7 + length).numpy(), prompt) for length, prompt in ((5, 2), (9, 8))
    ]
    model = tiny_model(1, **SMALL)
    expected = float(batch_loss(model, pad_rows(rows), 4.0).detach())
    report = Trainer(model, ListPlan([[pad_rows(rows)]]), recipe=NO_CLIP, run_id="r").train_step()
    assert (report.step, report.num_steps) == (1, 1)
    assert report.num_tokens == 4 + 8  # each worker pads to the longest row of its own
    assert report.num_trained == 3 + 1
    assert report.loss == pytest.approx(expected)
    assert report.seconds > 0


def test_two_that_save_the_same_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins while the first writes, as two processes of one run may."""
    first, second = small_trainer(), small_trainer()
    calls: list[int] = []
    save = torch.save

    def save_between(state: Any, file: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            second.save_checkpoint(tmp_path)
        save(state, file)

    monkeypatch.setattr(torch, "save", save_between)
    first.save_checkpoint(tmp_path)
    assert len(calls) == 2
    assert small_trainer().load_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT_NAME, "progress.json"]


@pytest.mark.parametrize("limit", [1e-3, 0.1])
def test_train_step_clips_the_whole_gradient(spy: StepSpy, limit: float) -> None:
    parts = [pad_rows(make_rows(4))]
    for max_norm in (1e9, limit):
        recipe = Recipe(1e-2, max_grad_norm=max_norm)
        Trainer(tiny_model(1, **SMALL), ListPlan([parts]), recipe=recipe, run_id="r").train_step()
    free, clipped = spy.gradients
    norms = [float(torch.cat([g.flatten() for g in found]).norm()) for found in (free, clipped)]
    assert norms[0] > limit
    assert norms[1] == pytest.approx(limit, rel=1e-3)
    for a, b in zip(free, clipped, strict=True):
        torch.testing.assert_close(b, a * (limit / norms[0]), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_train_step_of_nothing_leaves_the_weights(recipe: Recipe) -> None:
    model = tiny_model(1, **SMALL)
    before = bits(model)
    plan = ListPlan([[empty_batch()], []])
    reports = list(Trainer(model, plan, recipe=recipe, run_id="r"))
    assert [(r.step, r.num_trained, r.loss) for r in reports] == [(1, 0, 0.0), (2, 0, 0.0)]
    assert_same_bits(before, bits(model))


def test_train_step_of_nothing_does_not_move_by_momentum() -> None:
    model = tiny_model(1, **SMALL)
    full = [pad_rows(make_rows(3))]
    trainer = Trainer(model, ListPlan([full, [empty_batch()]]), recipe=RECIPES["adamw"], run_id="r")
    trainer.train_step()
    before = bits(model)
    trainer.train_step()
    assert_same_bits(before, bits(model))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_train_step_uses_the_scheduled_rates(spy: StepSpy, recipe: Recipe) -> None:
    trainer = small_trainer(recipe)
    num_steps = trainer.plan.num_steps
    list(trainer)
    peaks = [recipe.learning_rate]
    if recipe.muon_learning_rate is not None:
        peaks.append(recipe.muon_learning_rate)
    expected = [
        [peak * recipe.factor(step, num_steps)] for step in range(num_steps) for peak in peaks
    ]
    assert spy.rates == expected


def test_train_step_gives_muon_the_matrices_between_embedding_and_head(spy: StepSpy) -> None:
    model = tiny_model(1, **SMALL, tie_word_embeddings=False)
    plan = ListPlan([[pad_rows(make_rows(2))]])
    Trainer(model, plan, recipe=RECIPES["muon"], run_id="r").train_step()
    by_adamw, by_muon = ([tuple(g.shape) for g in found] for found in spy.gradients)
    inside = [
        tuple(p.shape) for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name
    ]
    assert by_muon == inside
    assert len(by_adamw) + len(by_muon) == len(list(model.parameters()))


def test_trainer_moves_only_what_wants_gradients() -> None:
    model = tiny_model(1, **SMALL)
    attach_lora(model, LORA, 1)
    before = bits(model)
    trainer = small_trainer(model=model)
    assert {name.rsplit(".", 1)[-1] for name in trainer.parameters} == {"lora_a", "lora_b"}
    list(trainer)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert moved == set(trainer.parameters)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_trainer_learns_a_batch_by_heart(recipe: Recipe) -> None:
    batch = pad_rows(make_rows(3))
    trainer = Trainer(tiny_model(1, **SMALL), ListPlan([[batch]] * 60), recipe=recipe, run_id="r")
    losses = [report.loss for report in trainer]
    assert losses[-1] < 0.3 * losses[0]


def test_trainer_yields_every_step_once_and_then_stops() -> None:
    trainer = small_trainer()
    assert [report.step for report in trainer] == list(range(1, trainer.plan.num_steps + 1))
    assert list(trainer) == []


def test_trainer_takes_turns() -> None:
    alone, shared = small_trainer(seed=1), small_trainer(seed=1)
    list(alone)
    other = small_trainer(seed=2)
    for _ in zip(shared, other, strict=True):
        torch.rand(3)  # a neighbour that draws random numbers
    assert_same_bits(bits(alone.model), bits(shared.model))


# --- LoRA


def low_rank_forward(layer: Linear, x: Tensor) -> Tensor:
    """LoRA in two thin products, as its paper and PEFT write it."""
    assert layer.lora_a is not None and layer.lora_b is not None
    return F.linear(x, layer.weight) + layer.scale * (x @ layer.lora_a.T @ layer.lora_b.T)


def low_rank_together(layers: Sequence[Linear], x: Tensor) -> tuple[Tensor, ...]:
    return tuple(low_rank_forward(layer, x) for layer in layers)


@pytest.mark.parametrize("rank", [2, 8, 64])
def test_lora_step_matches_the_low_rank_formulation(
    spy: StepSpy, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """training.md c.30 (the scale), e9: thin or dense gradients, whichever is cheaper."""
    config, batch = LoraConfig(rank, 2.0 * rank), pad_rows(make_rows(4))
    model = with_adapter(tiny_model(1), 4, config)
    trainer = Trainer(model, ListPlan([[batch]]), recipe=NO_CLIP, run_id="r")
    loss = trainer.train_step().loss
    for module in (lora_module, transformer_module):
        monkeypatch.setattr(module, "together", low_rank_together)
    model = with_adapter(tiny_model(1), 4, config)
    expected = batch_loss(model, batch, len(batch.targets))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(spy.gradients[0]) == len(theirs) == 2 * 2 * 7
    for mine, other in zip(spy.gradients[0], theirs, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("sizes", [[1] * 5, [2, 2]], ids=str)
def test_lora_parts_equal_the_large_batch(spy: StepSpy, sizes: list[int]) -> None:
    rows = make_rows(5)
    for parts in ([pad_rows(rows)], split_rows(rows, sizes)):
        model = with_adapter(tiny_model(1), 4)
        Trainer(model, ListPlan([parts]), recipe=NO_CLIP, run_id="r").train_step()
    for whole, summed in zip(*spy.gradients, strict=True):
        torch.testing.assert_close(summed, whole, rtol=CLOSE_REL, atol=CLOSE_ABS)


def test_train_step_tells_the_plan_what_each_example_cost() -> None:
    plan, model = small_plan(max_tokens=30), tiny_model(3, **SMALL)
    costs = [float(batch_loss(model, pad_rows([row]), 1.0).detach()) for row in plan.rows]
    parts = plan.batches(0)
    assert len(parts) > 1
    Trainer(model, plan, recipe=replace(NO_CLIP, learning_rate=0.0), run_id="r").train_step()
    told = plan.state()["nats"].tolist()
    read = [k for k, nats in enumerate(told) if nats]
    assert len(read) == 3
    assert [told[k] for k in read] == pytest.approx([costs[k] for k in read], rel=1e-5)


def test_train_step_forms_an_adapted_weight_once(monkeypatch: pytest.MonkeyPatch) -> None:
    formed: list[Linear] = []
    form = Linear.effective_weight

    def spied(layer: Linear) -> Tensor:
        if layer.acting is None:
            formed.append(layer)
        return form(layer)

    monkeypatch.setattr(Linear, "effective_weight", spied)
    model = with_adapter(tiny_model(1), 4)
    parts = split_rows(make_rows(6), [2, 2])
    Trainer(model, ListPlan([parts]), recipe=NO_CLIP, run_id="r").train_step()
    adapted = [m for m in model.modules() if isinstance(m, Linear) and m.lora_a is not None]
    assert sorted(map(id, formed)) == sorted(map(id, adapted))
    assert all(layer.acting is None for layer in adapted)


def test_train_step_that_fails_lets_go_of_formed_weights() -> None:
    model = with_adapter(tiny_model(1), 4)
    beyond = Batch(torch.full((2, 3), 10**6), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(IndexError):
        Trainer(model, ListPlan([[beyond]]), recipe=NO_CLIP, run_id="r").train_step()
    assert all(m.acting is None for m in model.modules() if isinstance(m, Linear))


# --- schedule


RECIPE_OF_ANY_SHAPE = st.builds(
    lambda warm, decay: Recipe(1.0, warmup_frac=warm, decay_frac=decay),
    st.floats(0, 0.5), st.floats(0.01, 1.0),
)  # fmt: skip


@given(recipe=RECIPE_OF_ANY_SHAPE, num_steps=st.integers(1, 300))
def test_recipe_factor_always_rises_then_falls(recipe: Recipe, num_steps: int) -> None:
    factors = [recipe.factor(step, num_steps) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


@given(recipe=RECIPE_OF_ANY_SHAPE, num_steps=st.integers(20, 300))
def test_recipe_factor_always_has_its_plateau(recipe: Recipe, num_steps: int) -> None:
    warm_end = recipe.warmup_frac * num_steps
    decay_start = num_steps - max(1.0, recipe.decay_frac * num_steps)
    for step in range(num_steps):
        if warm_end <= step + 1 and step <= decay_start:
            assert recipe.factor(step, num_steps) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0), (69, 1.0), (70, 1.0), (85, 0.5), (99, 1 / 30)],
)
def test_recipe_factor_is_the_line_it_says(step: int, factor: float) -> None:
    recipe = Recipe(1.0, warmup_frac=0.1, decay_frac=0.3)
    assert recipe.factor(step, 100) == pytest.approx(factor)


# --- stop and go on


def run_in_two(folder: Path, stop_at: int, make: Any) -> Trainer:
    first: Trainer = make()
    for report in first:
        if report.step == stop_at:
            break
    first.save_checkpoint(folder)
    del first
    second: Trainer = make()
    assert second.load_checkpoint(folder)
    assert second.step == stop_at
    list(second)
    return second


@pytest.mark.parametrize(
    "stop_at", [1, 3, 4, 6, 9, 11]
)  # 4 steps in the first epoch, then 2, 12 in all
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_resume_equals_uninterrupted(tmp_path: Path, recipe: Recipe, stop_at: int) -> None:
    whole = small_trainer(recipe)
    list(whole)
    resumed = run_in_two(tmp_path, stop_at, lambda: small_trainer(recipe))
    assert_same_bits(bits(whole.model), bits(resumed.model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stop_at", [2, 7])
def test_resume_of_an_adapter_equals_uninterrupted(
    tmp_path: Path, stop_at: int, dtype: torch.dtype
) -> None:
    """training.md c.45, in both dtypes."""

    def make() -> Trainer:
        model = tiny_model(1, **SMALL)
        attach_lora(model, LORA, 1)
        return small_trainer(model=model, dtype=dtype)

    whole = make()
    list(whole)
    assert_same_bits(bits(whole.model), bits(run_in_two(tmp_path, stop_at, make).model))


def test_resume_reads_nothing_from_the_fresh_weights(tmp_path: Path) -> None:
    whole = small_trainer(seed=1)
    list(whole)
    first = small_trainer(seed=1)
    first.train_step()
    first.save_checkpoint(tmp_path)
    second = small_trainer(seed=99)
    second.load_checkpoint(tmp_path)
    list(second)
    assert_same_bits(bits(whole.model), bits(second.model))


def test_save_checkpoint_says_how_far_it_is(tmp_path: Path) -> None:
    trainer = small_trainer(run_id="abc")
    trainer.train_step()
    trainer.save_checkpoint(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    progress = json.loads((folder / "progress.json").read_text("utf-8"))
    assert progress == {"run_id": "abc", "step": 1, "num_steps": 12}
    assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINT_NAME, "progress.json"]


@pytest.mark.parametrize("limit", [100, 20_000])
def test_save_checkpoint_on_a_full_disk_keeps_the_old_one(tmp_path: Path, limit: int) -> None:
    trainer = small_trainer()
    trainer.train_step()
    trainer.save_checkpoint(tmp_path)
    trainer.train_step()
    path = tmp_path / CHECKPOINT_NAME
    message = f"^{path} could not be written: File too large\nhint: make room"
    with pytest.raises(ArtefactUnwritten, match=message), max_file_bytes(limit):
        trainer.save_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT_NAME, "progress.json"]
    again = small_trainer()
    assert again.load_checkpoint(tmp_path)
    assert again.step == 1
    trainer.save_checkpoint(tmp_path)  # once there is room again
    assert again.load_checkpoint(tmp_path) and again.step == 2


def test_load_checkpoint_without_one_says_so(tmp_path: Path) -> None:
    trainer = small_trainer()
    assert not trainer.load_checkpoint(tmp_path / "nowhere")
    assert trainer.step == 0


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_load_checkpoint_refuses_a_damaged_file(tmp_path: Path, damage: str) -> None:
    trainer = small_trainer()
    trainer.save_checkpoint(tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "noise": b"\x93" * 999, "empty": b""}[damage]
    )
    with pytest.raises(ArtefactError, match="cannot be read: ") as caught:
        trainer.load_checkpoint(tmp_path)
    assert str(path) in caught.value.what
    assert caught.value.hint == "delete the folder to start the run again"


def test_load_checkpoint_refuses_a_file_of_something_else(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(ArtefactError, match="is not a checkpoint of a training run"):
        small_trainer().load_checkpoint(tmp_path)


def test_load_checkpoint_refuses_another_run(tmp_path: Path) -> None:
    small_trainer(run_id="one").save_checkpoint(tmp_path)
    other = small_trainer(run_id="two", seed=7)
    before = bits(other.model)
    with pytest.raises(ArtefactError, match="belongs to run one, expected two"):
        other.load_checkpoint(tmp_path)
    assert_same_bits(before, bits(other.model))
    assert other.load_checkpoint(tmp_path, other_plan=True)
    assert_same_bits(bits(small_trainer().model), bits(other.model))


def test_load_checkpoint_refuses_one_that_forgot_what_was_observed(tmp_path: Path) -> None:
    trainer = small_trainer()
    trainer.save_checkpoint(tmp_path)
    state = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    del state["plan"]
    torch.save(state, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(ArtefactError, match="does not say what its plan had observed"):
        small_trainer().load_checkpoint(tmp_path)


def test_load_checkpoint_refuses_another_network(tmp_path: Path) -> None:
    small_trainer().save_checkpoint(tmp_path)
    wider = small_trainer(model=tiny_model(0))
    with pytest.raises(
        ArtefactError,
        match=r"network: model\.embed_tokens\.weight is \(263, 16\), expected \(263, 32\)",
    ):
        wider.load_checkpoint(tmp_path, other_plan=True)
    deeper = small_trainer(model=tiny_model(0, **SMALL, num_hidden_layers=3))
    with pytest.raises(ArtefactError, match=r"layers\.2\.input_layernorm.weight is None, expected"):
        deeper.load_checkpoint(tmp_path)
