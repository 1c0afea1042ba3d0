"""Continued pre-training: documents, every token of which is trained, before or without answers.

In: a text file (one document), a file of JSON lines with `text`, or, where no file is given, the
train split's answers. Out: windows of the documents' ids one after the other, each document between
the base's own begin and end tokens, every window whole (the last one may be short). Pre-training
from nothing is `own base train`; it runs on the same trainer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ownweights.core.errors import InputError
from ownweights.core.jsonl import read_jsonl
from ownweights.student.examples import ExamplePlan, TokenRow
from ownweights.student.study import MAX_PART_TOKENS, Base, Lesson, Study, count_rows, fixed_epochs
from ownweights.student.trainer import TokenObjective

EPOCHS, MAX_WINDOW = 1.0, 1024


def text_lesson(study: Study) -> Lesson:
    """Documents in windows.

    Raises: InputError when there is nothing to read
    """
    options = study.options
    documents = list(_documents(study))
    rows = window_rows(study.base, documents)
    if not rows:
        raise InputError(
            "the documents hold no text to learn from",
            hint="give a text file, or JSON lines with a `text` each",
        )
    epochs = fixed_epochs(options, EPOCHS, f"{EPOCHS:g} visit to every window of text")
    plan = ExamplePlan(
        rows, epochs=epochs[0], rows_per_step=options.rows_per_step, max_tokens=MAX_PART_TOKENS,
        seed=options.seed,
    )  # fmt: skip
    digest = hashlib.sha256("\x1f".join(documents).encode("utf-8", "surrogatepass")).hexdigest()
    return Lesson(
        TokenObjective(), plan, epochs, count_rows(rows, num_examples=len(rows)),
        settings={"text_sha256": digest},
        facts={"documents": len(documents), "windows": len(rows)},
    )  # fmt: skip


def window_rows(base: Base, documents: list[str]) -> list[TokenRow]:
    """The documents' ids one after the other, cut into windows of which every token is trained."""
    tokenizer = base.tokenizer
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = [base.template.end_id if tokenizer.eos_id is None else tokenizer.eos_id]
    ids = [
        token_id for text in documents for token_id in (*begin, *tokenizer.encode(text), *end)
    ]  # fmt: skip
    length = min(base.window, MAX_WINDOW)
    cut = [ids[at : at + length] for at in range(0, len(ids), length)]
    return [TokenRow(np.array(one, np.int32), 0) for one in cut if len(one) > 1]


def _documents(study: Study) -> Iterator[str]:
    """The texts that are not empty."""
    name = study.options.text
    if name is None:
        found = (example.target for example in study.dataset.iter_examples("train"))
    else:
        found = read_documents(study.project.root / Path(name).expanduser())
    yield from (text for text in found if text.strip())


def read_documents(path: Path) -> Iterator[str]:
    """The documents of a file: of `.jsonl` (or `.jsonl.gz`) each line's `text`, else the whole.

    Raises: InputError when it cannot be read, or a line is no document
    """
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for line in read_jsonl(path):
            text = None if line.value is None else line.value.get("text")
            if not isinstance(text, str):
                raise InputError(
                    line.what or "expected an object with a text under 'text'",
                    where=f"{path}:{line.number}",
                )
            yield text
        return
    try:
        yield path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text: {error}", where=str(path)) from None
