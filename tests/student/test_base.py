"""Pre-training of a base: the recipe, the text made once, the run, and what it costs a byte."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ownweights.core.errors import ArtefactError, InputError, SettingsError
from ownweights.dataset.split import split_of
from ownweights.student.base import (
    TEXT_CARD,
    TOKENIZER_NAME,
    TOKENS_NAME,
    BaseRecipe,
    WindowPlan,
    bits_per_byte,
    next_token_batch,
    prepare_text,
    pretrain,
    read_recipe,
)
from ownweights.student.corpus import is_held_out_book
from ownweights.student.tokens import READ_ONLY, TokenFile
from ownweights.student.trainer import CHECKPOINT_NAME, Trainer, batch_loss
from ownweights.student.vocabulary import BOS_ID, END_ID, USER_ID, load_tokenizer
from tests.student.text import (
    HELD_OUT_QUESTION,
    KEPT_BOOK,
    RECIPE,
    make_corpus,
    recipe_text,
    small_recipe,
    write_books,
    write_recipe,
    write_traffic,
)
from tests.tiny import byte_tokenizer, tiny_model

# --- the recipe


def test_read_recipe_reads_every_table(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path))
    assert recipe.shape.vocab_size == 300
    assert (recipe.shape.bos_token_id, recipe.shape.eos_token_ids) == (BOS_ID, (END_ID,))
    assert recipe.text.workloads == ("talk",)
    assert recipe.train.learning_rate == 0.01
    assert recipe.sources == ({"name": "books", "what": "two books", "licence": "CC0-1.0"},)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("train", {"step": 3}, "[train]: unknown key 'step'"),
        ("shape", {"eos_token_ids": [1]}, "[shape]: unknown key 'eos_token_ids'"),
        ("train", {"steps": 0}, "[train] steps: expected at least 1, got 0"),
        ("train", {"rows": 1.5}, "[train] rows: expected a whole number, got 1.5"),
        ("train", {"learning_rate": 1.0},
         "[train] learning_rate: expected between 0 and 1 (exclusive), got 1.0"),
        ("train", {"decay_frac": 1.01}, "[train] decay_frac: expected between 0 and 1, got 1.01"),
        ("train", {"length": 65}, "[train] length: expected at most 64, got 65"),
        ("text", {"workloads": "talk"}, "[text] workloads: expected a list of text, got the text"),
        ("text", {"tokenizer_every": 0}, "[text] tokenizer_every: expected at least 1, got 0"),
        ("shape", {"hidden_size": 0}, "[shape] hidden_size: expected more than 0, got 0"),
        ("shape", {"vocab_size": 262}, "[shape] vocab_size: expected between 263 and 32768, got"),
        ("shape", {"rope_theta": -1.0}, "[shape] rope_theta: expected more than 0, got -1.0"),
    ],
)  # fmt: skip
def test_read_recipe_refuses(
    tmp_path: Path, table: str, change: Mapping[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path, {table: change})
    with pytest.raises(SettingsError) as caught:
        read_recipe(path)
    assert caught.value.what.startswith(f"{path}: {message}")


def test_read_recipe_guesses_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hint: did you mean 'steps'\?"):
        read_recipe(write_recipe(tmp_path, {"train": {"stesp": 3}}))
    with pytest.raises(SettingsError) as caught:
        read_recipe(write_recipe(tmp_path, {"train": {"zzz": 3}}))
    assert caught.value.hint is None


def test_read_recipe_names_what_lacks(tmp_path: Path) -> None:
    tables = {name: dict(table) for name, table in RECIPE.items()}
    del tables["train"]["rows"], tables["train"]["steps"]
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(tables), "utf-8")
    with pytest.raises(SettingsError, match=r"\[train\]: steps, rows must be given"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[shape]\n", "expected the tables shape, text, train and sources, got ['shape']"),
        ("shape = 1\ntext = 2\ntrain = 3\n", "expected the tables shape, text, train and sources"),
        ("[shape\n", "is not TOML"),
        (recipe_text(RECIPE) + "[extra]\na = 1\n", "expected the tables shape, text, train and"),
        (recipe_text(RECIPE) + '[[sources]]\nname = "x"\n',
         "each of [[sources]] needs name, what, licence"),
        (recipe_text(RECIPE) + '[[sources]]\nname = "x"\nwhat = "y"\nlicence = 1\n',
         "licence: expected text, got 1"),
    ],
)  # fmt: skip
def test_read_recipe_refuses_a_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_recipe(path)


def test_read_recipe_needs_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no recipe .*none\.toml"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="can't decode byte 0xff"):
        read_recipe(tmp_path / "odd.toml")


def test_recipe_sources_do_not_name_the_run() -> None:
    recipe = small_recipe()
    other = dataclasses.replace(recipe, sources=())
    assert other.trained_by() == recipe.trained_by()
    longer = dataclasses.replace(recipe.train, steps=99)
    assert dataclasses.replace(recipe, train=longer).trained_by() != recipe.trained_by()
    json.dumps(recipe.trained_by())


# --- the text


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, corpus: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepare_text(small_recipe(), *corpus, folder)
    return folder


def read_text(work: Path) -> str:
    ids = TokenFile.open(work / TOKENS_NAME).unmarked().tolist()
    return load_tokenizer(work / TOKENIZER_NAME).decode(ids, skip_special_tokens=False)


def test_prepare_text_reads_books_handbooks_prompts_and_drills(work: Path) -> None:
    text = read_text(work)
    assert "Once upon a time a fox" in text
    assert "Answer the telephone" in text  # the handbook
    assert "<|bos|><|user|>" in text
    assert "<|assistant|>{" in text
    assert KEPT_BOOK not in text


def test_prepare_text_holds_no_held_out_request(work: Path) -> None:
    assert HELD_OUT_QUESTION.lower() not in read_text(work).lower()
    card = json.loads((work / TEXT_CARD).read_text("utf-8"))
    assert card["removed_sentences"] == 1
    assert card["removed_prompts"] == 1  # a near one


def test_prepare_text_asks_no_held_out_request_by_the_first_words_of_a_sentence(
    tmp_path: Path,
) -> None:
    animals = ("dogs", "cats", "owls", "bees", "crows", "hens", "bats", "mice", "rats", "ants")
    asked = [f"{size} {animal} ran over" for size in ("nine", "ten") for animal in animals]
    held_out = [text for text in asked if split_of(f"prompt:{text}") != "train"]
    assert held_out
    sentences = " ".join(f"{text} the old stone bridge near that mill." for text in held_out)
    write_books(tmp_path, {"book-0.txt.gz": sentences})
    assert not is_held_out_book(Path("book-0.txt.gz"))
    write_traffic(tmp_path / "talk.jsonl.gz", held_out)
    recipe = small_recipe(text={"num_drills": 400, "document_frac": 1.0})
    card = prepare_text(recipe, tmp_path, tmp_path, tmp_path / "work")
    assert card["removed_sentences"] == 0  # the sentences themselves are not near
    assert 300 < card["drills"] < 400
    turns = read_text(tmp_path / "work").split("<|user|>")[1:]
    questions = [turn.split("<|end|>")[0].lower().rpartition(" | ") for turn in turns]
    assert [stem for stem, _, _ in questions if stem in held_out] == []


def test_prepare_text_counts_what_it_wrote(work: Path) -> None:
    card = json.loads((work / TEXT_CARD).read_text("utf-8"))
    ids = TokenFile.open(work / TOKENS_NAME).unmarked()
    assert card["num_tokens"] == len(ids)
    kept = card["prompts"] - card["removed_prompts"]
    num_asked = np.count_nonzero(ids == USER_ID)
    assert num_asked == kept * small_recipe().text.prompt_repeats + card["drills"]
    assert 0 < card["drills"] <= small_recipe().text.num_drills


def test_prepare_text_always_repeats(tmp_path: Path, work: Path, corpus: tuple[Path, Path]) -> None:
    prepare_text(small_recipe(), *corpus, tmp_path)
    for name in (TOKENS_NAME, TOKENIZER_NAME, TEXT_CARD):
        assert (tmp_path / name).read_bytes() == (work / name).read_bytes()


def test_prepare_text_is_done_once(work: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    card = prepare_text(small_recipe(), nowhere, nowhere, work)
    assert card == json.loads((work / TEXT_CARD).read_text("utf-8"))


def test_prepare_text_refuses_the_text_of_another_recipe(work: Path) -> None:
    other = small_recipe(text={"num_drills": 3})
    with pytest.raises(ArtefactError, match="holds text of another recipe"):
        prepare_text(other, work, work, work)


def test_prepare_text_takes_a_share_of_the_chapters(
    tmp_path: Path, corpus: tuple[Path, Path]
) -> None:
    whole = prepare_text(small_recipe(), *corpus, tmp_path / "whole")
    some = prepare_text(small_recipe(text={"document_frac": 0.4}), *corpus, tmp_path / "some")
    assert 0 < some["num_documents"] < whole["num_documents"]


def test_prepare_text_needs_text(tmp_path: Path, corpus: tuple[Path, Path]) -> None:
    recipe = small_recipe(text={"document_frac": 0.0, "prompt_repeats": 0})
    with pytest.raises(InputError, match="nothing is left to read"):
        prepare_text(recipe, *corpus, tmp_path)
    assert not (tmp_path / TEXT_CARD).exists()


@pytest.mark.parametrize("lacking", ["corpus", "traffic"])
def test_prepare_text_needs_its_folders(
    tmp_path: Path, corpus: tuple[Path, Path], lacking: str
) -> None:
    books, traffic = corpus
    empty = tmp_path / "empty"
    given = (empty, traffic) if lacking == "corpus" else (books, empty)
    message = r"holds no books" if lacking == "corpus" else r"talk\.jsonl\.gz: cannot be read"
    with pytest.raises(InputError, match=message):
        prepare_text(small_recipe(), *given, tmp_path / "work")


def test_held_out_book_of_the_small_corpus_is_one(corpus: tuple[Path, Path]) -> None:
    kept = [path.name for path in (corpus[0] / "books").iterdir() if is_held_out_book(path)]
    assert len(kept) == 1


# --- the run


def run_to_end(recipe: BaseRecipe, work: Path, **options: Any) -> Trainer:
    *_, (_, trainer) = pretrain(recipe, work, **options)
    return trainer


def copy_text(work: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in (TOKENS_NAME, TOKENIZER_NAME, TEXT_CARD):
        (folder / name).write_bytes((work / name).read_bytes())
    return folder


def bits(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_same_bits(one: Trainer, other: Trainer) -> None:
    left, right = bits(one), bits(other)
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_pretrain_learns(tmp_path: Path, work: Path) -> None:
    folder = copy_text(work, tmp_path / "run")
    losses = [report.loss for report, _ in pretrain(small_recipe(train={"steps": 30}), folder)]
    assert losses[0] == pytest.approx(math.log(300), rel=0.1)  # at random: every token alike
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("stop_at", [3, 9])
def test_pretrain_resumed_equals_uninterrupted(tmp_path: Path, work: Path, stop_at: int) -> None:
    recipe = small_recipe()
    whole = run_to_end(recipe, copy_text(work, tmp_path / "whole"))
    folder = copy_text(work, tmp_path / "stopped")
    for report, trainer in pretrain(recipe, folder):
        if report.step == stop_at:
            trainer.save_checkpoint(folder)
            break
    again = pretrain(recipe, folder)
    first, resumed = next(again)
    assert first.step == stop_at + 1
    list(again)
    assert_same_bits(whole, resumed)


def test_pretrain_saves_now_and_then_and_at_the_end(tmp_path: Path, work: Path) -> None:
    folder = copy_text(work, tmp_path / "run")
    seen: list[int] = []
    for report, _ in pretrain(small_recipe(), folder, checkpoint_every=4):
        if (folder / "progress.json").is_file():
            seen.append(json.loads((folder / "progress.json").read_text("utf-8"))["step"])
        assert report.num_steps == 10
    assert seen == [4, 4, 4, 4, 8, 8, 10]
    assert list(pretrain(small_recipe(), folder)) == []  # all done


def test_pretrain_branches_from_a_plateau(tmp_path: Path, work: Path) -> None:
    short, longer = small_recipe(), small_recipe(train={"steps": 20})
    first, second = copy_text(work, tmp_path / "short"), copy_text(work, tmp_path / "long")
    run_to_end(short, first)
    assert (first / "plateau" / CHECKPOINT_NAME).is_file()
    steps = [r.step for r, _ in pretrain(longer, second, branch_from=first / "plateau")]
    assert steps == list(range(6, 21))  # the last half of ten steps decays


def test_pretrain_branch_equals_the_longer_run(tmp_path: Path, work: Path) -> None:
    """Up to the plateau's end both runs take the same steps, so branching changes nothing."""
    constant = {"warmup_frac": 0.0}
    short = small_recipe(train=constant)
    longer = small_recipe(train={"steps": 20, **constant})
    whole = run_to_end(longer, copy_text(work, tmp_path / "whole"))
    first, second = copy_text(work, tmp_path / "short"), copy_text(work, tmp_path / "long")
    run_to_end(short, first)
    assert_same_bits(whole, run_to_end(longer, second, branch_from=first / "plateau"))


def test_pretrain_prefers_its_own_checkpoint_to_a_branch(tmp_path: Path, work: Path) -> None:
    recipe = small_recipe()
    first, second = copy_text(work, tmp_path / "one"), copy_text(work, tmp_path / "two")
    run_to_end(recipe, first)
    run_to_end(recipe, second)
    assert list(pretrain(recipe, second, branch_from=first / "plateau")) == []


def test_pretrain_refuses_the_run_of_another_recipe(tmp_path: Path, work: Path) -> None:
    folder = copy_text(work, tmp_path / "run")
    run_to_end(small_recipe(), folder)
    with pytest.raises(ArtefactError, match="belongs to run"):
        next(pretrain(small_recipe(train={"steps": 20}), folder))


def test_window_plan_ends_at_full_context() -> None:
    recipe = small_recipe(train={"steps": 10, "rows": 8, "length": 16, "long_frac": 0.2})
    plan = WindowPlan(TokenFile(np.arange(7, 263, dtype=np.uint16)), recipe)
    shapes = [tuple(part.tokens.shape) for step in range(10) for part in plan.batches(step)]
    assert shapes == [(8, 15)] * 8 + [(2, 63)] * 2  # as many tokens a step


def test_next_token_batch_trains_every_position() -> None:
    batch = next_token_batch(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert batch.tokens.tolist() == [[1, 2], [4, 5]]
    assert batch.where.tolist() == [0, 1, 2, 3]
    assert batch.targets.tolist() == [2, 3, 5, 6]


def test_next_token_batch_reads_but_does_not_train_marked_tokens() -> None:
    batch = next_token_batch(torch.tensor([[READ_ONLY | 1, READ_ONLY | 2, 3, READ_ONLY | 4, 5]]))
    assert batch.tokens.tolist() == [[1, 2, 3, 4]]
    assert batch.where.tolist() == [1, 3]
    assert batch.targets.tolist() == [3, 5]


def test_next_token_batch_of_marked_tokens_alone_costs_nothing() -> None:
    batch = next_token_batch(torch.full((2, 5), READ_ONLY | 7))
    assert float(batch_loss(tiny_model(4), batch, 1.0).detach()) == 0.0


def test_prepare_text_makes_exercises_of_prompts(tmp_path: Path, corpus: tuple[Path, Path]) -> None:
    texts = dict[float, str]()
    for frac in (0.0, 1.0):
        folder = tmp_path / str(frac)
        recipe = small_recipe(text={"prompt_drill_frac": frac, "prompt_repeats": 0})
        prepare_text(recipe, *corpus, folder)
        texts[frac] = read_text(folder)
    questions = {
        frac: " ".join(turn.split("<|end|>")[0] for turn in text.split("<|user|>")[1:]).lower()
        for frac, text in texts.items()
    }
    assert "fox" in questions[0.0] and "fox" not in questions[1.0]


# --- bits a byte


def test_bits_per_byte_matches_a_hand_computation() -> None:
    model, tokenizer = tiny_model(4), byte_tokenizer()
    texts = ["Größe", "x" * 3]
    bits_spent, num_bytes = 0.0, 0
    for text in texts:
        ids = [BOS_ID, *tokenizer.encode(text).ids]
        with torch.no_grad():
            chances = model.logits(model(torch.tensor([ids])))[0].double().softmax(-1)
        for place, token in enumerate(ids[1:]):
            bits_spent -= math.log2(float(chances[place, token]))
        num_bytes += len(text.encode("utf-8"))
    assert num_bytes == 10
    assert bits_per_byte(model, tokenizer, texts) == pytest.approx(bits_spent / 10, rel=1e-5)


def test_bits_per_byte_reads_windows_of_full_context() -> None:
    model, tokenizer = tiny_model(4, max_position_embeddings=8), byte_tokenizer()
    text = "abcdefghijklmnopqrst"
    ids = [BOS_ID, *tokenizer.encode(text).ids]
    nats = 0.0
    for start in (0, 8, 16):
        seen = ids[start : start + 9]
        with torch.no_grad():
            scores = model.logits(model(torch.tensor([seen[:-1]])))[0].log_softmax(-1)
        nats -= sum(float(scores[k, token]) for k, token in enumerate(seen[1:]))
    expected = nats / math.log(2) / 20
    assert bits_per_byte(model, tokenizer, [text]) == pytest.approx(expected, rel=1e-5)


def test_bits_per_byte_of_nothing_is_zero() -> None:
    assert bits_per_byte(tiny_model(), byte_tokenizer(), ["", ""]) == 0.0
