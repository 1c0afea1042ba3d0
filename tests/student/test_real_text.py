"""The shipped recipe on the real corpus: no held-out request is in what it reads."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from ownweights.dataset.normalise import normalise_prompt
from ownweights.student.base import TOKENIZER_NAME, TOKENS_NAME, BaseRecipe, prepare_text
from ownweights.student.corpus import (
    Counts,
    chapters_of,
    clean_prompts,
    clean_text,
    is_held_out_book,
    read_books,
    read_handbooks,
    read_prompts,
)
from ownweights.student.held_out import HeldOutText
from ownweights.student.tokens import TokenFile
from ownweights.student.vocabulary import BOS_ID, load_tokenizer
from tests.student.leaks import Forbidden, held_out_questions

WHERE_SENTENCES_END = re.compile(r"(?<=[.!?…”])\s+|\n+")
NUM_BOOKS, EVERY_CHAPTER = 2, 4  # what fits into a fast test


@cache
def _guards(traffic: Path, workloads: tuple[str, ...]) -> tuple[Forbidden, HeldOutText]:
    files = [traffic / f"{name}.jsonl.gz" for name in workloads]
    return (
        Forbidden(held_out_questions(traffic, workloads)), HeldOutText(read_prompts(files).held_out)
    )  # fmt: skip


@pytest.fixture
def traffic(test_data: Path) -> Path:
    return test_data / "traffic"


@pytest.fixture
def judge(traffic: Path, shipped_recipe: BaseRecipe) -> Forbidden:
    """A second opinion on what may not be read."""
    return _guards(traffic, shipped_recipe.text.held_out_from)[0]


@pytest.fixture
def held_out(traffic: Path, shipped_recipe: BaseRecipe) -> HeldOutText:
    """What the recipe itself leaves out."""
    return _guards(traffic, shipped_recipe.text.held_out_from)[1]


def pieces_of(texts: Sequence[str]) -> list[str]:
    """The distinct sentences of texts."""
    return sorted({s for text in texts for s in WHERE_SENTENCES_END.split(text) if s.strip()})


def assert_free(judge: Forbidden, texts: Sequence[str], pieces: Sequence[str]) -> None:
    assert judge.found_in(pieces) == {}
    assert [request for text in texts for request in judge.contained(text)] == []


def test_pretraining_text_holds_no_held_out_request(
    test_data: Path, shipped_recipe: BaseRecipe, judge: Forbidden, held_out: HeldOutText
) -> None:
    corpus, counts, recipe = test_data / "corpus", Counts(), shipped_recipe.text
    files = [test_data / "traffic" / f"{name}.jsonl.gz" for name in recipe.workloads]
    prompts = clean_prompts(read_prompts(files), held_out, counts)
    books = islice(read_books(corpus, held_out=False), NUM_BOOKS)
    chapters = [c for text in (*books, *read_handbooks(corpus)) for c in chapters_of(text)]
    texts = [clean_text(chapter, held_out, counts) for chapter in chapters[::EVERY_CHAPTER]]
    assert len(prompts) > 20_000 and counts.removed_prompts > 100
    assert sum(map(len, texts)) > 10**6 and counts.sentences > 10_000
    assert_free(judge, prompts, prompts)
    assert_free(judge, texts, pieces_of(texts))


def test_pretraining_text_would_show_what_it_must_not_hold(
    test_data: Path, judge: Forbidden, held_out: HeldOutText
) -> None:
    """Requests put into a book are all found there before it is cleaned, and none afterwards."""
    rng = random.Random(5)
    wanted = rng.sample(judge.requests, 400)
    book = next(read_books(test_data / "corpus", held_out=False))[:60_000].split("\n\n")
    for request in wanted:
        book.insert(rng.randrange(len(book)), f"He said. {request.capitalize()}! And left.")
    whole = "\n\n".join(book)
    near = {request for found in judge.found_in(pieces_of([whole])).values() for request in found}
    assert set(wanted) <= near | set(judge.contained(whole))
    own = [request for request in wanted if held_out.is_in(request)]
    assert len(own) > 0.98 * len(wanted)  # all but questions of the airline's training tasks
    for request in set(wanted) - set(own):
        whole = whole.replace(request.capitalize(), "")
    cleaned = clean_text(whole, held_out, Counts())
    assert_free(judge, [cleaned], pieces_of([cleaned]))
    assert cleaned.count("And left.") >= len(own)


def test_forbidden_near_matches_looking_at_all(judge: Forbidden) -> None:
    rng = random.Random(6)
    for request in rng.sample(judge.requests, 25):
        letters = list(request)
        letters[rng.randrange(len(letters))] = rng.choice("aeiou ")
        changed = normalise_prompt("".join(letters))
        assert sorted(judge.near(changed)) == judge.near_by_looking_at_all(changed)


def test_recipe_counts_its_books(test_data: Path, shipped_recipe: BaseRecipe) -> None:
    names = list((test_data / "corpus" / "books").glob("*.txt.gz"))
    num_read = sum(not is_held_out_book(name) for name in names)
    (books,) = [source for source in shipped_recipe.sources if source["name"] == "books"]
    assert books["what"].startswith(f"{num_read} books ")


def test_recipe_names_a_licence_for_all_it_reads(
    test_data: Path, shipped_recipe: BaseRecipe
) -> None:
    read = {folder.parent.name for folder in (test_data / "corpus").glob("text_*/docs.jsonl")}
    named = {source["name"] for source in shipped_recipe.sources if source["licence"]}
    assert named == {"books", "drills", *read, *shipped_recipe.text.workloads}


@pytest.mark.slow
def test_prepared_text_of_the_recipe_holds_no_held_out_request(
    test_data: Path, tmp_path: Path, shipped_recipe: BaseRecipe, judge: Forbidden
) -> None:
    """Everything that is read, exercises too, decoded again from the ids that are trained on."""
    prepare_text(shipped_recipe, test_data / "corpus", test_data / "traffic", tmp_path)
    tokenizer = load_tokenizer(tmp_path / TOKENIZER_NAME)
    texts = [
        tokenizer.decode(ids, skip_special_tokens=False)
        for ids in split_at(TokenFile.open(tmp_path / TOKENS_NAME).unmarked().tolist(), BOS_ID)
    ]
    conversations = [text for text in texts if text.startswith("<|user|>")]
    turns = [turn for text in conversations for turn in re.split(r"<\|\w+\|>", text) if turn]
    stems = [turn.rpartition(" | ")[0] for turn in turns]
    documents = [text for text in texts if not text.startswith("<|user|>")]
    assert len(turns) > 100_000 and sum(map(len, documents)) > 10**6
    assert_free(judge, texts, [*turns, *sorted({*stems} - {""}), *pieces_of(documents)])


@pytest.mark.slow
def test_all_books_cleaned_hold_no_held_out_request(
    test_data: Path, judge: Forbidden, held_out: HeldOutText
) -> None:
    corpus = test_data / "corpus"
    for source in (*read_books(corpus, held_out=False), *read_handbooks(corpus)):
        text = clean_text(source, held_out, Counts())
        assert_free(judge, [text], pieces_of([text]))


def split_at(ids: Sequence[int], mark: int) -> list[list[int]]:
    """The stretches between marks."""
    found: list[list[int]] = [[]]
    for token in ids:
        if token == mark:
            found.append([])
        else:
            found[-1].append(token)
    return found
