"""A hub tokenizer as llama.cpp reads it: tokens, their kinds, merges, and how text is cut first.

In: the folder of a checkpoint. Out: a `Vocabulary`, or a refusal that says what llama.cpp cannot
do. llama.cpp cuts text by rules that it knows by name (`tokenizer.ggml.pre`) and cannot be told
others, so the pattern of tokenizer.json must be one of those. The pattern of `own base train` is
not, but needs none: its pieces are runs of one kind of character, no merge joins two kinds, and so
the same tokens come out of the whole text as of its pieces; llama.cpp's `superbpe` leaves text
whole but for numbers. That no merge joins two kinds is checked, token by token
(test_read_vocabulary_refuses_a_merge_across_pieces); that ids are the same, on real text
(tests/weights/export/test_llama_cpp.py, training.md c.15).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers

from ownweights.core.errors import ModelError
from ownweights.model.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of token
WHOLE = "superbpe"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# Patterns that cut into runs of one kind of character, whatever stands around them.
RUNS = (r"[\p{L}\p{M}]+|\p{N}|[{}\[\]\x22:,]+|\n+| +|[^\s\p{L}\p{M}\p{N}{}\[\]\x22:,]+|\s",)
# The steps before the bytes, as `_steps` spells them → llama.cpp's name for them.
PRE: dict[tuple[str, ...], str] = {
    ("gpt2",): "gpt-2",
    ("digits", "gpt2"): "smollm",
    (_TIKTOKEN % r"\p{N}{1,3}",): "llama-bpe",
    (_TIKTOKEN % r"\p{N}",): "qwen2",
    (_CASED % ("", "", r"\p{N}"),): "tekken",
    (_CASED % (_CONTRACTED, _CONTRACTED, r"\p{N}{1,3}"),): "gpt-4o",
    (_GPT2,): "gpt-2",
}
_IGNORES_MERGES = ("llama-bpe", "tekken")  # there a whole piece that is a token stays one
_WAY_OUT = "own weights merge, and convert the folder with llama.cpp's convert_hf_to_gguf.py"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything that llama.cpp wants to know of a tokenizer."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    adds_bos: bool
    bos_id: int | None
    pad_id: int | None


def read_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """The tokenizer of the checkpoint in `folder`, for a model with `vocab_size` rows.

    Raises: ModelError when llama.cpp would not make the same tokens
    """
    tokenizer = Tokenizer.load(folder)
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    where = str(folder / "tokenizer.json")
    model = _bpe(raw, where)
    if not model["merges"]:
        raise ModelError(f"{where}: llama.cpp loads no tokenizer without merges", hint=_WAY_OUT)
    tokens, kinds = _tokens(tokenizer, model["vocab"], vocab_size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    pre = pre_name(raw, merges, where)
    return Vocabulary(
        tuple(tokens), tuple(kinds), tuple(merges), pre, _adds_bos(raw, tokenizer),
        tokenizer.bos_id, tokenizer.pad_id,
    )  # fmt: skip


def pre_name(raw: Mapping[str, Any], merges: Iterable[str], where: str) -> str:
    """The name by which llama.cpp cuts text as the `pre_tokenizer` of a tokenizer.json does."""
    steps = _steps(raw.get("pre_tokenizer"), where)
    if steps == () or (len(steps) == 1 and steps[0] in RUNS):
        _refuse_straddling(merges, steps[0] if steps else None, where)
        found = WHOLE
    else:
        found = PRE.get(steps)
    if found is None:
        raise ModelError(
            f"{where}: llama.cpp has no name for the pre-tokenizer {' then '.join(steps):.300}",
            hint="serve it with vLLM or transformers (own weights merge)",
        )
    ignores = bool(raw["model"].get("ignore_merges"))
    if ignores != (found in _IGNORES_MERGES):
        raise ModelError(
            f"{where}: ignore_merges is {str(ignores).lower()}, which llama.cpp's {found!r}"
            " does otherwise",
            hint=_WAY_OUT,
        )
    return found


def _bpe(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The `model` of a tokenizer.json, which must be byte-level BPE and nothing around it."""
    model = raw["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "BPE with byte fallback" if model.get("byte_fallback") else model.get("type")
        raise ModelError(
            f"{where}: a {kind} tokenizer is not exported, expected byte-level BPE", hint=_WAY_OUT
        )
    refused = {
        "a normalizer": raw.get("normalizer") not in (None, {"type": "NFC"}),
        "dropout": bool(model.get("dropout")),
        "a prefix or suffix of words": bool(
            model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
        ),
    }
    for what, is_refused in refused.items():
        if is_refused:
            raise ModelError(f"{where}: llama.cpp does not know {what}", hint=_WAY_OUT)
    return model


def _tokens(
    tokenizer: Tokenizer, vocab: Mapping[str, int], vocab_size: int
) -> tuple[list[str], list[int]]:
    """Token and kind by id; rows of the model that no token has are named and unused."""
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    for token, index in vocab.items():
        tokens[index], kinds[index] = token, NORMAL
    for index, added in tokenizer.added.items():
        tokens[index] = added.content
        kinds[index] = CONTROL if added.special else USER_DEFINED
    return tokens, kinds


def _steps(raw: Mapping[str, Any] | None, where: str) -> tuple[str, ...]:
    """What is done to text before it is bytes: patterns, `digits`, `gpt2` (ByteLevel's own)."""
    if raw is None:
        raise ModelError(f"{where}: no pre-tokenizer makes bytes of the text", hint=_WAY_OUT)
    kind = raw.get("type")
    if kind == "Sequence":
        return tuple(step for one in raw["pretokenizers"] for step in _steps(one, where))
    if kind == "ByteLevel" and not raw.get("add_prefix_space"):
        return ("gpt2",) if raw.get("use_regex", True) else ()
    if kind == "Digits" and raw.get("individual_digits"):
        return ("digits",)
    pattern = raw.get("pattern", {}).get("Regex")
    is_plain = raw.get("behavior") == "Isolated" and not raw.get("invert")
    if kind == "Split" and pattern is not None and is_plain:
        return (str(pattern),)
    raise ModelError(f"{where}: llama.cpp does not know the pre-tokenizer {kind}", hint=_WAY_OUT)


def _refuse_straddling(merges: Iterable[str], pattern: str | None, where: str) -> None:
    """A merge that joins two pieces, or two digits, would be made in llama.cpp and not here."""
    cut = pre_tokenizers.Split(Regex(pattern or r"\p{N}|\P{N}+"), "isolated")
    letters = {letter: byte for byte, letter in byte_letters().items()}
    for merge in merges:
        joined = bytes(letters[letter] for letter in merge.replace(" ", ""))
        if _is_across(joined, cut):
            raise ModelError(
                f"{where}: the merge {merge!r} joins what the pre-tokenizer cuts apart, and"
                " llama.cpp would make it",
                hint="serve it with vLLM or transformers (own weights merge)",
            )


def _is_across(joined: bytes, cut: pre_tokenizers.Split) -> bool:
    """Whether a token may reach over the border of two pieces: whole characters are looked at, a
    broken one beside others is taken to."""
    try:
        return len(cut.pre_tokenize_str(joined.decode("utf-8"))) > 1
    except UnicodeDecodeError:
        starts = [at for at, byte in enumerate(joined) if byte & 0xC0 != 0x80]
        return any(at > 0 for at in starts)


def _adds_bos(raw: Mapping[str, Any], tokenizer: Tokenizer) -> bool:
    """Whether the hub's tokenizer puts a BOS before a plain text."""
    bos = tokenizer.special_text("bos_token")
    post = raw.get("post_processor") or {}
    for one in (post, *post.get("processors", ())):
        single = one.get("single") or [{}]
        if bos is not None and single[0].get("SpecialToken", {}).get("id") == bos:
            return True
    return False


def byte_letters() -> dict[int, str]:
    """The letter by which byte-level BPE writes each byte: itself where it can be seen, else the
    next one from U+0100 on.

    Source: GPT-2's encoder. Checked: test_byte_letters_match_tokenizers
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {
        byte: chr(256 + index) for index, byte in enumerate(hidden)
    }
