"""The base that ships inside the package: its size, its card, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ownweights.core.artefact import hash_file
from ownweights.core.project import Project
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.base import BaseRecipe
from ownweights.student.train import load_base
from ownweights.student.vocabulary import CHAT_TEMPLATE, END_ID
from ownweights.weights.base import EMBEDDED_DIR, SEEDLING, base_id, resolve_base
from ownweights.weights.load import load_model

MAX_BYTES = 25_000_000


@pytest.fixture
def folder() -> Path:
    if not (EMBEDDED_DIR / "config.json").is_file():
        pytest.skip("this tree holds no embedded base yet")
    return EMBEDDED_DIR


@pytest.fixture
def card(folder: Path) -> dict[str, Any]:
    if not (folder / "card.json").is_file():
        pytest.skip("the embedded base has no card yet")
    return json.loads((folder / "card.json").read_text("utf-8"))


def test_seedling_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MAX_BYTES


def test_seedling_has_the_size_that_is_promised(folder: Path) -> None:
    model = load_model(folder)
    assert 5e6 <= sum(p.numel() for p in model.parameters()) <= 12e6
    assert model.config.max_position_embeddings >= 1024
    assert model.config.vocab_size <= 8192
    assert Tokenizer.load(folder).vocab_size <= model.config.vocab_size


def test_seedling_is_shaped_by_its_recipe(folder: Path, shipped_recipe: BaseRecipe) -> None:
    assert load_model(folder).config == shipped_recipe.shape


def test_seedling_speaks_the_chat_format(folder: Path) -> None:
    template = ChatTemplate.load(folder, Tokenizer.load(folder))
    assert template.tokenizer.config["chat_template"] == CHAT_TEMPLATE
    assert template.end_id == END_ID
    ids = template.render_prompt([{"role": "user", "content": "“Ça va ?” <|end|> 漢字"}])
    assert load_model(folder)(torch.tensor([ids])).isfinite().all()


def test_seedling_is_what_students_start_from_by_default(folder: Path, tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert resolve_base(project, SEEDLING) == folder
    base = load_base(project, SEEDLING)
    assert (base.name, base.id) == (SEEDLING, base_id(folder))


def test_seedling_has_learned_to_copy_words(folder: Path) -> None:
    """It finds a word that it has just read likelier than one that it has not."""
    model, tokenizer = load_model(folder), Tokenizer.load(folder)
    template = ChatTemplate.load(folder, tokenizer)
    won = 0
    names = ["Brandok", "Seltwin", "Quarlie", "Mondeaux", "Trilby", "Haskind", "Orvane", "Pellow"]
    for here, there in zip(names, names[1:] + names[:1], strict=True):
        costs: list[float] = []
        for name in (here, there):
            asked = [{"role": "user", "content": f"we met {here} near the river | person"}]
            ids, num_prompt = template.render_example(
                asked, f'{{"person":"we met {name} near the river"}}'
            )
            with torch.no_grad():
                scores = model.logits(model(torch.tensor([ids[:-1]])))[0].log_softmax(-1)
            targets = torch.tensor(ids[num_prompt:])
            costs.append(-float(scores[num_prompt - 1 :].gather(1, targets[:, None]).sum()))
        won += costs[0] < costs[1]
    assert won == len(names)


def test_seedling_card_is_of_these_files(folder: Path, card: dict[str, Any]) -> None:
    assert card["kind"] == "base"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= card["files"].keys()
    for name, digest in card["files"].items():
        assert hash_file(folder / name) == digest, name


def test_seedling_card_names_every_source_with_its_licence(card: dict[str, Any]) -> None:
    facts = card["facts"]
    assert facts["licence"] == "Apache-2.0"
    workloads = card["identity"]["text"]["workloads"]
    assert {source["name"] for source in facts["sources"]} >= {"books", *workloads}
    for source in facts["sources"]:
        assert source["what"] and source["licence"], source


def test_seedling_card_beats_a_five_gram_model_and_zstd(card: dict[str, Any]) -> None:
    figures = card["facts"]["held_out_bits_per_byte"]
    assert 0 < figures["model"] < min(figures["five_gram"], figures["zstd_19"])


def test_seedling_card_names_its_recipe(card: dict[str, Any], shipped_recipe: BaseRecipe) -> None:
    assert card["identity"] == json.loads(json.dumps(shipped_recipe.trained_by()))
    assert card["facts"]["sources"] == list(shipped_recipe.sources)
    assert card["facts"]["text"]["num_tokens"] > 0
