"""The pre-training text as token ids on disk, made once, read by position.

In: documents. Out: ids of all documents, each `<|bos|> … <|end|>`, one after the other, in a file
of 16-bit numbers. The highest bit of a number says that the token is read but not trained: the
question of an exercise, whose shuffled words nothing could foresee. Windows tile the file
(test_windows_always_tile_the_file) and are drawn by seed and step alone, so that a resumed run
reads what an uninterrupted one would have read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ownweights.core.errors import InputError
from ownweights.student.drills import Drill
from ownweights.student.vocabulary import ASSISTANT_ID, BOS_ID, END_ID, USER_ID

MAX_DOCUMENT_CHARS = 20_000
READ_ONLY = 0x8000  # the mark of a token that is no target; ids are far smaller


@dataclass(frozen=True, slots=True)
class TokenFile:
    """Token ids of many documents in a row."""

    ids: np.ndarray

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Map a file of 16-bit ids."""
        return cls(np.memmap(path, dtype=np.uint16, mode="r"))

    def unmarked(self) -> np.ndarray:
        """All ids without their marks. Shapes: → (N,) uint16"""
        return self.ids & np.uint16(READ_ONLY - 1)

    def windows(self, length: int, rows: int, *, step: int, seed: int) -> np.ndarray:
        """The windows of one step, marks included. Shapes: → (rows, length) int64

        Windows tile the file; each epoch visits all of them once, in an order drawn from the seed.
        Raises: InputError when the file is shorter than a window
        """
        num_windows = len(self.ids) // length
        if not num_windows:
            raise InputError(
                f"the text has {len(self.ids)} tokens, fewer than one window of {length}",
                hint="give more text, or a recipe with shorter windows",
            )
        out = np.empty((rows, length), np.int64)
        for row in range(rows):
            epoch, place = divmod(step * rows + row, num_windows)
            order = _epoch_order(num_windows, seed, epoch)
            start = int(order[place]) * length
            out[row] = self.ids[start : start + length]
        return out


_ORDERS: dict[tuple[int, int, int], np.ndarray] = {}


def _epoch_order(num_windows: int, seed: int, epoch: int) -> np.ndarray:
    key = (num_windows, seed, epoch)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, epoch]).permutation(num_windows)
    return _ORDERS[key]


def encode_documents(tokenizer: Tokenizer, documents: Iterable[str]) -> Iterator[np.ndarray]:
    """Each document as ids, with its begin and end; very long ones in parts."""
    for document in documents:
        for at in range(0, len(document), MAX_DOCUMENT_CHARS):
            ids = tokenizer.encode(document[at : at + MAX_DOCUMENT_CHARS]).ids
            first = [BOS_ID] if at == 0 else []
            last = [END_ID] if at + MAX_DOCUMENT_CHARS >= len(document) else []
            yield np.array([*first, *ids, *last], np.uint16)


def encode_prompts(tokenizer: Tokenizer, prompts: Iterable[str]) -> Iterator[np.ndarray]:
    """Each prompt as a user's turn of the chat format."""
    for prompt in prompts:
        yield np.array([BOS_ID, USER_ID, *tokenizer.encode(prompt).ids, END_ID], np.uint16)


def encode_drills(tokenizer: Tokenizer, drills: Iterable[Drill]) -> Iterator[np.ndarray]:
    """Each exercise as a question, which is only read, and its answer, in the chat format."""
    for question, answer in drills:
        asked = [BOS_ID, USER_ID, *tokenizer.encode(question).ids, END_ID, ASSISTANT_ID]
        said = [*tokenizer.encode(answer).ids, END_ID]
        yield np.array([*(READ_ONLY | i for i in asked), *said], np.uint16)
