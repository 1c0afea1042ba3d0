"""Text to ids and back, and back again piece by piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers

from ownweights.core.errors import ModelError
from ownweights.model.tokenizer import Detokenizer, Tokenizer, split_specials
from tests.model.words import KINDS, save_words, tokenizer_of
from tests.tiny import BOS_ID, END_ID, PAD_ID, SPECIAL_TOKENS, byte_tokenizer, save_byte_tokenizer

WORDS = ["▁", "▁a", "b", "a", "▁the"]


def byte_words() -> Tokenizer:
    """One token a byte."""
    return Tokenizer(
        byte_tokenizer(), {"bos_token": "<|bos|>", "eos_token": {"content": "<|end|>"}}
    )


def fallback_words() -> Tokenizer:
    """SentencePiece's way: words with ▁ for a space, single bytes where there is no word."""
    bytes_ = [f"<0x{code:02X}>" for code in range(256)]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "</s>", *bytes_, *WORDS])}
    model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])  # pyright: ignore
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(tokenizer, {})


def pieces_of(words: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(words)
    return [*(detokenizer.push([id_]) for id_ in ids), detokenizer.flush()]


def test_load_reads_special_tokens(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    words = Tokenizer.load(tmp_path)
    assert (words.bos_id, words.eos_id, words.pad_id) == (BOS_ID, END_ID, PAD_ID)
    assert words.vocab_size == 256 + len(SPECIAL_TOKENS)
    assert list(words.special_ids) == list(SPECIAL_TOKENS)


def test_load_does_without_a_config(tmp_path: Path) -> None:
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    words = Tokenizer.load(tmp_path)
    assert (words.bos_id, words.eos_id, words.config) == (None, None, {})


def test_load_ignores_a_stored_truncation(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.load(tmp_path).encode("abcdef")) == 6


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json") as refusal:
        Tokenizer.load(tmp_path)
    assert refusal.value.hint == "save the checkpoint's fast tokenizer beside its weights"


def test_load_refuses_another_files_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"), [("{", "not readable JSON"), ("[]", "must hold a JSON object")]
)
def test_load_refuses_a_broken_config(tmp_path: Path, config: str, said: str) -> None:
    save_byte_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(config, "utf-8")
    with pytest.raises(ModelError, match=said):
        Tokenizer.load(tmp_path)


def test_load_refuses_a_special_token_that_is_none(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path, eos_token="</s>")
    with pytest.raises(ModelError, match=r"eos_token '</s>' is not in tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_encode_keeps_special_strings_plain(special: str) -> None:
    words = byte_words()
    text = f"a{special}b"
    plain = words.encode(text)
    assert not set(plain) & set(words.special_ids.values())
    assert words.decode(plain) == text
    assert words.special_ids[special] in words.encode(text, allow_special=True)


def test_decode_leaves_special_tokens_out_unless_asked() -> None:
    words = byte_words()
    ids = [BOS_ID, *words.encode("hi"), END_ID]
    assert words.decode(ids) == "hi"
    assert words.decode(ids, skip_special=False) == "<|bos|>hi<|end|>"


@given(st.text())
def test_decode_always_undoes_encode(text: str) -> None:
    words = byte_words()
    assert words.decode(words.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ufeffé", "\ufeffé"),
    ],
)
def test_encode_reads_half_a_surrogate_pair_as_replaced(text: str, read_as: str) -> None:
    words = byte_words()
    assert words.decode(words.encode(text)) == read_as


@given(st.text(max_size=12), st.booleans())
def test_detokenizer_pieces_always_join_to_decode(text: str, is_fallback: bool) -> None:
    words = fallback_words() if is_fallback else byte_words()
    ids = words.encode(text)
    assert "".join(pieces_of(words, ids)) == words.decode(ids)


@given(st.lists(st.integers(0, 262), max_size=12), st.booleans())
def test_detokenizer_joins_any_ids(ids: list[int], is_fallback: bool) -> None:
    """Also ids that are no text: broken UTF-8, special tokens in the middle."""
    words = fallback_words() if is_fallback else byte_words()
    assert "".join(pieces_of(words, ids)) == words.decode(ids)


@pytest.mark.parametrize("make", [byte_words, fallback_words])
def test_detokenizer_never_splits_a_character(make: type) -> None:
    text = "né 漢字 👩‍🚀"
    pieces = pieces_of(make(), make().encode(text))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_detokenizer_gives_text_out_early() -> None:
    words = byte_words()
    detokenizer = Detokenizer(words)
    assert [detokenizer.push([id_]) for id_ in words.encode("hié")] == ["h", "i", "", "é"]
    assert detokenizer.push([]) == detokenizer.flush() == ""


def test_split_specials_cuts_as_the_tokenizer_does() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|wide|>", lstrip=True, rstrip=True, special=True)])
    words = Tokenizer(tokenizer, {})
    text = "a <|user|> b \n<|wide|>  c<|user|><|end|>"
    ids: list[int] = []
    for plain, special_id, _ in split_specials(words, text):
        ids += words.encode(plain) if special_id is None else [special_id]
    assert ids == words.encode(text, allow_special=True)


def test_real_tokenizer_encodes_as_its_makers(test_data: Path) -> None:
    """The ids that llama2.c's own encoder gives, which the checkpoint's card vouches for."""
    folder = test_data / "lm_stories260k" / "hf"
    words, theirs = (
        Tokenizer.load(folder),
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")),
    )
    text = "Lily and Ben went to the park. “Héllo!” 漢"
    assert words.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert words.decode(words.encode(text)) == text
    assert words.bos_id == words.eos_id == 1
    assert json.loads((folder / "config.json").read_text("utf-8"))["eos_token_id"] == 1


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_encode_matches_transformers(kind: str, tmp_path: Path) -> None:
    """Ids, and what they decode to, of every kind of vocabulary that families have."""
    from transformers import AutoTokenizer

    made = tokenizer_of(kind, ["<|end|>", "<|user|>"], ["<think>"])
    words = Tokenizer.load(save_words(tmp_path, made))
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat sat", " Grüße, 漢字\n\n", "a<|user|> b<think>c <|end|>d", "x  y", "\n"):
        ids = theirs(text, add_special_tokens=False).input_ids
        assert words.encode(text, allow_special=True) == ids
        assert words.encode_spans(text, allow_special=True)[0] == ids
        assert words.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_spans_stand_in_the_text(kind: str) -> None:
    words = Tokenizer(tokenizer_of(kind, ["<|end|>"]), {})
    text = "the cat <|end|>Grüße 漢 again"
    ids, spans = words.encode_spans(text, allow_special=True)
    assert len(ids) == len(spans)
    assert [text[s.start : s.end] for i, s in zip(ids, spans, strict=True)
            if i == words.special_ids["<|end|>"]] == ["<|end|>"]  # fmt: skip
    assert all(one.start <= one.end for one in spans)
    assert spans[0].start == 0 and spans[-1].end == len(text)


def test_special_texts_are_those_that_templates_ask_for(tmp_path: Path) -> None:
    save_byte_tokenizer(
        tmp_path, extra_special_tokens={"image_token": "<|tool|>"}, sep_token={"content": "<|x|>"}
    )
    assert Tokenizer.load(tmp_path).special_texts() == {
        "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>",
        "sep_token": "<|x|>", "image_token": "<|tool|>",
    }  # fmt: skip


def test_load_reads_older_files_for_special_tokens(tmp_path: Path) -> None:
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    older = {"bos_token": {"content": "<|bos|>"}, "eos_token": "<|end|>", "other": 1}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|user|>"}', "utf-8")
    words = Tokenizer.load(tmp_path)
    assert (words.bos_id, words.special_text("eos_token")) == (BOS_ID, "<|user|>")


def test_load_does_without_a_padding_token(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path, pad_token="[PAD]")
    assert Tokenizer.load(tmp_path).pad_id is None
