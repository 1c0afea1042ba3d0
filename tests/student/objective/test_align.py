"""A teacher's tokens laid over ours: shared spans count, others do not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from ownweights.dataset.logprobs import TokenLogprobs
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.objective.align import align, vocabulary_bytes
from tests.tiny import byte_tokenizer, save_byte_tokenizer


def told(*tokens: str, **others: float) -> list[TokenLogprobs]:
    """Each token with 0.5, and alternatives with what is given."""
    rest = {text: math.log(share) for text, share in others.items()}
    return [TokenLogprobs(t, tuple({**rest, t: math.log(0.5)}.items())) for t in tokens]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes, and the tokens `ab` and ` c`."""
    raw = byte_tokenizer().to_str()
    folder = tmp_path_factory.mktemp("words")
    save_byte_tokenizer(folder)
    size = byte_tokenizer().get_vocab_size()
    vocabulary = {**byte_tokenizer().get_vocab(), "ab": size, "Ġc": size + 1}
    model = tokenizers.Tokenizer.from_str(raw)
    model.model = models.BPE(vocab=vocabulary, merges=[("a", "b"), ("Ġ", "c")])  # pyright: ignore
    model.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def test_align_gives_each_shared_span_its_distribution(merged: Tokenizer) -> None:
    vocabulary = vocabulary_bytes(merged)
    ids = merged.encode("abx c")
    assert [merged.token_bytes(i) for i in ids] == [b"ab", b"x", b" c"]
    found = align(merged, vocabulary, ids, told("ab", "x ", "c", ab=0.25, b=0.25, qq=0.1))
    assert found[0] == pytest.approx({ids[0]: 0.5, vocabulary[b"b"]: 0.25})
    assert found[1:] == [None, None]  # x| c against x |c
    assert align(merged, vocabulary, ids, told("ab", "x", " c"))[2] == pytest.approx({ids[2]: 0.5})


def test_align_of_another_text_is_nothing(merged: Tokenizer) -> None:
    vocabulary = vocabulary_bytes(merged)
    ids = merged.encode("abx")
    assert align(merged, vocabulary, ids, told("ab", "y")) == [None, None]
    assert align(merged, vocabulary, ids, []) == [None, None]


@given(text=st.text(min_size=1, max_size=12))
def test_align_with_ones_own_tokens_always_covers_everything(text: str) -> None:
    tokenizer = Tokenizer(byte_tokenizer(), {})
    text = text.encode("utf-8", "replace").decode()
    ids = tokenizer.encode(text)
    own = [
        (tokenizer.token_bytes(i) or b"").decode("utf-8", "surrogateescape") for i in ids
    ]  # fmt: skip
    assert b"".join(tokenizer.token_bytes(i) or b"" for i in ids) == text.encode()
    found = align(tokenizer, vocabulary_bytes(tokenizer), ids, told(*own))
    assert found == [pytest.approx({i: 0.5}) for i in ids]


def test_token_bytes_of_sentencepiece_vocabularies(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁": 3, "▁h": 4, "i": 5, "h": 6}
    raw = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "h")], unk_token="<unk>",
                                          byte_fallback=True))  # fmt: skip
    raw.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])  # pyright: ignore
    tokenizer = Tokenizer(raw, {})
    ids = tokenizer.encode("hié")
    assert [tokenizer.token_bytes(i) for i in ids] == [b" h", b"i", b"\xc3", b"\xa9"]
    known = align(tokenizer, vocabulary_bytes(tokenizer), ids, told("h", "i", "é"))
    assert known[:2] == [pytest.approx({ids[0]: 0.5}), pytest.approx({ids[1]: 0.5})]
    assert known[2:] == [None, None]
