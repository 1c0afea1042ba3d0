"""The token file: what it holds, and which windows a step reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student import tokens as tokens_module
from ownweights.student.tokens import (
    READ_ONLY,
    TokenFile,
    encode_documents,
    encode_drills,
    encode_prompts,
)
from tests.tiny import ASSISTANT_ID, BOS_ID, END_ID, USER_ID, byte_tokenizer, save_byte_tokenizer


def read_windows(count: int, length: int, rows: int, *, steps: int, seed: int = 0) -> np.ndarray:
    """All windows of the first steps over the numbers 0 .. count - 1."""
    file = TokenFile(np.arange(count, dtype=np.uint16))
    return np.concatenate([file.windows(length, rows, step=s, seed=seed) for s in range(steps)])


@given(
    num_windows=st.integers(1, 30), length=st.integers(1, 9), rest=st.integers(0, 8),
    rows=st.integers(1, 7), seed=st.integers(0, 99),
)  # fmt: skip
def test_windows_always_tile_the_file(
    num_windows: int, length: int, rest: int, rows: int, seed: int
) -> None:
    count = num_windows * length + rest % length
    steps = 2 * num_windows  # two epochs or more, whatever the rows
    found = read_windows(count, length, rows, steps=steps, seed=seed)
    assert (np.diff(found, axis=1) == 1).all()
    for epoch in range(2):
        starts = found[epoch * num_windows : (epoch + 1) * num_windows, 0]
        assert sorted(starts) == [k * length for k in range(num_windows)]


def test_windows_are_numbers_that_torch_takes() -> None:
    found = TokenFile(np.full(10, 65_000, np.uint16)).windows(5, 2, step=0, seed=0)
    assert (found.dtype, found.shape, found.max()) == (np.int64, (2, 5), 65_000)


def test_windows_depend_on_step_and_seed_alone() -> None:
    file = TokenFile(np.arange(900, dtype=np.uint16))
    forward = [file.windows(9, 7, step=s, seed=4) for s in range(40)]  # 2.8 epochs
    tokens_module._ORDERS.clear()  # as in a process that has just started
    for step in reversed(range(40)):
        assert np.array_equal(file.windows(9, 7, step=step, seed=4), forward[step])
    assert not np.array_equal(file.windows(9, 7, step=0, seed=5), forward[0])


def test_windows_come_in_another_order_each_epoch() -> None:
    found = read_windows(400, 4, 100, steps=3)[:, 0].reshape(3, 100)
    assert len({tuple(epoch) for epoch in found}) == 3
    assert not np.array_equal(found[0], np.sort(found[0]))


def test_windows_refuse_a_file_that_is_too_short() -> None:
    with pytest.raises(InputError, match="the text has 7 tokens, fewer than one window of 8"):
        TokenFile(np.arange(7, dtype=np.uint16)).windows(8, 1, step=0, seed=0)


def test_token_file_opens_what_was_written(tmp_path: Path) -> None:
    ids = np.array([0, 9, 65_535], np.uint16)
    ids.tofile(tmp_path / "tokens.u16")
    assert TokenFile.open(tmp_path / "tokens.u16").ids.tolist() == ids.tolist()


def test_encode_documents_marks_begin_and_end() -> None:
    tokenizer = byte_tokenizer()
    first, second = encode_documents(tokenizer, ["héllo", "x"])
    assert first.dtype == np.uint16
    assert (first[0], first[-1]) == (BOS_ID, END_ID)
    assert tokenizer.decode(first[1:-1].tolist()) == "héllo"
    assert second.tolist() == [BOS_ID, *tokenizer.encode("x").ids, END_ID]


def test_encode_documents_cuts_a_long_one_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_DOCUMENT_CHARS", 4)
    tokenizer = byte_tokenizer()
    parts = list(encode_documents(tokenizer, ["abcdefghij"]))
    assert len(parts) == 3
    joined = np.concatenate(parts).tolist()
    assert joined == [BOS_ID, *tokenizer.encode("abcdefghij").ids, END_ID]
    (even,) = encode_documents(tokenizer, ["abcd"])
    assert even.tolist() == [BOS_ID, *tokenizer.encode("abcd").ids, END_ID]


def test_encode_documents_skips_an_empty_one() -> None:
    assert list(encode_documents(byte_tokenizer(), ["", ""])) == []


def test_encode_drills_are_conversations() -> None:
    tokenizer = byte_tokenizer()
    (ids,) = encode_drills(tokenizer, [("Où? | a", '{"a":"Où"}')])
    assert TokenFile(ids).unmarked().tolist() == [
        BOS_ID, USER_ID, *tokenizer.encode("Où? | a").ids, END_ID,
        ASSISTANT_ID, *tokenizer.encode('{"a":"Où"}').ids, END_ID,
    ]  # fmt: skip


def test_encode_drills_mark_the_question_as_read_only() -> None:
    (ids,) = encode_drills(byte_tokenizer(), [("play it", "yes")])
    trained = [int(i) for i in ids if not i & READ_ONLY]
    assert trained == [*byte_tokenizer().encode("yes").ids, END_ID]


def test_encode_prompts_are_the_user_s_turn() -> None:
    tokenizer = byte_tokenizer()
    (ids,) = encode_prompts(tokenizer, ["play it"])
    assert ids.tolist() == [BOS_ID, USER_ID, *tokenizer.encode("play it").ids, END_ID]


def test_encoded_conversations_start_as_they_are_served(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    template = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    asked = [{"role": "user", "content": "play it"}]
    (drill,) = encode_drills(byte_tokenizer(), [("play it", "yes")])
    assert TokenFile(drill).unmarked().tolist() == template.render_example(asked, "yes")[0]
    (prompt,) = encode_prompts(byte_tokenizer(), ["play it"])
    assert [*prompt.tolist(), ASSISTANT_ID] == template.render_prompt(asked)
