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
from ownweights.student.base import TOKENIZER_NAME, TOKENS_NAME, prepare_text, read_recipe
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

RECIPE = read_recipe(Path(__file__).parents[2] / "recipes" / "seedling" / "recipe.toml")
WHERE_SENTENCES_END = re.compile(r"(?<=[.!?…”])\s+|\n+")
NUM_BOOKS, EVERY_CHAPTER = 2, 4  # what fits into a fast test


@cache
def forbidden(traffic: Path) -> Forbidden:
    return Forbidden(held_out_questions(traffic, RECIPE.text.held_out_from))


@cache
def held_out(traffic: Path) -> HeldOutText:
    """What the recipe itself knows of the held-out requests."""
    files = [traffic / f"{name}.jsonl.gz" for name in RECIPE.text.held_out_from]
    return HeldOutText(read_prompts(files).held_out)


def pieces_of(texts: Sequence[str]) -> list[str]:
    """The distinct sentences of texts."""
    return sorted({s for text in texts for s in WHERE_SENTENCES_END.split(text) if s.strip()})


def assert_free(found_in: Forbidden, texts: Sequence[str], pieces: Sequence[str]) -> None:
    assert found_in.found_in(pieces) == {}
    assert [request for text in texts for request in found_in.contained(text)] == []


def test_pretraining_text_holds_no_held_out_request(test_data: Path) -> None:
    traffic, corpus, counts = test_data / "traffic", test_data / "corpus", Counts()
    allowed = read_prompts(traffic / f"{name}.jsonl.gz" for name in RECIPE.text.workloads)
    prompts = clean_prompts(allowed, held_out(traffic), counts)
    books = islice(read_books(corpus, held_out=False), NUM_BOOKS)
    chapters = [c for text in (*books, *read_handbooks(corpus)) for c in chapters_of(text)]
    texts = [clean_text(c, held_out(traffic), counts) for c in chapters[::EVERY_CHAPTER]]
    assert len(prompts) > 20_000 and counts.removed_prompts > 100
    assert sum(map(len, texts)) > 10**6 and counts.sentences > 10_000
    assert_free(forbidden(traffic), prompts, prompts)
    assert_free(forbidden(traffic), texts, pieces_of(texts))


def test_pretraining_text_would_show_what_it_must_not_hold(test_data: Path) -> None:
    """Requests put into a book are all found there before it is cleaned, and none afterwards."""
    traffic, rng = test_data / "traffic", random.Random(5)
    judge = forbidden(traffic)
    wanted = rng.sample(judge.requests, 400)
    book = next(read_books(test_data / "corpus", held_out=False))[:60_000].split("\n\n")
    for request in wanted:
        book.insert(rng.randrange(len(book)), f"He said. {request.capitalize()}! And left.")
    whole = "\n\n".join(book)
    spoiled = {request for near in judge.found_in(pieces_of([whole])).values() for request in near}
    assert set(wanted) <= spoiled | set(judge.contained(whole))
    own = [request for request in wanted if held_out(traffic).is_in(request)]
    assert len(own) > 0.98 * len(wanted)  # all but questions of the airline's training tasks
    for request in set(wanted) - set(own):
        whole = whole.replace(request.capitalize(), "")
    cleaned = clean_text(whole, held_out(traffic), Counts())
    assert_free(judge, [cleaned], pieces_of([cleaned]))
    assert cleaned.count("And left.") >= len(own)


def test_forbidden_near_matches_looking_at_all(test_data: Path) -> None:
    judge, rng = forbidden(test_data / "traffic"), random.Random(6)
    for request in rng.sample(judge.requests, 25):
        letters = list(request)
        letters[rng.randrange(len(letters))] = rng.choice("aeiou ")
        changed = normalise_prompt("".join(letters))
        assert sorted(judge.near(changed)) == judge.near_by_looking_at_all(changed)


def test_recipe_counts_its_books(test_data: Path) -> None:
    names = list((test_data / "corpus" / "books").glob("*.txt.gz"))
    num_read = sum(not is_held_out_book(name) for name in names)
    (books,) = [source for source in RECIPE.sources if source["name"] == "books"]
    assert books["what"].startswith(f"{num_read} books ")


def test_recipe_names_a_licence_for_all_it_reads(test_data: Path) -> None:
    read = {folder.parent.name for folder in (test_data / "corpus").glob("text_*/docs.jsonl")}
    named = {source["name"] for source in RECIPE.sources if source["licence"]}
    assert named == {"books", "drills", *read, *RECIPE.text.workloads}


@pytest.mark.slow
def test_prepared_text_of_the_recipe_holds_no_held_out_request(
    test_data: Path, tmp_path: Path
) -> None:
    """Everything that is read, exercises too, decoded again from the ids that are trained on."""
    traffic = test_data / "traffic"
    prepare_text(RECIPE, test_data / "corpus", traffic, tmp_path)
    tokenizer = load_tokenizer(tmp_path / TOKENIZER_NAME)
    texts = [
        tokenizer.decode(ids, skip_special_tokens=False)
        for ids in split_at(TokenFile.open(tmp_path / TOKENS_NAME).ids.tolist(), BOS_ID)
    ]
    turns = [turn for text in texts for turn in re.split(r"<\|\w+\|>", text) if turn.strip()]
    stems = [turn.rpartition(" | ")[0] for turn in turns]
    assert len(turns) > 100_000
    assert_free(forbidden(traffic), turns, [*pieces_of(turns), *sorted(set(stems))])


@pytest.mark.slow
def test_all_books_cleaned_hold_no_held_out_request(test_data: Path) -> None:
    traffic, corpus = test_data / "traffic", test_data / "corpus"
    for source in (*read_books(corpus, held_out=False), *read_handbooks(corpus)):
        text = clean_text(source, held_out(traffic), Counts())
        assert_free(forbidden(traffic), [text], pieces_of([text]))


def split_at(ids: Sequence[int], mark: int) -> list[list[int]]:
    """The stretches between marks."""
    found: list[list[int]] = [[]]
    for token in ids:
        if token == mark:
            found.append([])
        else:
            found[-1].append(token)
    return found
