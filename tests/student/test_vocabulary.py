"""The base's own tokenizer: one word, one sequence, wherever it stands; any text comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.vocabulary import (
    ASSISTANT_ID,
    BOS_ID,
    CHAT_TEMPLATE,
    END_ID,
    MIN_VOCAB_SIZE,
    PAD_ID,
    SPECIAL_TOKENS,
    SYSTEM_ID,
    USER_ID,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

TEXTS = [
    'The road to Kilkenny was long, said Mr. Kowalski. {"place":"Kilkenny","person":"Kowalski"}',
    "Naïve café owners in Århus paid 1,204 kroner — “too much”, they said.\n\n\tAnd left.",
    "the the the and and of of road road place person who was where is it",
] * 5
VOCAB_SIZE = 400


@pytest.fixture(scope="module")
def trained() -> tokenizers.Tokenizer:
    return train_tokenizer(TEXTS, VOCAB_SIZE)


@pytest.fixture(scope="module")
def folder(trained: tokenizers.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    save_tokenizer(trained, folder, 512)
    return folder


def ids(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


WORDS = st.one_of(
    st.sampled_from(["Kilkenny", "kowalski", "the", "café", "zzyzx", "Århus", "O", "漢字", "наше"]),
    st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1, max_size=12),
)


@given(word=WORDS)
def test_tokenizer_gives_a_word_the_same_ids_everywhere(
    trained: tokenizers.Tokenizer, word: str
) -> None:
    alone = ids(trained, word)
    places = [
        f"go to {word} now", f"{word}, they said", f"({word})", f"“{word}”", f"\n{word}\n",
        json.dumps({"place": word, "list": [word, f"old {word}"]}, ensure_ascii=False),
        json.dumps({word: 1}, ensure_ascii=False, separators=(",", ":")),
    ]  # fmt: skip
    for text in places:
        found = ids(trained, text)
        starts = [i for i in range(len(found)) if found[i : i + len(alone)] == alone]
        assert starts, text


@given(number=st.integers(0, 10**9))
def test_tokenizer_gives_each_digit_a_token(trained: tokenizers.Tokenizer, number: int) -> None:
    assert len(ids(trained, str(number))) == len(str(number))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_tokenizer_always_gives_any_text_back(trained: tokenizers.Tokenizer, text: str) -> None:
    found = ids(trained, text)
    assert trained.decode(found, skip_special_tokens=False) == text
    assert all(token >= len(SPECIAL_TOKENS) for token in found)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_tokenizer_keeps_special_strings_plain(
    trained: tokenizers.Tokenizer, folder: Path, special: str
) -> None:
    text = f"before {special} after"
    for tokenizer in (trained, load_tokenizer(folder / "tokenizer.json")):
        found = ids(tokenizer, text)
        assert min(found) >= len(SPECIAL_TOKENS)
        assert tokenizer.decode(found) == text


def test_tokenizer_numbers_its_special_tokens(trained: tokenizers.Tokenizer) -> None:
    assert [trained.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    assert (PAD_ID, BOS_ID, END_ID, USER_ID) == (0, 1, 2, 4)


def test_train_tokenizer_fills_its_vocabulary(trained: tokenizers.Tokenizer) -> None:
    assert trained.get_vocab_size() <= VOCAB_SIZE
    assert len(ids(trained, "the road")) == 3  # frequent words are one token, the space another


def test_train_tokenizer_repeats(trained: tokenizers.Tokenizer) -> None:
    assert train_tokenizer(TEXTS, VOCAB_SIZE).to_str() == trained.to_str()


def test_train_tokenizer_of_nothing_still_reads_bytes() -> None:
    tokenizer = train_tokenizer([], MIN_VOCAB_SIZE)
    assert tokenizer.get_vocab_size() == MIN_VOCAB_SIZE
    assert tokenizer.decode(ids(tokenizer, "Ünïcode ✓")) == "Ünïcode ✓"


def test_save_tokenizer_writes_what_our_loader_reads(
    trained: tokenizers.Tokenizer, folder: Path
) -> None:
    ours = Tokenizer.load(folder)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (BOS_ID, END_ID, PAD_ID)
    assert ours.encode("to Kilkenny") == ids(trained, "to Kilkenny")
    assert ours.config["model_max_length"] == 512


def test_chat_template_is_one_token_around_each_message(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate.load(folder, tokenizer)
    messages = [
        {"role": "developer", "content": "be brief"}, {"role": "user", "content": "where"},
        {"role": "assistant", "content": "here"}, {"role": "user", "content": "who"},
    ]  # fmt: skip
    expected = [BOS_ID]
    for role, text in (
        (SYSTEM_ID, "be brief"), (USER_ID, "where"), (ASSISTANT_ID, "here"), (USER_ID, "who")
    ):  # fmt: skip
        expected += [role, *tokenizer.encode(text), END_ID]
    assert template.render_prompt(messages) == [*expected, ASSISTANT_ID]
    assert template.end_id == END_ID


@pytest.mark.oracle
def test_save_tokenizer_matches_transformers(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.chat_template == CHAT_TEMPLATE
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
