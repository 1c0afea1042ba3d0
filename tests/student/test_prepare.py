"""Examples as rows: nothing is cut, nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import InputError
from ownweights.dataset.example import Example
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.examples import hash_rows, pad_rows
from ownweights.student.prepare import MAX_LOST_FRAC, Prepared, prepare
from tests.tiny import CHAT_TEMPLATE, END_ID, byte_tokenizer

CONFIG = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
WINDOW = 96
# Earlier answers are written without what opens the last one, as Qwen3 does it.
FORGETFUL = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and loop.last %}(none){% endif %}{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>(none){% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not that') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def template(source: str = CHAT_TEMPLATE) -> ChatTemplate:
    return ChatTemplate(Tokenizer(byte_tokenizer(), CONFIG), source)


def example(messages: Sequence[dict[str, Any]], target: str) -> Example:
    return Example("id", "unit", {"messages": messages}, list(messages), target, (target,), "m", {})


def ask(text: str, target: str = "yes") -> Example:
    return example([{"role": "user", "content": text}], target)


TALK = [
    {"role": "user", "content": "a"}, {"role": "assistant", "content": "one"},
    {"role": "user", "content": "b"}, {"role": "assistant", "content": "two"},
    {"role": "user", "content": "c"},
]  # fmt: skip


def trained_texts(chat: ChatTemplate, made: Prepared) -> list[str]:
    """What the rows train, up to each end."""
    found: list[str] = []
    for row in made.rows:
        ids = row.ids[row.trained_at()].tolist()
        text = chat.tokenizer.decode(ids, skip_special=False)
        assert text.endswith("<|end|>")
        found += text.split("<|end|>")[:-1]
    return found


def test_prepare_never_cuts_an_answer() -> None:
    """training.md c.20: what does not fit is left out whole, and counted."""
    chat = template()
    fits = ask("x" * (WINDOW - 8))
    made = prepare(chat, WINDOW, [ask("a"), ask("x" * 200), fits, ask("a", "y" * 200)])
    assert [one.target for one in made.examples] == ["yes", "yes"]
    assert (made.counts.too_long, made.counts.examples, made.counts.rows) == (2, 4, 2)
    assert max(len(row.ids) for row in made.rows) == WINDOW
    assert trained_texts(chat, made) == ["yes", "yes"]


def test_prepare_stops_when_too_many_are_refused() -> None:
    """training.md c.10, c.11: an error above one in a hundred, a count below."""
    examples = [ask(f"q{k}") for k in range(99)] + [ask("no")]
    made = prepare(template(STRICT), WINDOW, examples)
    assert (made.counts.refused, len(made.rows), MAX_LOST_FRAC) == (1, 99, 0.01)
    with pytest.raises(InputError, match=r"2 of 100 examples cannot be trained.*not that"):
        prepare(template(STRICT), WINDOW, [*examples[1:], ask("no")])


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, FORGETFUL], ids=["kept", "forgetful"])
def test_prepare_trains_every_turn_once(source: str) -> None:
    """training.md c.12: each of three answers is trained, within one row or in its own."""
    chat = template(source)
    last = prepare(chat, WINDOW, [example(TALK, "three")])
    assert trained_texts(chat, last) == ["three"]
    every = prepare(chat, WINDOW, [example(TALK, "three")], turns="all")
    assert sorted(trained_texts(chat, every)) == ["one", "three", "two"]
    assert len(every.rows) == (1 if source == CHAT_TEMPLATE else 3)
    wanted = sum(len(chat.tokenizer.encode(text)) + 1 for text in ("one", "two", "three"))
    assert every.counts.trained_tokens == wanted
    assert every.examples == last.examples


def test_prepare_counts_what_the_template_drops() -> None:
    """training.md c.18."""
    source = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('#')[-1]")
    made = prepare(template(source), WINDOW, [ask("see # this"), ask("that")])
    assert (made.counts.dropped, made.counts.changed) == (1, 0)


def test_rows_with_a_mask_train_what_it_says() -> None:
    row = prepare(template(), WINDOW, [example(TALK, "three")], turns="all").rows[0]
    assert row.mask is not None
    batch = pad_rows([row])
    assert batch.targets.tolist() == row.ids[row.mask].tolist()
    assert (batch.where + 1).tolist() == row.mask.nonzero()[0].tolist()
    assert batch.targets.tolist().count(END_ID) == 3
    alone = prepare(template(), WINDOW, [example(TALK, "three")]).rows[0]
    assert hash_rows([row]) != hash_rows([alone])


def test_counts_say_how_much_is_trained(tmp_path: Path) -> None:
    counts = prepare(template(), WINDOW, [ask("abc")]).counts
    assert (counts.tokens, counts.trained_tokens) == (3 + 3 + 5, 4)
    assert counts.to_json()["trained_frac"] == round(4 / 11, 4)
    assert prepare(template(), WINDOW, []).counts.trained_frac == 0.0
