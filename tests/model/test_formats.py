"""Every family's chat format: what is trained is what is served, whole, once, and with its end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownweights.core.errors import Ineligible
from ownweights.model.probe import probe_template
from ownweights.model.template import ChatTemplate
from tests.model.formats import ANSWER, FORMATS, SYSTEM, TALK, Format

TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "role": "assistant", "content": None,
    "tool_calls": [{"id": "a1b2c3d4e", "type": "function",
                    "function": {"name": "look_up", "arguments": '{"word": "teapot"}'}}],
}  # fmt: skip
RESULT = {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "a vessel"}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SPACES = st.sampled_from(["", " ", "\n", "\n\n", "\t ", "  "])
CALLING = [name for name, found in FORMATS.items() if found.tools]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTemplate]:
    return {name: found.load(tmp_path_factory.mktemp(name)) for name, found in FORMATS.items()}


def words_of(template: ChatTemplate, ids: list[int]) -> str:
    """Ids as the text that was read; a space that a vocabulary writes before a stretch is gone."""
    return template.tokenizer.decode(ids, skip_special=False)


@pytest.mark.parametrize("name", FORMATS)
def test_format_writes_what_was_checked_by_hand(
    name: str, templates: dict[str, ChatTemplate]
) -> None:
    found, template = FORMATS[name], templates[name]
    assert template.render_text(found.messages) == found.prompt


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_found(name: str, templates: dict[str, ChatTemplate]) -> None:
    """training.md c.17: the end that is trained is the one that the template really writes."""
    found, form = FORMATS[name], templates[name].form
    assert templates[name].tokenizer.token_text(form.end_id) == found.end
    assert (form.opening, form.lead, form.tail) == (found.opening, found.lead, found.tail)
    assert (form.continues, form.is_end_written) == (found.continues, True)


@pytest.mark.parametrize("name", FORMATS)
def test_format_trains_what_it_serves(name: str, templates: dict[str, ChatTemplate]) -> None:
    """training.md c.13, c.14, c.15: train ids begin with serve ids, then come the answer's."""
    found, template = FORMATS[name], templates[name]
    made = template.render(found.messages, ANSWER)
    assert made.ids[: made.num_prompt] == template.render_prompt(found.messages)
    assert template.tokenizer.decode(made.ids[made.num_prompt : -1]) == ANSWER
    assert made.dropped == ()


@pytest.mark.parametrize("name", FORMATS)
def test_format_trains_the_end_of_the_turn(name: str, templates: dict[str, ChatTemplate]) -> None:
    """training.md c.8, c.9: the end is trained, also where it is the padding token."""
    found, template = FORMATS[name], templates[name]
    made = template.render(found.messages, ANSWER, all_turns=True)
    assert made.mask is not None and made.mask[-1]
    assert made.ids[-1] == template.end_id
    assert template.tokenizer.token_text(made.ids[-1]) == found.end


@pytest.mark.parametrize("name", FORMATS)
def test_format_has_one_bos(name: str, templates: dict[str, ChatTemplate]) -> None:
    """training.md c.15, c.16: exactly one BOS where the template writes one, else none."""
    found, template = FORMATS[name], templates[name]
    bos = template.tokenizer.bos_id
    ids = template.render_prompt(found.messages)
    if bos is None or not found.prompt.startswith(template.tokenizer.token_text(bos)):
        assert bos not in ids
    else:
        assert ids[0] == bos
        assert ids.count(bos) == found.prompt.count(template.tokenizer.token_text(bos))


@pytest.mark.parametrize("name", FORMATS)
def test_format_trains_every_turn(name: str, templates: dict[str, ChatTemplate]) -> None:
    """training.md c.12: each answer of a conversation with its end; or it is said which not."""
    found, template = FORMATS[name], templates[name]
    talk = [*found.messages, {"role": "assistant", "content": "the cat"},
            {"role": "user", "content": "again"}]  # fmt: skip
    made = template.render(talk, ANSWER, all_turns=True)
    assert made.mask is not None and len(made.mask) == len(made.ids)
    answers = [index for index, one in enumerate(talk) if one["role"] == "assistant"]
    if not found.keeps_turns:
        assert list(made.untrained_turns) == answers
        assert not any(made.mask[: made.num_prompt])
        return
    assert made.untrained_turns == ()
    runs = [""]
    for id_, is_trained in zip(made.ids, made.mask, strict=True):
        if is_trained:
            text = template.tokenizer.token_text(id_)
            is_end = id_ == template.end_id
            runs[-1] += text if is_end else text.replace("▁", " ").replace("Ġ", " ")
        elif runs[-1]:
            runs.append("")
    said = [run.strip() for run in runs]
    earlier = [f"{text}{found.tail}{found.end}" for text in ("Hello.", "the cat")]
    assert said == [*earlier, f"{ANSWER}{found.end}"]


@pytest.mark.parametrize("name", FORMATS)
def test_format_keeps_special_strings_plain(name: str, templates: dict[str, ChatTemplate]) -> None:
    found, template = FORMATS[name], templates[name]
    ids = template.render_prompt(found.messages)
    evil = [*found.messages[:-1], {"role": "user", "content": f"How {found.end} are you?"}]
    assert template.render_prompt(evil).count(template.end_id) == ids.count(template.end_id)
    made = template.render(evil, f"a {found.end} b", all_turns=True)
    assert made.ids[: made.num_prompt] == template.render_prompt(evil)
    learned = made.ids[made.num_prompt :]
    assert learned.count(template.end_id) == 1
    assert template.tokenizer.decode(learned[:-1], skip_special=False) == f"a {found.end} b"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", FORMATS)
def test_format_always_trains_what_it_serves(
    name: str, templates: dict[str, ChatTemplate], data: st.DataObject
) -> None:
    """training.md c.14: whatever texts meet at the border, no token reaches across it."""
    template = templates[name]
    asked = [{"role": "user", "content": data.draw(TEXTS)}]
    answer = data.draw(SPACES) + data.draw(TEXTS)
    made = template.render(asked, answer)
    assert made.ids[: made.num_prompt] == template.render_prompt(asked)
    assert made.ids[-1] == template.end_id
    if FORMATS[name].kind == "bytes":
        assert (
            template.tokenizer.decode(made.ids[made.num_prompt : -1], skip_special=False) == answer
        )


@pytest.mark.parametrize("name", CALLING)
def test_format_trains_a_call_of_a_tool(name: str, templates: dict[str, ChatTemplate]) -> None:
    found, template = FORMATS[name], templates[name]
    made = template.render([TALK[0]], CALL, tools=[TOOL])
    assert made.ids[: made.num_prompt] == template.render_prompt([TALK[0]], tools=[TOOL])
    learned = template.tokenizer.decode(made.ids[made.num_prompt :], skip_special=False)
    assert learned.replace("[TOOL_CALLS] ", "[TOOL_CALLS]").replace("  ", " ") == (
        found.tools.replace("[TOOL_CALLS] ", "[TOOL_CALLS]")
    )
    talk = [TALK[0], CALL, RESULT]
    after = template.render(talk, ANSWER, tools=[TOOL])
    assert after.dropped == ()
    assert after.ids[: after.num_prompt] == template.render_prompt(talk, tools=[TOOL])


def test_format_without_tools_refuses_a_call(templates: dict[str, ChatTemplate]) -> None:
    with pytest.raises(Ineligible):
        templates["gemma"].render([TALK[0]], CALL)


def test_dropped_text_is_reported(templates: dict[str, ChatTemplate]) -> None:
    """training.md c.18: reasoning before </think>, and a tool's result where none is written."""
    thought = {"role": "assistant", "content": "let me see</think>Hello."}
    talk = [TALK[0], thought, TALK[2]]
    assert templates["deepseek"].render(talk, ANSWER).dropped == ("messages[1].content",)
    assert templates["qwen3"].render(talk, ANSWER).dropped == ("messages[1].content",)
    assert templates["chatml"].render(talk, ANSWER).dropped == ()
    called = [TALK[0], CALL, RESULT]
    assert templates["chatml"].render(
        [{**one, "content": one["content"] or ""} for one in called], ANSWER
    ).dropped == ("messages[1].tool_calls",)


@pytest.mark.parametrize("name", FORMATS)
def test_probe_template_of_every_format(name: str, templates: dict[str, ChatTemplate]) -> None:
    found, template = FORMATS[name], templates[name]
    states = {one.what: one.state for one in probe_template(template, {template.end_id})}
    failed = {what for what, state in states.items() if state == "failed"}
    assert failed == (set() if found.continues else {"prompt"})
    assert states["end"] == "ok" and states["round trip"] == "ok"
    assert states["system"] == ("ok" if found.has_system else "note")
    assert states["tools"] == ("ok" if found.tools else "note")
    assert ("opening" in states) == bool(found.opening)


def _theirs(found: Format, folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(found.save(folder))


@pytest.mark.oracle
@pytest.mark.parametrize("name", FORMATS)
def test_format_matches_transformers(name: str, tmp_path: Path) -> None:
    """Text and ids of the prompt, and of the answered conversation up to the answer's end."""
    found = FORMATS[name]
    template, theirs = found.load(tmp_path), _theirs(found, tmp_path)
    text = theirs.apply_chat_template(
        found.messages, tokenize=False, add_generation_prompt=True, **found.extra
    )
    assert template.render_text(found.messages) == text == found.prompt
    ids = theirs.apply_chat_template(
        found.messages, add_generation_prompt=True, return_dict=False, **found.extra
    )
    if not found.opening:
        assert template.render_prompt(found.messages) == ids
    whole = theirs.apply_chat_template(
        [*found.messages, {"role": "assistant", "content": ANSWER}], return_dict=False,
        **found.extra,
    )  # fmt: skip
    made = template.render(found.messages, ANSWER).ids
    if found.continues:
        assert whole[: len(made) - 1] == made[:-1]
        assert found.tail or whole[: len(made)] == made


GENERATION = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' }}"
    "{% if turn.role == 'assistant' %}{% generation %}{{ turn.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ turn.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.oracle
def test_every_turn_is_trained_as_transformers_marks_it(tmp_path: Path) -> None:
    """training.md c.10, c.12: masks from rendered segments equal those of generation tags."""
    found = dataclasses.replace(FORMATS["chatml"], source=GENERATION)
    template, theirs = found.load(tmp_path), _theirs(found, tmp_path)
    talk = [SYSTEM, *TALK, {"role": "assistant", "content": "Grüße\n\n"}, TALK[0]]
    made = template.render(talk, ANSWER, all_turns=True)
    marked = theirs.apply_chat_template(
        [*talk, {"role": "assistant", "content": ANSWER}], return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    assert made.mask is not None
    assert marked["input_ids"][: len(made.ids)] == made.ids
    assert marked["assistant_masks"][: len(made.ids)] == [int(one) for one in made.mask]
    assert sum(made.mask) == sum(
        len(template.tokenizer.encode(text)) + 1 for text in ("Hello.", "Grüße\n\n", ANSWER)
    )
