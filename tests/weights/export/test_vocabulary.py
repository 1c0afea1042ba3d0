"""Tokenizers that llama.cpp cuts as the hub's library does, and those that it would not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from ownweights.core.errors import ModelError
from ownweights.student.vocabulary import PIECES
from ownweights.weights.base import EMBEDDED_DIR
from ownweights.weights.export.vocabulary import (
    CONTROL,
    NORMAL,
    PRE,
    RUNS,
    UNUSED,
    USER_DEFINED,
    WHOLE,
    byte_letters,
    pre_name,
    read_vocabulary,
)
from tests.tiny import SPECIAL_TOKENS, make_base
from tests.weights.made import WORDS, project_with_base

SPACE = byte_letters()[0x20]
WHERE = "tokenizer.json"


def described(*steps: pre_tokenizers.PreTokenizer, **model: Any) -> dict[str, Any]:
    """What tokenizer.json says of a byte-level BPE with these steps before the bytes."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    raw = json.loads(tokenizer.to_str())
    raw["model"] |= model
    return raw


def split(pattern: str, behavior: str = "isolated") -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior)


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def test_byte_letters_match_tokenizers() -> None:
    assert set(byte_letters().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    for byte, letter in byte_letters().items():
        if byte < 0x80:
            assert BYTES.pre_tokenize_str(chr(byte))[0][0] == letter


def test_runs_are_the_pieces_of_our_own_bases() -> None:
    assert RUNS == (PIECES,)
    assert pre_name(described(split(PIECES), BYTES), [], WHERE) == WHOLE


@pytest.mark.parametrize("steps", PRE)
def test_pre_name_knows_the_hubs_patterns(steps: tuple[str, ...]) -> None:
    known = {"gpt2": GPT2, "digits": pre_tokenizers.Digits(individual_digits=True)}
    built = [known.get(step) or split(step) for step in steps]
    if steps[-1] != "gpt2":
        built.append(BYTES)
    name = PRE[steps]
    raw = described(*built, ignore_merges=name in ("llama-bpe", "tekken"))
    assert pre_name(raw, [], WHERE) == name


def test_pre_name_of_a_text_left_whole() -> None:
    assert pre_name(described(BYTES), [f"a {SPACE}"], WHERE) == WHOLE


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (described(split(r"\w+"), BYTES), r"no name for the pre-tokenizer \\w\+"),
        (described(split(PIECES, "removed"), BYTES), "does not know the pre-tokenizer Split"),
        (described(pre_tokenizers.Whitespace(), BYTES), "the pre-tokenizer Whitespace"),
        (described(GPT2, ignore_merges=True), "ignore_merges is true, which llama.cpp's 'gpt-2'"),
        ({"pre_tokenizer": None, "model": {}}, "no pre-tokenizer makes bytes"),
    ],
)
def test_pre_name_refuses_what_llama_cpp_cuts_otherwise(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as refusal:
        pre_name(raw, [], WHERE)
    assert "own weights merge" in (refusal.value.hint or "")


@pytest.mark.parametrize("merge", [f"{SPACE} a", "a 1", "1 2", "a {", "\u00c3 \u00a9\u00c3"])
def test_read_vocabulary_refuses_a_merge_across_pieces(merge: str) -> None:
    """The last one is é and half a character: whose half is not known."""
    with pytest.raises(ModelError, match="joins what the pre-tokenizer cuts apart"):
        pre_name(described(split(PIECES), BYTES), [merge], WHERE)


@pytest.mark.parametrize("merge", [f"{SPACE} {SPACE}", "a b", "{ {", "\u00c3 \u00a9"])
def test_pre_name_takes_merges_within_a_piece(merge: str) -> None:
    assert pre_name(described(split(PIECES), BYTES), [merge], WHERE) == WHOLE


def test_read_vocabulary_of_a_tiny_base(tmp_path: Path) -> None:
    project_with_base(tmp_path)
    found = read_vocabulary(tmp_path / "tiny", WORDS + 3)
    assert found.tokens[:7] == SPECIAL_TOKENS
    assert found.kinds[:7] == (CONTROL,) * 7
    assert found.kinds[7:WORDS] == (NORMAL,) * 257
    assert found.kinds[WORDS:] == (UNUSED,) * 3
    assert len(set(found.tokens)) == WORDS + 3
    assert (found.pre, found.adds_bos, found.bos_id, found.pad_id) == (WHOLE, False, 1, 0)


def test_read_vocabulary_of_the_embedded_base() -> None:
    found = read_vocabulary(EMBEDDED_DIR, 6144)
    assert (len(found.tokens), found.pre) == (6144, WHOLE)
    assert len(found.merges) == 6144 - 256 - 7


def change(folder: Path, change_raw: dict[str, Any]) -> Path:
    path = project_with_base(folder).root / "tiny" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change_raw), "utf-8")
    return path.parent


def test_read_vocabulary_knows_what_puts_a_bos_first(tmp_path: Path) -> None:
    """training.md c.16: who adds the BOS is told, so that it is there once."""
    special = {"id": "<|bos|>", "ids": [1], "tokens": ["<|bos|>"]}
    single = [
        {"SpecialToken": {"id": "<|bos|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    post = {
        "type": "TemplateProcessing", "single": single, "pair": pair,
        "special_tokens": {"<|bos|>": special},
    }  # fmt: skip
    assert read_vocabulary(change(tmp_path / "a", {"post_processor": post}), WORDS).adds_bos
    nested = {"type": "Sequence", "processors": [post]}
    assert read_vocabulary(change(tmp_path / "b", {"post_processor": nested}), WORDS).adds_bos


def test_read_vocabulary_marks_tokens_of_the_user(tmp_path: Path) -> None:
    path = project_with_base(tmp_path).root / "tiny" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["<think>"])
    tokenizer.save(str(path))
    found = read_vocabulary(path.parent, WORDS + 1)
    assert (found.tokens[-1], found.kinds[-1]) == ("<think>", USER_DEFINED)


def test_read_vocabulary_refuses_other_kinds_of_tokenizer(tmp_path: Path) -> None:
    path = make_base(tmp_path) / "tokenizer.json"
    raw = json.loads(path.read_text("utf-8"))
    raw["model"]["byte_fallback"] = True
    path.write_text(json.dumps(raw), "utf-8")
    with pytest.raises(ModelError, match="a BPE with byte fallback tokenizer is not exported"):
        read_vocabulary(tmp_path, WORDS)
    lower = change(tmp_path / "b", {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(ModelError, match=r"llama.cpp does not know a normalizer"):
        read_vocabulary(lower, WORDS)
    with pytest.raises(ModelError, match="loads no tokenizer without merges"):
        read_vocabulary(make_base(tmp_path / "c"), WORDS)
