"""The text a base reads: where it comes from, and what is taken out of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ownweights.core.errors import InputError
from ownweights.dataset.split import split_of
from ownweights.dataset.unit import unit_of
from ownweights.student.corpus import (
    Counts,
    Prompts,
    chapters_of,
    clean_prompts,
    clean_text,
    is_held_out_book,
    read_books,
    read_handbooks,
    read_prompts,
    sentences_of,
)
from ownweights.student.held_out import HeldOutText
from ownweights.traffic import make_record
from tests.student.text import ask_line, write_books, write_handbook, write_traffic

HELD_OUT = HeldOutText(["play some jazz in the kitchen", "Stop it"])


# --- cleaning


def test_clean_text_removes_only_the_bad_sentence() -> None:
    counts = Counts()
    text = "It rained.\nHe said, “play some jazz in the kitchen!” She laughed.\n\nThe end."
    assert clean_text(text, HELD_OUT, counts) == "It rained. She laughed.\n\nThe end."
    assert (counts.sentences, counts.removed_sentences) == (4, 1)


def test_clean_text_keeps_other_paragraphs_as_they_are() -> None:
    text = "A line\n  indented\tline\n\nStop it! Now.\n\n\nAnother line\nand its rest"
    assert clean_text(text, HELD_OUT, Counts()) == (
        "A line\n  indented\tline\n\nNow.\n\nAnother line\nand its rest"
    )


def test_clean_text_drops_a_paragraph_of_nothing_else() -> None:
    counts = Counts()
    assert clean_text("One.\n\nStop it. Stop it!\n\nTwo.", HELD_OUT, counts) == "One.\n\nTwo."
    assert (counts.sentences, counts.removed_sentences) == (4, 2)


def test_clean_text_adds_to_its_counts() -> None:
    counts = Counts()
    for text in ("Stop it.", "Good. Stop it.", ""):
        clean_text(text, HELD_OUT, counts)
    assert (counts.sentences, counts.removed_sentences) == (3, 2)


def test_clean_text_holds_nothing_held_out_afterwards() -> None:
    text = " ".join(["Go. Play some jazz in the kitchen. Stop it, please stop it!"] * 5)
    cleaned = clean_text(text, HELD_OUT, Counts())
    assert "Go." in cleaned and "jazz" not in cleaned
    again = Counts()
    assert clean_text(cleaned, HELD_OUT, again) == cleaned
    assert again.removed_sentences == 0


def test_clean_prompts_keeps_those_that_are_not_near() -> None:
    counts = Counts()
    prompts = Prompts(("play some jazz in the kitchens", "play some rock", "stop it"), ("stop it",))
    assert clean_prompts(prompts, HELD_OUT, counts) == ["play some rock"]
    assert (counts.prompts, counts.removed_prompts) == (3, 2)


# --- recorded requests


def test_read_prompts_splits_as_the_dataset_does(tmp_path: Path) -> None:
    texts = [f"ask number {'x' * k}, please" for k in range(80)] + ["☀", "☂☂", "Ünï code?"]
    path = write_traffic(tmp_path / "w.jsonl.gz", texts)
    found = read_prompts([path])
    assert sorted([*found.train, *found.held_out]) == sorted(texts)
    for text in texts:
        request = {"model": "m", "messages": [{"role": "user", "content": text}]}
        unit = unit_of(make_record(request, None, role="teacher"), "prompt")
        assert (text in found.train) is (split_of(unit) == "train")
    assert 40 < len(found.train) < 80


def test_read_prompts_takes_the_first_question_of_each_record(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "in parts"}]
    lines = [
        ask_line([{"role": "system", "content": "be"}, {"role": "user", "content": "first"},
                  {"role": "assistant", "content": "said"}, {"role": "user", "content": "second"}]),
        ask_line([{"role": "user", "content": parts}]),
        ask_line([{"role": "system", "content": "nobody asks"}]),
        ask_line([{"role": "user", "content": "first"}]),
        {"request": None}, {"other": 1}, {"request": {"messages": ["odd"]}},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    found = read_prompts([tmp_path / "a.jsonl"])
    assert sorted([*found.train, *found.held_out]) == ["first", "in parts"]


def test_read_prompts_joins_files(tmp_path: Path) -> None:
    paths = [write_traffic(tmp_path / f"{k}.jsonl.gz", [f"ask {k}", "both"]) for k in "ab"]
    found = read_prompts(paths)
    assert sorted([*found.train, *found.held_out]) == ["ask a", "ask b", "both"]


def test_read_prompts_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl\.gz: cannot be read: No such file"):
        read_prompts([tmp_path / "none.jsonl.gz"])
    (tmp_path / "w.jsonl").write_text('{"request": {}}\n{"requ', "utf-8")
    with pytest.raises(InputError, match=r"w\.jsonl:2: not JSON"):
        read_prompts([tmp_path / "w.jsonl"])
    whole = write_traffic(tmp_path / "cut.jsonl.gz", [f"ask {k}" for k in range(99)])
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(InputError, match="the gzip stream is damaged"):
        read_prompts([whole])


# --- books and handbooks


def test_read_books_keeps_some_apart(tmp_path: Path) -> None:
    names = [f"book-{k}.txt.gz" for k in range(200)]
    write_books(tmp_path, {name: f"text of {name}" for name in names})
    read = list(read_books(tmp_path, held_out=False))
    kept = list(read_books(tmp_path, held_out=True))
    assert sorted([*read, *kept]) == sorted(f"text of {name}" for name in names)
    assert 1 <= len(kept) <= 15  # three of a hundred
    assert kept == [f"text of {name}" for name in sorted(names) if is_held_out_book(Path(name))]


def test_read_books_needs_books(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list(read_books(tmp_path, held_out=False))
    assert caught.value.what == f"{tmp_path}: holds no books/*.txt.gz"


@pytest.mark.parametrize(
    "data",
    [
        b"plain text",
        gzip.compress(b"whole text " * 99, mtime=0)[:40],
        gzip.compress(b"caf\xe9", mtime=0),
    ],
)
def test_read_books_refuses_a_damaged_book(tmp_path: Path, data: bytes) -> None:
    write_books(tmp_path, {"a.txt.gz": "fine"})
    (tmp_path / "books" / "a.txt.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.txt\.gz: is not a gzip file of UTF-8 text"):
        list(read_books(tmp_path, held_out=False))


def test_read_handbooks_drops_front_matter_only(tmp_path: Path) -> None:
    write_handbook(tmp_path, "b", ["---\ntitle: T\n---\nText\n---\nMore\n---\n", "Plain"])
    write_handbook(tmp_path, "a", ["First"])
    assert list(read_handbooks(tmp_path)) == ["First", "Text\n---\nMore\n---\n", "Plain"]


def test_read_handbooks_may_find_none(tmp_path: Path) -> None:
    assert list(read_handbooks(tmp_path)) == []


def test_read_handbooks_refuses_a_page_without_text(tmp_path: Path) -> None:
    path = write_handbook(tmp_path, "a", ["First"])
    path.write_text('{"text": "one"}\n{"title": "two"}\n', "utf-8")
    with pytest.raises(InputError, match=r"docs\.jsonl, page 2: a page needs a `text`"):
        list(read_handbooks(tmp_path))


# --- pieces of a text


def test_chapters_of_are_the_whole_text_in_parts() -> None:
    text = "\n\n".join(f"Paragraph {k} " + "x" * 40 for k in range(20))
    parts = list(chapters_of(text, max_chars=200))
    assert "\n\n".join(parts) == text
    assert all(200 <= len(part) < 300 for part in parts[:-1])
    assert len(parts) == 5
    assert list(chapters_of("short")) == ["short"]


def test_sentences_of_are_those_that_suit_an_exercise() -> None:
    text = "Too short. This one has five words!\nAnd this line is one… " + "word " * 41 + "end."
    assert list(sentences_of(text)) == ["This one has five words!", "And this line is one…"]
    assert list(sentences_of(text, min_words=1, max_words=2)) == ["Too short."]
