"""A finished pre-training as a base: measured on books it never read, rounded once, sealed.

In: a recipe and its work folder. Out: `.own/base/<id>/`, a hub folder with a card that names every
source and licence, and how it compares with a 5-gram model and with zstd on the same held-out
books. The weights are measured as they are stored (test_publish_base_measures_what_it_stores).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from tokenizers import Tokenizer

from ownweights.core.artefact import Artefact, draft_folder, seal
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.model.transformer import Transformer
from ownweights.student.base import TEXT_CARD, TOKENIZER_NAME, BaseRecipe, bits_per_byte
from ownweights.student.corpus import read_books
from ownweights.student.trainer import CHECKPOINT_NAME, read_checkpoint
from ownweights.student.vocabulary import load_tokenizer, save_tokenizer
from ownweights.weights.save import save_model

STORED = torch.bfloat16
ORDER, MAX_ORDER = 5, 8


def load_trained(recipe: BaseRecipe, work: Path) -> tuple[Transformer, int]:
    """The network in a work folder's checkpoint, rounded for storage, and its number of steps.

    Raises: ArtefactError without a checkpoint, or with one that is damaged
    """
    path = work / CHECKPOINT_NAME
    if not path.is_file():
        raise ArtefactError(f"{work} holds no checkpoint", hint="own base train")
    state = read_checkpoint(path)
    model = Transformer(recipe.shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state["parameters"][name].to(STORED))
    return model.eval(), int(state["step"])


def publish_base(
    recipe: BaseRecipe,
    work: Path,
    project: Project,
    *,
    corpus: Path,
) -> Artefact:
    """Seal the trained base with its card."""
    model, steps = load_trained(recipe, work)
    tokenizer = load_tokenizer(work / TOKENIZER_NAME)
    held_out = list(read_books(corpus, held_out=True))
    training = list(read_books(corpus, held_out=False))
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "tokens_seen": steps * recipe.train.rows * recipe.train.length,
        "text": json.loads((work / TEXT_CARD).read_text("utf-8")),
        "licence": "Apache-2.0",
        "sources": list(recipe.sources),
        "held_out_bits_per_byte": compare_bits_per_byte(model, tokenizer, held_out, training),
    }
    with draft_folder(project.kind_dir("base")) as draft:
        save_model(model, draft, dtype=STORED)
        save_tokenizer(tokenizer, draft, recipe.shape.max_position_embeddings)
        return seal(draft, "base", identity=recipe.trained_by(), facts=facts)


def compare_bits_per_byte(
    model: Transformer, tokenizer: Tokenizer, held_out: Sequence[str], training: Sequence[str]
) -> dict[str, float]:
    """Bits a byte of held-out books: the model, a 5-gram of bytes, and `zstd -19`."""
    joined = "\n".join(held_out).encode("utf-8")
    packed = zstandard.ZstdCompressor(level=19).compress(joined)
    return {
        "model": round(bits_per_byte(model, tokenizer, held_out), 4),
        "five_gram": round(
            ngram_bits_per_byte("\n".join(training).encode("utf-8"), joined, ORDER), 4
        ),
        "zstd_19": round(8 * len(packed) / len(joined), 4),
    }


def ngram_bits_per_byte(training: bytes, text: bytes, order: int = ORDER) -> float:
    """Bits a byte of `text` under an interpolated n-gram model of bytes (Witten-Bell smoothing).

    Counts are exact: an n-gram is one 64-bit number. Both texts begin after `order` zero bytes.
    Source: Witten & Bell 1991; Chen & Goodman 1999, section 2.3
    Checked: test_ngram_bits_per_byte_matches_brute_force
    """
    assert 1 <= order <= MAX_ORDER, f"an n-gram of {order} bytes does not fit 64 bits"
    probability = np.full(len(text), 1 / 256)
    for length in range(1, order + 1):
        learned, count = np.unique(_ngrams(training, length), return_counts=True)
        context, first = np.unique(learned >> np.uint64(8), return_index=True)
        total = np.add.reduceat(count, first)  # how often the context was seen
        kinds = np.diff(first, append=len(learned))  # how many different bytes followed it
        asked = _ngrams(text, length)
        at, is_known = _look_up(context, asked >> np.uint64(8))
        place, is_seen = _look_up(learned, asked)
        hits = np.where(is_seen, count[place], 0)
        mixed = (hits + kinds[at] * probability) / (total[at] + kinds[at])
        probability = np.where(is_known, mixed, probability)
    return float(-np.log2(probability).mean())


def _ngrams(text: bytes, length: int) -> np.ndarray:
    """For each byte, the number that it and the `length - 1` bytes before it spell."""
    padded = np.frombuffer(bytes(length - 1) + text, np.uint8)
    spelled = np.zeros(len(text), np.uint64)
    for offset in range(length):
        spelled = spelled << np.uint64(8) | padded[offset : offset + len(text)]
    return spelled


def _look_up(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each asked number stands among the known (sorted) ones, and whether it does."""
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return at, known[at] == asked
