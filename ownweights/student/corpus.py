"""The text a base is pre-trained on: books, handbooks, the user side of training requests, drills.

In: a corpus folder, recorded traffic files, and the rule that splits requests. Out: documents of
plain text, of which none holds a develop, certify or test request, exact or near
(test_pretraining_text_holds_no_held_out_request). Everything is drawn by seed and sorted names.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.errors import InputError
from ownweights.core.jsonl import read_jsonl
from ownweights.dataset.prompt import first_user_text, prompt_key
from ownweights.dataset.split import hash_fraction, split_of
from ownweights.student.held_out import HeldOutText

HELD_OUT_BOOK_FRAC = 0.03
CHAPTER_CHARS = 8_000
BOOK_SALT = "seedling-held-out-books-1"

_SENTENCE_END = re.compile(r"(?<=[.!?…”])\s+|\n+")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prompts:
    """The user side of recorded requests, by split: what may be read and what must not."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(slots=True)
class Counts:
    """What the cleaning saw and removed."""

    sentences: int = 0
    removed_sentences: int = 0
    prompts: int = 0
    removed_prompts: int = 0


def read_prompts(files: Iterable[Path]) -> Prompts:
    """The first user message of every recorded request, split by the hash of its prompt."""
    train: set[str] = set()
    held_out: set[str] = set()
    for path in files:
        for line in _read_objects(path):
            if text := _question(line):
                unit = f"prompt:{prompt_key(text)}"
                (train if split_of(unit) == "train" else held_out).add(text)
    return Prompts(tuple(sorted(train)), tuple(sorted(held_out)))


def _question(line: Mapping[str, Any]) -> str:
    """The first user message of a recorded request; empty where there is none."""
    request = line.get("request")
    messages = request.get("messages") if isinstance(request, Mapping) else None
    spoken = messages if isinstance(messages, list) else []
    return first_user_text({"messages": [one for one in spoken if isinstance(one, Mapping)]})


def _read_objects(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines; a line that cannot be read might be a held-out one."""
    for line in read_jsonl(path):
        if line.value is None:
            raise InputError(line.what, where=f"{path}:{line.number}")
        yield line.value


def is_held_out_book(path: Path) -> bool:
    """Whether a book is kept for measuring bits per byte."""
    return hash_fraction(BOOK_SALT, path.name) < HELD_OUT_BOOK_FRAC


def read_books(folder: Path, *, held_out: bool) -> Iterator[str]:
    """The books of a corpus folder, by name, those for training or those held out."""
    paths = sorted((folder / "books").glob("*.txt.gz"))
    if not paths:
        raise InputError("holds no books/*.txt.gz", where=str(folder))
    for path in paths:
        if is_held_out_book(path) == held_out:
            yield _read_book(path)


def _read_book(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"is not a gzip file of UTF-8 text: {error}", where=str(path)) from None


def read_handbooks(folder: Path) -> Iterator[str]:
    """The pages of every text_*/docs.jsonl, without front matter."""
    for path in sorted(folder.glob("text_*/docs.jsonl")):
        for number, value in enumerate(_read_objects(path), 1):
            text = value.get("text")
            if not isinstance(text, str):
                raise InputError("a page needs a `text`", where=f"{path}, page {number}")
            yield _FRONT_MATTER.sub("", text)


def clean_text(text: str, held_out: HeldOutText, counts: Counts) -> str:
    """`text` without the sentences that hold a held-out request."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        sentences = [s for s in _SENTENCE_END.split(paragraph) if s]
        is_bad = [held_out.is_in(sentence) for sentence in sentences]
        counts.sentences += len(sentences)
        counts.removed_sentences += sum(is_bad)
        if any(is_bad):
            pairs = zip(sentences, is_bad, strict=True)
            kept.append(" ".join(sentence.strip() for sentence, bad in pairs if not bad))
        else:
            kept.append(paragraph.strip())
    return "\n\n".join(paragraph for paragraph in kept if paragraph)


def clean_prompts(prompts: Prompts, held_out: HeldOutText, counts: Counts) -> list[str]:
    """The training prompts that are not near a held-out one."""
    kept = [text for text in prompts.train if not held_out.is_in(text)]
    counts.prompts += len(prompts.train)
    counts.removed_prompts += len(prompts.train) - len(kept)
    return kept


def chapters_of(text: str, max_chars: int = CHAPTER_CHARS) -> Iterator[str]:
    """A text in parts of about equal length that end where a paragraph ends."""
    part: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        part.append(paragraph)
        if sum(map(len, part)) >= max_chars:
            yield "\n\n".join(part)
            part = []
    if part:
        yield "\n\n".join(part)


def sentences_of(text: str, *, min_words: int = 4, max_words: int = 40) -> Iterator[str]:
    """The sentences of a text that suit an exercise."""
    for sentence in _SENTENCE_END.split(text):
        if min_words <= len(sentence.split()) <= max_words:
            yield sentence.strip()
