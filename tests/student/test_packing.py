"""QLoRA: gradients of the packed network, a whole student, and what its card says was lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.model.lora import TARGETS, Linear, merge_lora
from ownweights.student.examples import pad_rows
from ownweights.student.options import StudentOptions
from ownweights.student.packing import pack_base
from ownweights.student.study import load_base
from ownweights.student.train import train_student
from ownweights.student.trainer import StepReport, TokenObjective, Trainer, batch_loss
from ownweights.weights.adapter import attach_adapter, read_adapter
from ownweights.weights.student import load_student
from tests.student.rows import RECIPES, ListPlan, make_rows
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME, tiny_model, with_adapter

QLORA = replace(QUICK, method="qlora")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_packed_network_has_the_gradients_of_its_whole_weights(form: str) -> None:
    packed, whole = (with_adapter(tiny_model(1), 3) for _ in range(2))
    pack_base(packed, TARGETS, form)
    kept = dict(packed.named_modules())
    for name, layer in whole.named_modules():
        other = kept[name]
        if isinstance(layer, Linear) and isinstance(other, Linear) and other.packed is not None:
            layer.weight.data.copy_(other.packed.whole())
    batch = pad_rows(make_rows(5))
    for model in (packed, whole):
        batch_loss(model, batch, 9.0).backward()
    theirs = dict(whole.named_parameters())
    for name, parameter in packed.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5)


def test_packed_base_keeps_no_whole_weight() -> None:
    model = with_adapter(tiny_model(1), 3)
    pack_base(model, TARGETS, "nf4")
    layers = [m for m in model.modules() if isinstance(m, Linear)]
    assert layers and all(layer.weight.is_meta for layer in layers)
    with pytest.raises(AssertionError, match="the weights that were packed"):  # training.md c.33
        merge_lora(model)


def test_packed_network_is_trained() -> None:
    """training.md c.43: every factor moves, and the packed numbers do not."""
    model = with_adapter(tiny_model(1), 3)
    pack_base(model, TARGETS, "int8")
    codes = [m.packed.codes.clone() for m in model.modules() if isinstance(m, Linear) and m.packed]
    plan = ListPlan([[pad_rows(make_rows(4))]] * 10)
    trainer = Trainer(model, plan, recipe=RECIPES["muon"], run_id="r", objective=TokenObjective())
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    for _ in trainer:
        pass
    assert [name for name, p in trainer.parameters.items() if torch.equal(before[name], p)] == []
    after = [m.packed.codes for m in model.modules() if isinstance(m, Linear) and m.packed]
    assert all(torch.equal(a, b) for a, b in zip(codes, after, strict=True))


@pytest.mark.parametrize("form", [None, "int8"])
def test_qlora_card_says_what_packing_lost(home: tuple[Project, Dataset], form: str | None) -> None:
    """training.md c.33, c.34: what answers is the adapter on the base's own weights."""
    project, dataset = home
    reports: list[StepReport] = []
    options = replace(QLORA, packing=form, epochs=12, rank=8)
    made = train_student(dataset, project, options=options, on_step=reports.append)
    assert reports[-1].loss < 0.7 * reports[0].loss
    identity, facts = made.card["identity"], made.card["facts"]
    assert (identity["method"], identity["packing"]) == ("qlora", form or "nf4")
    assert facts["packed_bytes_frac"] < 0.35  # rows of 32 fill half a block
    assert 0 < facts["lost_over_changed"]["median"] <= facts["lost_over_changed"]["worst"]
    assert facts["develop_loss_packed"] != facts["develop_loss"]
    assert abs(facts["develop_loss"] - facts["develop_loss_packed"]) < (0.1 if form else 1.5)
    served = load_student(project, made.id).model  # its canary logits hold
    base = load_base(project, BASE_NAME).model
    attach_adapter(base, read_adapter(made.path))
    ids = torch.arange(7, 27).view(2, 10)
    torch.testing.assert_close(served.logits(served(ids)), base.logits(base(ids)))


def test_qlora_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    made: list[str] = []
    for name in ("a", "b"):
        project, dataset = make_project(tmp_path / name)
        options = replace(QLORA, checkpoint_every_s=0)

        def stop(report: StepReport, is_first: bool = name == "a") -> None:
            if report.step == 4 and is_first:
                raise KeyboardInterrupt

        if name == "a":
            with pytest.raises(KeyboardInterrupt):
                train_student(dataset, project, options=options, on_step=stop)
        made.append(train_student(dataset, project, options=options).id)
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("method", "form", "message"),
    [("lora", "nf4", "packing is of no use to the method 'lora'"),
     ("qlora", "int3", "packing 'int3' is not one of nf4, int8")],
)  # fmt: skip
def test_student_options_refuse_packing(method: str, form: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        StudentOptions(method=method, packing=form)
    assert caught.value.what == message
