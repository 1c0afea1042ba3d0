"""An adapter on the output head: it trains, a tied embedding stays as it is, and files carry it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ownweights.core.artefact import Artefact
from ownweights.core.errors import ModelError
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.model.lora import HEAD, TARGETS, LoraConfig, lora_layers, merge_lora
from ownweights.model.transformer import Transformer
from ownweights.student.examples import pad_rows
from ownweights.student.train import train_student
from ownweights.student.trainer import Recipe, TokenObjective, Trainer
from ownweights.weights.adapter import attach_adapter, read_adapter, save_adapter
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from ownweights.weights.student import load_student
from tests.student.rows import ListPlan, make_rows
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME, tiny_model, with_adapter

BOTH = LoraConfig(4, 8.0, (*TARGETS, HEAD))
ALONE = LoraConfig(4, 8.0, (HEAD,))
IDS = torch.arange(7, 27).view(2, 10)
ROUNDING = 1e-5  # of float32 sums in another order, relative to the greatest logit


def adapted(config: LoraConfig, *, is_tied: bool = True) -> Transformer:
    model = tiny_model(3, tie_word_embeddings=is_tied)
    model.own_head()
    return with_adapter(model, 5, config)


@torch.no_grad()
def logits(model: Transformer) -> torch.Tensor:
    return model.logits(model(IDS))


def test_tied_head_adapter_leaves_the_embedding() -> None:
    """training.md c.36: the adapter acts on the scores alone."""
    plain, model = tiny_model(3), adapted(ALONE)
    head = model.own_head()
    assert head.weight is model.model.embed_tokens.weight
    assert torch.equal(model(IDS), plain(IDS))
    assert head.lora_a is not None and head.lora_b is not None
    added = plain(IDS) @ (head.lora_b @ head.lora_a).T * head.scale
    torch.testing.assert_close(logits(model), (plain.logits(plain(IDS)) + added).detach())
    before = logits(model)
    merge_lora(model)
    assert torch.equal(model.model.embed_tokens.weight, plain.model.embed_tokens.weight)
    assert (logits(model) - before).abs().max() <= ROUNDING * before.abs().max()


@pytest.mark.parametrize("is_tied", [True, False])
def test_head_adapter_is_trained(is_tied: bool) -> None:
    """training.md c.6, c.37: what is asked to be adapted is, and its factors move (c.43)."""
    model = adapted(BOTH, is_tied=is_tied)
    assert HEAD in lora_layers(model, BOTH.targets)
    plan = ListPlan([[pad_rows(make_rows(4))]] * 10)
    trainer = Trainer(model, plan, recipe=Recipe(1e-2), run_id="r", objective=TokenObjective())
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    assert {"lm_head.lora_a", "lm_head.lora_b"} <= before.keys()
    assert all("lora_" in name for name in before)
    for _ in trainer:
        pass
    assert [name for name, p in trainer.parameters.items() if torch.equal(before[name], p)] == []


@pytest.mark.parametrize("is_tied", [True, False])
def test_head_adapter_survives_its_folder(tmp_path: Path, is_tied: bool) -> None:
    model = adapted(BOTH, is_tied=is_tied)
    save_adapter(model, BOTH, tmp_path, base_id="b", base_name=BASE_NAME)
    again = tiny_model(3, tie_word_embeddings=is_tied)
    attach_adapter(again, read_adapter(tmp_path))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("is_tied", [True, False])
def test_merged_head_survives_a_checkpoint(tmp_path: Path, is_tied: bool) -> None:
    """training.md c.36: saved and loaded again, tied and untied, with the same logits."""
    model = adapted(BOTH, is_tied=is_tied)
    merge_lora(model)
    expected = logits(model)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.lm_head is not None
    assert torch.equal(logits(loaded), expected)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*tied.*:UserWarning")
@pytest.mark.parametrize("is_tied", [True, False])
def test_head_adapter_matches_peft(tmp_path: Path, is_tied: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = adapted(BOTH, is_tied=is_tied)
    save_model(tiny_model(3, tie_word_embeddings=is_tied), tmp_path / "base")
    save_adapter(model, BOTH, tmp_path / "adapter", base_id="b", base_name=BASE_NAME)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.inference_mode():
        expected = theirs(IDS).logits
    assert (logits(model) - expected).abs().max() <= ROUNDING * expected.abs().max()


# --- a whole student


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def student(home: tuple[Project, Dataset]) -> Artefact:
    return train_student(home[1], home[0], options=replace(QUICK, head=True))


def test_student_with_a_head_answers_as_it_was_trained(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    assert student.card["identity"]["lora"]["targets"] == [*TARGETS, HEAD]
    found = load_student(home[0], student.id)  # and its canary logits are what they were
    assert found.model.lm_head is not None
    assert not torch.equal(found.model.lm_head.weight, found.model.model.embed_tokens.weight)


def test_student_is_trained_on_from_another(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    """The adapter's shape is the first one's, whatever rank is said; its values are its start."""
    project, dataset = home
    options = replace(QUICK, start=student.id, rank=2, learning_rate=1e-7, epochs=0.5)
    made = train_student(dataset, project, options=options)
    before, after = read_adapter(student.path), read_adapter(made.path)
    assert after.config == before.config == BOTH
    for name, (a, b) in before.factors.items():
        torch.testing.assert_close(after.factors[name][0], a, atol=1e-4, rtol=0)
        torch.testing.assert_close(after.factors[name][1], b, atol=1e-4, rtol=0)
    assert made.card["parents"]["start"] == student.id
    assert "of student" in made.card["facts"]["reasons"]["rank"]


def test_head_is_not_left_out_where_the_start_has_none(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    plain = train_student(dataset, project, options=replace(QUICK, epochs=0.5))
    with pytest.raises(ModelError, match="has no adapter on the head to start from"):
        train_student(dataset, project, options=replace(QUICK, start=plain.id, head=True))


def test_student_by_adamw_learns(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    options = replace(QUICK, optimiser="adamw", learning_rate=None, epochs=1)
    made = train_student(dataset, project, options=options)
    assert made.card["identity"]["optimiser"] == "adamw"
    assert "for an adapter" in made.card["identity"]["derived"]["learning_rate"]
