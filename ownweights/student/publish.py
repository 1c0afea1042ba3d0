"""A finished pre-training as a base: measured on books it never read, rounded once, sealed.

In: a recipe and its work folder. Out: `.own/base/<id>/`, a hub folder with a card that names every
source and licence, and how it compares with a 5-gram model and with zstd on the same held-out books.
"""

from __future__ import annotations

import dataclasses
import json
import math
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
from ownweights.student.trainer import CHECKPOINT_NAME
from ownweights.student.vocabulary import save_tokenizer
from ownweights.weights.save import save_model

ORDER = 5
_HASH_BITS = 24
_MIX = 0x9E3779B97F4A7C15


def load_trained(recipe: BaseRecipe, work: Path) -> tuple[Transformer, int]:
    """The network in a work folder's checkpoint, and how many steps it has had."""
    path = work / CHECKPOINT_NAME
    if not path.is_file():
        raise ArtefactError(f"{work} holds no checkpoint", hint="own base train")
    state = torch.load(path, weights_only=True)
    model = Transformer(recipe.shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state["parameters"][name])
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
    tokenizer = Tokenizer.from_file(str(work / TOKENIZER_NAME))
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
        save_model(model, draft, dtype=torch.bfloat16)
        save_tokenizer(tokenizer, draft, recipe.shape.max_position_embeddings)
        return seal(draft, "base", identity=_identity(recipe), facts=facts)


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
    """Bits a byte under an interpolated n-gram model of bytes (Witten-Bell smoothing).

    Counts are kept by hash of the context, in tables large enough that collisions hardly matter.
    Source: Witten & Bell 1991; Chen & Goodman 1999, section 2.3
    """
    learned = np.frombuffer(training, np.uint8).astype(np.uint64)
    asked = np.frombuffer(text, np.uint8).astype(np.uint64)
    probability = np.full(len(asked), 1 / 256)
    for length in range(order):  # contexts of 0 .. order - 1 bytes
        context, pair = _hashes(learned, length)
        size = 1 << _HASH_BITS
        totals = np.bincount(context, minlength=size)
        pairs = np.bincount(pair, minlength=size)
        first = np.unique(pair, return_index=True)[1]
        kinds = np.bincount(context[first], minlength=size)  # distinct successors
        asked_context, asked_pair = _hashes(asked, length)
        total, kind = totals[asked_context], kinds[asked_context]
        seen = total > 0
        mixed = (pairs[asked_pair] + kind * probability) / np.maximum(total + kind, 1)
        probability = np.where(seen, mixed, probability)
    return float(-np.log2(np.maximum(probability, 1e-12)).mean())


def _hashes(codes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each position, the slot of its `length` bytes before, and of those with the byte itself."""
    state = np.full(len(codes), length + 1, np.uint64)
    with np.errstate(over="ignore"):
        for back in range(length, 0, -1):
            shifted = np.concatenate([np.zeros(back, np.uint64), codes[:-back]])
            state = (state ^ (shifted + np.uint64(1))) * np.uint64(_MIX)
            state ^= state >> np.uint64(29)
        both = (state ^ (codes + np.uint64(1))) * np.uint64(_MIX)
    shift = np.uint64(64 - _HASH_BITS)
    context = (state * np.uint64(_MIX)) >> shift
    return context.astype(np.int64), (both ^ (both >> np.uint64(31)) * np.uint64(_MIX)).astype(
        np.uint64
    ).__rshift__(shift).astype(np.int64)


def _identity(recipe: BaseRecipe) -> dict[str, Any]:
    found = dataclasses.asdict(recipe)
    found["shape"]["eos_token_ids"] = list(recipe.shape.eos_token_ids)
    del found["sources"]
    assert math.isfinite(recipe.train.learning_rate), "a recipe holds plain numbers"
    return found
