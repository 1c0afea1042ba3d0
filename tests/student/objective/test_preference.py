"""Preferences: the loss against closed forms, where it starts, and that it is learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ownweights.core.artefact import Artefact
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.dataset.pairs import Pair
from ownweights.model.transformer import Transformer
from ownweights.student.objective.preference import PairPlan, PreferenceObjective, row_sums
from ownweights.student.study import Materials
from ownweights.student.train import train_student
from ownweights.student.trainer import Batch, StepReport
from tests.student.objective.steps import (
    assert_every_factor_moves,
    assert_nothing_trained_changes_nothing,
    assert_parts_equal_the_large_batch,
)
from tests.student.rows import SMALL, empty_batch, make_rows
from tests.student.zoo import ANIMALS, QUICK, make_project
from tests.tiny import tiny_model, with_adapter

DPO = replace(QUICK, objective="dpo", epochs=4, learning_rate=0.005)


def pair_plan(num: int = 5, *, seed: int = 0, max_tokens: int = 10_000) -> PairPlan:
    rows = make_rows(2 * num, seed)
    pairs = [(rows[2 * k], rows[2 * k + 1]) for k in range(num)]
    return PairPlan(pairs, epochs=1, rows_per_step=num, max_tokens=max_tokens, seed=1)


def logprob_of_row(model: Transformer, ids: Tensor, num_prompt: int) -> Tensor:
    """The sum of a completion's logprobs, on full logits of one row alone."""
    logits = model.logits(model(ids[None, :-1]))[0].log_softmax(-1)
    first = max(num_prompt, 1)
    return logits.gather(1, ids[1:, None])[first - 1 :, 0].sum()


def test_preference_loss_matches_its_closed_form() -> None:
    plan, model, beta = pair_plan(), tiny_model(1, **SMALL), 0.3
    plan.reference.copy_(torch.randn(5, 2, generator=torch.Generator().manual_seed(3)) * 5 - 40)
    (batch,) = plan.batches(0)
    nats = torch.empty(len(batch.targets))
    loss = PreferenceObjective(beta).loss(model, batch, 5, nats)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    other = tiny_model(1, **SMALL)
    expected = torch.zeros(())
    for (chosen, rejected), reference in zip(plan.pairs, plan.reference, strict=True):
        said = [
            logprob_of_row(other, torch.from_numpy(row.ids).long(), row.num_prompt)
            for row in (chosen, rejected)
        ]
        margin = beta * ((said[0] - reference[0]) - (said[1] - reference[1]))
        expected = expected - F.logsigmoid(margin) / 5
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nats.sum(), -row_sums(batch, -nats).sum(), rtol=1e-6, atol=1e-6)
    for name, parameter in other.named_parameters():
        grad = grads[name]
        assert parameter.grad is not None and grad is not None
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_preference_at_the_reference_costs_ln_two() -> None:
    """training.md c.51: the reference is the adapter that is trained on, not the base."""
    model = with_adapter(tiny_model(1, **SMALL), 2)
    plan = pair_plan(max_tokens=80)
    plan.fill_reference(model)
    margins: list[Tensor] = []
    for step in range(plan.num_steps):
        for batch in plan.batches(step):
            objective = PreferenceObjective()
            weight = objective.weight(batch)
            loss = objective.loss(model, batch, weight)
            assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-7)
            nats = torch.empty(len(batch.targets))
            objective.loss(model, batch, weight, nats)
            margins.append(objective.margins(batch, nats))
    assert torch.cat(margins).abs().max() == 0.0
    base = tiny_model(1, **SMALL)
    other = pair_plan(max_tokens=80)
    other.fill_reference(base)
    assert (other.reference - plan.reference).abs().min() > 1e-3


def test_preference_in_parts_equals_the_large_batch() -> None:
    """training.md c.1, c.2: pairs of unequal lengths, one by one or together."""
    plan = pair_plan(6)
    plan.reference.normal_(-30, 3, generator=torch.Generator().manual_seed(1))
    (whole,) = plan.batches(0)
    split = pair_plan(6, max_tokens=60)
    split.reference.copy_(plan.reference)
    parts = split.batches(0)
    assert len(parts) > 2 and all(len(part.tokens) % 2 == 0 for part in parts)
    assert_parts_equal_the_large_batch(PreferenceObjective(), whole, parts)


def test_preference_of_nothing_changes_nothing() -> None:
    """training.md c.3."""
    one = empty_batch()
    empty = Batch(
        one.tokens.repeat(2, 1), one.where, one.targets, {}, {"reference": torch.zeros(2)}, 2
    )
    assert_nothing_trained_changes_nothing(PreferenceObjective(), empty)


def test_preference_moves_every_factor() -> None:
    """training.md c.43."""
    assert_every_factor_moves(PreferenceObjective(), pair_plan().batches(0))


# --- a whole student


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def taught(home: tuple[Project, Dataset]) -> Artefact:
    return train_student(home[1], home[0], options=replace(QUICK, epochs=6))


def pairs_of(dataset: Dataset) -> list[Pair]:
    """The right animal against the next one."""
    found: list[Pair] = []
    for split in ("train", "develop"):
        for example in dataset.examples(split):
            wrong = ANIMALS[(ANIMALS.index(example.target) + 1) % len(ANIMALS)]
            found.append(
                Pair(example.id, example.unit, split, example.request, example.messages,
                     example.target, wrong, "demonstration")
            )  # fmt: skip
    return found


def test_first_step_of_a_warm_start_costs_ln_two(
    home: tuple[Project, Dataset], taught: Artefact
) -> None:
    """training.md c.51, from a student's own folder."""
    project, dataset = home
    reports: list[StepReport] = []
    options = replace(DPO, start=taught.id)
    made = train_student(
        dataset,
        project,
        options=options,
        on_step=reports.append,
        materials=Materials(pairs_of(dataset)),
    )
    assert reports[0].loss == pytest.approx(math.log(2), abs=1e-7)
    assert reports[-1].loss < 0.9 * math.log(2)
    identity, facts = made.card["identity"], made.card["facts"]
    assert (identity["objective"], identity["start"]) == ("dpo", taught.id)
    assert identity["lora"] == taught.card["identity"]["lora"]
    assert made.card["parents"]["start"] == taught.id
    assert facts["develop_pair_accuracy"] > 0.5
    assert facts["pairs"] == {"demonstration": dataset.counts["train"]}
    assert facts["develop_pair_loss"] < math.log(2)


@pytest.mark.parametrize("change", [{"method": "qlora"}, {"compute_dtype": "bfloat16"}])
def test_margins_are_measured_in_the_numbers_of_the_reference(
    home: tuple[Project, Dataset], change: dict[str, str]
) -> None:
    """What packing or rounding loses is no gain: a run that learns nothing has no margin."""
    project, dataset = home
    options = replace(DPO, learning_rate=1e-12, epochs=0.2, **change)
    made = train_student(
        dataset, project, options=options, materials=Materials(pairs_of(dataset))
    )  # fmt: skip
    assert made.card["facts"]["develop_margin"] == pytest.approx(0.0, abs=1e-5)


def test_dpo_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path / "a")
    whole = train_student(dataset, project, options=DPO, materials=Materials(pairs_of(dataset)))
    other, same = make_project(tmp_path / "b")
    options = replace(DPO, checkpoint_every_s=0)

    def stop(report: StepReport) -> None:
        if report.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(
            same, other, options=options, on_step=stop, materials=Materials(pairs_of(same))
        )
    resumed = train_student(same, other, options=options, materials=Materials(pairs_of(same)))
    assert resumed.card["facts"]["resumed_at"] == 3
    assert resumed.id == whole.id


def test_dpo_without_pairs_says_where_they_come_from(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    with pytest.raises(InputError, match="there is no pair of answers to learn from") as caught:
        train_student(dataset, project, options=DPO)
    assert caught.value.hint is not None and "/v1/feedback" in caught.value.hint
