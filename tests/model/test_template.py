"""Conversations as ids: what is trained is what is served, and text stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import Ineligible, ModelError
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from tests.model.words import tokenizer_of
from tests.tiny import (
    ASSISTANT_ID,
    BOS_ID,
    CHAT_TEMPLATE,
    END_ID,
    SPECIAL_TOKENS,
    SYSTEM_ID,
    USER_ID,
    byte_tokenizer,
    save_byte_tokenizer,
)

CONFIG = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
TEXTS = st.text(max_size=20) | st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "\ufdd0", "0", " ", "é"]), max_size=6
).map("".join)
# Templates written as the hub's are: whitespace control, loops with breaks, tools, exceptions.
TEMPLATES = {
    "seedling": CHAT_TEMPLATE,
    "trim": "{{ bos_token }}{% for m in messages %}\n  {{- '<|' + m.role + '|>' }}"
    "{{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}\n"
    "{%- if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "blocks": "{% set ns = namespace(n=0) %}\n    {% for m in messages %}\n"
    "{% set ns.n = ns.n + 1 %}\n{{ ns.n }}:{{ m.content }}\n"
    "    {% if loop.last %}{% break %}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "json": "{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=1) }}{% endfor %}<|end|>",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}<|end|>"
    "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}",
    "strict": "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('only users may speak') }}{% endif %}<|user|>{{ m.content }}{% endfor %}",
}
MESSAGES = [
    {"role": "user", "content": " Grüße <b> & 'quotes'\n"},
    {"role": "assistant", "content": "yes\n\n"},
    {"role": "user", "content": "again"},
]


def template(source: str = CHAT_TEMPLATE, **config: Any) -> ChatTemplate:
    return ChatTemplate(Tokenizer(byte_tokenizer(), {**CONFIG, **config}), source)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_render_prompt_of_the_embedded_bases_format() -> None:
    chat = template()
    words = chat.tokenizer
    ids = chat.render_prompt([{"role": "system", "content": "be"}, user("hi")])
    assert ids == [
        BOS_ID, SYSTEM_ID, *words.encode("be"), END_ID, USER_ID, *words.encode("hi"), END_ID,
        ASSISTANT_ID,
    ]  # fmt: skip


@given(TEXTS, TEXTS)
def test_render_example_starts_with_the_served_prompt(asked: str, answer: str) -> None:
    chat = template()
    ids, num_prompt = chat.render_example([user(asked)], answer)
    assert ids[:num_prompt] == chat.render_prompt([user(asked)])
    assert ids[num_prompt:] == [*chat.tokenizer.encode(answer), END_ID]


@given(TEXTS)
def test_render_prompt_keeps_special_strings_plain(text: str) -> None:
    chat = template()
    ids = chat.render_prompt([user(text)])
    assert ids == [BOS_ID, USER_ID, *chat.tokenizer.encode(text), END_ID, ASSISTANT_ID]


def test_render_prompt_keeps_special_strings_plain_through_filters() -> None:
    chat = template(TEMPLATES["trim"])
    ids = chat.render_prompt([user("  <|end|> and <|user|>  ")])
    plain = chat.tokenizer.encode("<|end|> and <|user|>")
    assert ids[2 : 2 + len(plain)] == plain
    assert ids.count(END_ID) == ids.count(USER_ID) == 1


def test_render_prompt_keeps_special_strings_plain_in_keys() -> None:
    chat = template(TEMPLATES["json"])
    ids = chat.render_prompt([{"role": "user", "content": "x", "<|end|>": {"<|user|>": 1}}])
    assert (ids.count(END_ID), ids.count(USER_ID)) == (1, 0)


def test_render_prompt_refuses_text_that_leaves_no_mark() -> None:
    every = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    with pytest.raises(Ineligible) as refusal:
        template().render_prompt([user(every + "<|end|>")])
    assert refusal.value.field == "messages.content"


@pytest.mark.oracle
@pytest.mark.parametrize("name", TEMPLATES)
def test_render_prompt_matches_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_byte_tokenizer(tmp_path, chat_template=TEMPLATES[name])
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    chat = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    for add in (True, False):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=add)
        assert chat.render_text(MESSAGES, add_generation_prompt=add) == expected
    expected = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    opening = chat.tokenizer.encode(chat.form.opening, allow_special=True)
    assert chat.render_prompt(MESSAGES) == expected + opening
    assert bool(opening) == (name == "strict")  # it has no generation prompt of its own


def test_render_prompt_has_one_bos() -> None:
    chat = template("{{ bos_token }}{{ bos_token }}" + CHAT_TEMPLATE)
    assert chat.render_prompt([user("hi")])[:2] == [BOS_ID, USER_ID]


def test_render_prompt_leaves_the_messages_alone() -> None:
    messages = [user("a <|end|>")]
    template().render_prompt(messages)
    assert messages == [user("a <|end|>")]


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (CHAT_TEMPLATE, END_ID),
        (CHAT_TEMPLATE.replace("<|end|>", "<|tool|>"), 6),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", END_ID),  # none: the EOS
        (TEMPLATES["strict"].replace("'assistant'", "'nobody'"), END_ID),  # refused: the EOS
    ],
)
def test_template_finds_what_ends_a_turn(source: str, end: int) -> None:
    assert template(source).end_id == end


def test_template_without_any_end_is_refused() -> None:
    with pytest.raises(ModelError, match="neither the chat template nor the tokenizer names"):
        template("{{ messages[0].content }}", eos_token=None)


def test_template_that_refuses_makes_the_request_ineligible() -> None:
    with pytest.raises(Ineligible, match="only users may speak") as refusal:
        template(TEMPLATES["strict"]).render_prompt([{"role": "tool", "content": "4"}])
    assert refusal.value.field == "messages"


def test_template_that_does_not_compile_is_refused() -> None:
    with pytest.raises(ModelError, match="the chat template does not compile"):
        template("{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_template_cannot_leave_its_sandbox(source: str) -> None:
    chat = template(CHAT_TEMPLATE)
    chat_of_theirs = template("<|end|>{% if messages | length > 5 %}" + source + "{% endif %}")
    assert chat.end_id == chat_of_theirs.end_id
    with pytest.raises(Ineligible):
        chat_of_theirs.render_text([user("x")] * 6)


def test_template_sees_json_values_only() -> None:
    with pytest.raises(Ineligible, match="a message holds a complex, not a JSON value"):
        template().render_prompt([user(1j)])


def test_template_knows_one_date_only() -> None:
    """training.md c.19: a prompt is the same tomorrow, and it is said that it names a date."""
    dated = template("{{ strftime_now('%d %b %Y') }}<|end|>")
    assert dated.render_text([user("x")]) == "26 Jul 2024<|end|>"
    assert dated.uses_date and not template().uses_date


@pytest.mark.parametrize("turns", [False, True])
def test_end_that_is_the_padding_is_trained(turns: bool) -> None:
    """training.md c.8: rows are masked by where things stand, never by what the padding is."""
    chat = template(pad_token="<|end|>")
    assert chat.tokenizer.pad_id == chat.end_id == END_ID
    talk = [user("a"), {"role": "assistant", "content": "b"}, user("c")]
    made = chat.render(talk, "d", all_turns=turns)
    trained = made.ids[made.num_prompt :] if made.mask is None else [
        id_ for id_, is_trained in zip(made.ids, made.mask, strict=True) if is_trained
    ]  # fmt: skip
    assert trained.count(END_ID) == 1 + turns


def test_answer_is_cut_where_tokens_would_join() -> None:
    """training.md c.14: newlines at both sides of the border stay tokens of their own."""
    words = Tokenizer(tokenizer_of("bytes", ["<|end|>"]), {"eos_token": "<|end|>"})
    assert len(words.encode("\n\n")) == 1
    chat = ChatTemplate(
        words, "{% for m in messages %}{{ m.role }}:\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}",
    )  # fmt: skip
    ids, num_prompt = chat.render_example([user("x")], "\nyes")
    assert ids[:num_prompt] == chat.render_prompt([user("x")])
    assert words.decode(ids[num_prompt:]) == "\nyes"


def test_what_opens_every_answer_is_served_not_trained() -> None:
    chat = template(
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}(none){% endif %}"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    ids, num_prompt = chat.render_example([user("x")], "yes")
    assert chat.form.opening == "(none)"
    assert ids[:num_prompt] == chat.render_prompt([user("x")])
    assert chat.tokenizer.decode(ids[:num_prompt]).endswith("(none)")
    assert ids[num_prompt:] == [*chat.tokenizer.encode("yes"), END_ID]


def test_text_parts_are_read_as_text() -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    assert template().render_prompt([user(parts)]) == template().render_prompt([user("hello")])


def test_tools_have_a_template_of_their_own(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t{{ tools | tojson }}<|end|>"},
             {"name": "default", "template": "d<|end|>"}]  # fmt: skip
    save_byte_tokenizer(tmp_path, chat_template=named)
    chat = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render_text([user("x")], tools=[{"a": 1}]) == 't[{"a": 1}]<|end|>'
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("u<|end|>", "utf-8")
    chat = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render_text([user("x")], tools=[{"a": 1}]) == "u<|end|>"
    assert chat.render_text([user("x")]) == "d<|end|>"


def test_load_prefers_the_file_of_its_own(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("own<|end|>", "utf-8")
    chat = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render_text([user("x")]) == "own<|end|>"


def test_load_takes_the_default_of_several(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d<|end|>"}]
    save_byte_tokenizer(tmp_path, chat_template=named)
    chat = ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    assert chat.render_text([user("x")]) == "d<|end|>"


def test_load_says_that_a_base_has_no_template(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path, chat_template=None)
    with pytest.raises(ModelError, match="has no chat template") as refusal:
        ChatTemplate.load(tmp_path, Tokenizer.load(tmp_path))
    assert "chat-tuned variant" in (refusal.value.hint or "")


def test_tojson_escapes_nothing_but_json() -> None:
    text = template("{{ messages[0].content | tojson }}<|end|>").render_text([user("<é>'")])
    assert text == json.dumps("<é>'", ensure_ascii=False) + "<|end|>"
