"""A finished base: what its card says is measured on what it stores."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.artefact import Artefact, open_artefact
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.base import TEXT_CARD, bits_per_byte, prepare_text, pretrain
from ownweights.student.publish import (
    compare_bits_per_byte,
    load_trained,
    ngram_bits_per_byte,
    publish_base,
)
from ownweights.student.trainer import CHECKPOINT_NAME
from ownweights.student.vocabulary import END_ID, load_tokenizer
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.load import load_model
from tests.student.text import KEPT_BOOK, make_corpus, small_recipe
from tests.tiny import byte_tokenizer, tiny_model


def ngram_by_dict(training: bytes, text: bytes, order: int) -> float:
    """Witten-Bell smoothing with plain dictionaries, one byte at a time."""
    pad = bytes(order)
    counts: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
    padded = pad + training
    for at in range(order, len(padded)):
        for length in range(order):
            counts[padded[at - length : at]][padded[at]] += 1
    spent, padded = 0.0, pad + text
    for at in range(order, len(padded)):
        chance = 1 / 256
        for length in range(order):
            seen = counts[padded[at - length : at]]
            if seen:
                chance = (seen[padded[at]] + len(seen) * chance) / (seen.total() + len(seen))
        spent -= math.log2(chance)
    return spent / len(text)


BYTES = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.text("ab \n", min_size=1, max_size=120).map(str.encode),
)


@given(training=BYTES, text=BYTES, order=st.integers(1, 8))
def test_ngram_bits_per_byte_matches_brute_force(training: bytes, text: bytes, order: int) -> None:
    ours = ngram_bits_per_byte(training, text, order)
    assert ours == pytest.approx(ngram_by_dict(training, text, order), rel=1e-9)


def test_ngram_bits_per_byte_matches_brute_force_on_prose() -> None:
    training = b"".join(b"The fox and the %d grapes. " % k for k in range(60))
    text = b"The fox, the fox! and 7 grapes"
    assert ngram_bits_per_byte(training, text) == pytest.approx(ngram_by_dict(training, text, 5))


def test_ngram_bits_per_byte_of_bytes_never_seen_is_large() -> None:
    seen, unseen = (ngram_bits_per_byte(b"ab" * 500, text) for text in (b"abab", b"zzzz"))
    assert seen < 0.2
    assert 8 < unseen < 25


def test_ngram_bits_per_byte_needs_ngrams_that_fit() -> None:
    with pytest.raises(AssertionError, match="an n-gram of 9 bytes does not fit 64 bits"):
        ngram_bits_per_byte(b"a", b"a", 9)


def test_compare_bits_per_byte_asks_all_three_the_same() -> None:
    model, tokenizer = tiny_model(), byte_tokenizer()
    held_out, training = ["the fox", "Größe"], ["the grapes " * 9, "sour"]
    found = compare_bits_per_byte(model, tokenizer, held_out, training)
    text = "the fox\nGröße".encode()
    packed = zstandard.ZstdCompressor(level=19).compress(text)
    assert found == {
        "model": round(bits_per_byte(model, tokenizer, held_out), 4),
        "five_gram": round(
            ngram_bits_per_byte(("the grapes " * 9 + "\nsour").encode(), text, 5), 4
        ),
        "zstd_19": round(8 * len(packed) / len(text), 4),
    }


# --- the sealed base


class Made:
    """A small base, pre-trained and published."""

    def __init__(self, folder: Path) -> None:
        self.corpus, traffic = make_corpus(folder)
        self.recipe, self.work = small_recipe(), folder / "work"
        self.project = Project(folder / "project")
        prepare_text(self.recipe, self.corpus, traffic, self.work)
        for _ in pretrain(self.recipe, self.work):
            pass
        self.base = self.publish()

    def publish(self) -> Artefact:
        return publish_base(self.recipe, self.work, self.project, corpus=self.corpus)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("publish"))


def test_publish_base_is_a_hub_folder(made: Made) -> None:
    path = resolve_base(made.project, made.base.id)
    assert path == made.base.path.resolve()
    model = load_model(path)
    tokenizer = Tokenizer.load(path)
    template = ChatTemplate.load(path, tokenizer)
    assert model.config.eos_token_ids == (END_ID,)
    assert template.end_id == END_ID
    ids = template.render_prompt([{"role": "user", "content": "come to the mill"}])
    assert model(torch.tensor([ids])).isfinite().all()


def test_publish_base_measures_what_it_stores(made: Made) -> None:
    tokenizer = load_tokenizer(made.base.path / "tokenizer.json")
    stored = load_model(made.base.path)
    figures = made.base.card["facts"]["held_out_bits_per_byte"]
    assert figures["model"] == round(bits_per_byte(stored, tokenizer, [KEPT_BOOK]), 4)
    assert figures.keys() == {"model", "five_gram", "zstd_19"}
    trained, steps = load_trained(made.recipe, made.work)
    assert steps == 10
    for (name, ours), theirs in zip(trained.named_parameters(), stored.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_publish_base_says_what_it_was_made_of(made: Made) -> None:
    card = made.base.card
    assert card["identity"] == json.loads(json.dumps(made.recipe.trained_by()))
    facts = card["facts"]
    assert facts["sources"] == [dict(source) for source in made.recipe.sources]
    assert facts["text"] == json.loads((made.work / TEXT_CARD).read_text("utf-8"))
    assert facts["parameters"] == sum(p.numel() for p in load_model(made.base.path).parameters())
    assert facts["steps"] == 10
    assert facts["licence"] == "Apache-2.0"


def test_publish_base_keeps_the_text_to_itself(made: Made) -> None:
    assert sorted(path.name for path in made.base.path.iterdir()) == [
        "card.json", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_publish_base_always_same_id(made: Made) -> None:
    assert made.publish().id == made.base.id
    opened = open_artefact(made.project.kind_dir("base"), made.base.id, "base", verify=True)
    assert base_id(opened.path) == base_id(made.base.path)


def test_publish_base_needs_a_checkpoint(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no checkpoint\nhint: own base train"):
        load_trained(made.recipe, tmp_path)
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"half")
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_trained(made.recipe, tmp_path)
