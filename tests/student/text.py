"""Small corpora for the tests of pre-training: books, handbooks and recorded traffic."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ownweights.student.base import BaseRecipe, read_recipe
from ownweights.student.corpus import is_held_out_book


def ask_line(messages: Sequence[Any]) -> dict[str, Any]:
    """A recorded request."""
    return {"request": {"model": "m", "messages": list(messages)}}


def write_traffic(path: Path, texts: Sequence[str]) -> Path:
    """Recorded requests with these questions, gzip."""
    lines = [ask_line([{"role": "user", "content": text}]) for text in texts]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_bytes(gzip.compress(data.encode("utf-8"), mtime=0))
    return path


def write_books(corpus: Path, texts: Mapping[str, str]) -> None:
    """Books by file name."""
    (corpus / "books").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (corpus / "books" / name).write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def write_handbook(corpus: Path, name: str, pages: Sequence[str]) -> Path:
    """One handbook of pages."""
    path = corpus / f"text_{name}" / "docs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"path": f"{k}.md", "text": page}) for k, page in enumerate(pages)]
    path.write_text("\n".join(lines), "utf-8")
    return path


# --- a whole small corpus, with a recipe to match

HELD_OUT_QUESTION = "tell the gardener about the green gate"
NEAR_QUESTION = "tell the gardener about the green gates"  # in train by its hash, near by its words
KEPT_BOOK = "Nobody reads this line while training."
FOX = (
    "Once upon a time a fox met Mr. Kilkenny by the old mill. They talked about the weather, the"
    " price of corn and the road to town. “Come with me,” said the fox, “and bring your lamp.”"
)
RECIPE: dict[str, dict[str, Any]] = {
    "shape": {
        "vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 64,
    },
    "text": {
        "workloads": ["talk"], "held_out_from": ["talk"], "prompt_repeats": 2, "num_drills": 12,
        "tokenizer_every": 2,
    },
    "train": {
        "steps": 10, "rows": 4, "length": 32, "learning_rate": 0.01, "muon_learning_rate": 0.02,
        "warmup_frac": 0.1, "decay_frac": 0.5, "long_frac": 0.2, "seed": 3,
    },
}  # fmt: skip
SOURCES = '[[sources]]\nname = "books"\nwhat = "two books"\nlicence = "CC0-1.0"\n'


def recipe_text(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables as TOML; its values are those of JSON."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def write_recipe(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """The small recipe as a file, with some values changed."""
    changed = {name: {**table, **(changes or {}).get(name, {})} for name, table in RECIPE.items()}
    path = folder / "recipe.toml"
    path.write_text(recipe_text(changed) + SOURCES, "utf-8")
    return path


def small_recipe(**changes: Mapping[str, Any]) -> BaseRecipe:
    """The small recipe, with some values changed."""
    with tempfile.TemporaryDirectory() as folder:
        return read_recipe(write_recipe(Path(folder), changes))


def make_corpus(folder: Path) -> tuple[Path, Path]:
    """Books (one of them held out), a handbook, and a workload: the corpus and traffic folders."""
    corpus, traffic = folder / "corpus", folder / "traffic"
    training, kept = (
        next(name for name in (f"book-{k}.txt.gz" for k in range(999))
             if is_held_out_book(Path(name)) is held_out)
        for held_out in (False, True)
    )  # fmt: skip
    said = f"She said: {HELD_OUT_QUESTION}, and left."
    chapter = "\n\n".join([FOX, "It rained for a week. The mill stood still. Nobody came."] * 40)
    write_books(corpus, {training: f"{chapter}\n\nIt was late. {said} He stayed.", kept: KEPT_BOOK})
    write_handbook(corpus, "office", ["---\na: b\n---\nAnswer the telephone by the third ring."])
    questions = [f"bring {k} apples to the {place}" for k, place in enumerate(PLACES)]
    write_traffic(traffic / "talk.jsonl.gz", [*questions, HELD_OUT_QUESTION, NEAR_QUESTION])
    return corpus, traffic


PLACES = ["kitchen", "garden", "stable", "library", "tower", "cellar", "market", "harbour"]
