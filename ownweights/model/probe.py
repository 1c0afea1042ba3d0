"""Does a chat template do what training needs? Looked at with made-up conversations.

In: a template. Out: one `Probe` for each way in which templates are known to go wrong in silence:
a second BOS, an end of turn that nobody trains, a prompt that an answered conversation does not
begin with, text that is left out. What failed is still trained as it is served; the probe says
what else will differ (test_probe_template_*).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ownweights.core.errors import Ineligible
from ownweights.model.sandbox import FROZEN_DATE
from ownweights.model.template import ChatTemplate, dropped_texts

_USER, _ANSWER = "What is 2 + 2?", "It is 4."
_ASKED = [{"role": "user", "content": _USER}]
_TALK = [
    *_ASKED, {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "Twice that?"},
]  # fmt: skip
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up", "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}  # fmt: skip
_CALL = {
    "role": "assistant", "content": "", "tool_calls": [
        {"id": "a1b2c3d4e", "type": "function",
         "function": {"name": "look_up", "arguments": {"word": "teapot"}}},
    ],
}  # fmt: skip
_RESULT = {"role": "tool", "tool_call_id": "a1b2c3d4e", "name": "look_up", "content": "a vessel"}


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing looked at: `ok`, `note` (works, and is worth knowing) or `failed`."""

    what: str
    state: Literal["ok", "note", "failed"]
    found: str


def probe_template(template: ChatTemplate, end_ids: Collection[int] = ()) -> list[Probe]:
    """Every probe; `end_ids` are the tokens at which the base's own config.json stops."""
    return [*_probes(template, frozenset(end_ids))]


def _probes(template: ChatTemplate, end_ids: frozenset[int]) -> Iterator[Probe]:
    try:
        prompt = template.render_prompt(_ASKED)
    except Ineligible as error:
        yield Probe("user", "failed", f"a single question is refused: {error.what}")
        return
    yield _bos(template, prompt)
    yield _prefix(template, prompt)
    yield from _end(template, end_ids)
    yield _round_trip(template)
    yield _history(template)
    yield _system(template)
    yield _tools(template)
    if template.form.opening:
        yield Probe(
            "opening", "note",
            f"every answer begins with {template.form.opening!r}, which is part of the prompt;"
            " other engines must be told not to think",
        )  # fmt: skip
    found = f"the date stands still at {FROZEN_DATE:%Y-%m-%d}" if template.uses_date else "none"
    yield Probe("date", "note" if template.uses_date else "ok", found)


def _bos(template: ChatTemplate, prompt: list[int]) -> Probe:
    bos = template.tokenizer.bos_id
    if bos is None:
        return Probe("bos", "ok", "the tokenizer has none")
    count = prompt.count(bos)
    if count == 1 and prompt[0] == bos:
        return Probe("bos", "ok", "once, at the beginning")
    if count == 0:
        return Probe("bos", "note", "the template writes none, so none is trained or served")
    return Probe("bos", "failed", f"{count} times in a prompt, expected one at the beginning")


def _prefix(template: ChatTemplate, prompt: list[int]) -> Probe:
    """Prompt and answer, read apart, against the whole conversation."""
    trained, num_prompt = template.render_example(_ASKED, _ANSWER)
    if trained[:num_prompt] != prompt:
        return Probe("prompt", "failed", "training reads another prompt than serving")
    said = [*_ASKED, {"role": "assistant", "content": _ANSWER}]
    text = template.render_text(said, add_generation_prompt=False)
    whole = template.tokenizer.encode(text, allow_special=True)
    bos = template.tokenizer.bos_id
    while bos is not None and whole[:2] == [bos, bos]:
        whole = whole[1:]
    body = trained if template.form.is_end_written else trained[:-1]
    if whole[: len(body)] == body:
        return Probe("prompt", "ok", "an answered conversation begins with the served prompt")
    if template.form.tail and whole[: len(body) - 1] == body[:-1]:
        return Probe("prompt", "note", "the template puts space before an answer's end; it is left")
    return Probe(
        "prompt", "failed",
        "the template writes an answered conversation differently than a prompt and its answer;"
        " trained is what is served",
    )  # fmt: skip


def _end(template: ChatTemplate, end_ids: frozenset[int]) -> Iterator[Probe]:
    form, words = template.form, template.tokenizer
    name = words.token_text(form.end_id)
    if form.is_end_written and not form.tail.strip():
        yield Probe("end", "ok", f"{name} ends an answer, and is trained")
    else:
        said = f"{form.tail.strip()!r} and then " if form.is_end_written else "no token, but "
        yield Probe("end", "failed", f"an answer ends with {said}{name}; trained is {name} alone")
    if end_ids and form.end_id not in end_ids:
        yield Probe("stop", "note", f"config.json does not stop at {name}; students do")
    if words.pad_id is not None and words.pad_id == form.end_id:
        yield Probe("pad", "ok", "is the end token, too; rows are padded by length")


def _round_trip(template: ChatTemplate) -> Probe:
    ids, num_prompt = template.render_example(_ASKED, _ANSWER)
    said = template.tokenizer.decode(ids[num_prompt:-1])
    if said != _ANSWER:
        return Probe("round trip", "failed", f"{_ANSWER!r} is trained and then read as {said!r}")
    if dropped_texts(_ASKED, template.render_text(_ASKED)):
        return Probe("round trip", "failed", "the template leaves out what the user asks")
    return Probe("round trip", "ok", "the question is read, the answer comes back")


def _history(template: ChatTemplate) -> Probe:
    try:
        found = template.render(_TALK, _ANSWER, all_turns=True)
    except Ineligible as error:
        return Probe("history", "note", f"a longer conversation is refused: {error.what}")
    if found.dropped:
        return Probe("history", "failed", f"left out: {', '.join(found.dropped)}")
    if found.untrained_turns:
        return Probe("history", "note", "earlier answers are not written as they were served")
    return Probe("history", "ok", "earlier answers stand as they were served")


def _system(template: ChatTemplate) -> Probe:
    asked = [{"role": "system", "content": "Be brief and exact."}, *_ASKED]
    try:
        lost = dropped_texts(asked, template.render_text(asked))
    except Ineligible as error:
        return Probe("system", "note", f"a system message is refused: {error.what}")
    return Probe("system", "failed", "left out") if lost else Probe("system", "ok", "is written")


def _tools(template: ChatTemplate) -> Probe:
    """Tools offered, a call in the history with its result, and a call as the answer."""
    talk: list[Any] = [*_ASKED, _CALL, _RESULT]
    try:
        offered = template.render_text(_ASKED, tools=[_TOOL])
        if "look_up" not in offered:
            return Probe("tools", "note", "the template does not write the tools on offer")
        lost = dropped_texts(talk, template.render_text(talk, tools=[_TOOL]))
        template.render(_ASKED, _CALL, tools=[_TOOL])
    except Ineligible as error:
        return Probe("tools", "note", f"a call of a tool is refused: {error.what}")
    if lost:
        return Probe("tools", "failed", f"left out: {', '.join(lost)}")
    return Probe("tools", "ok", "on offer, called and answered: all is written")
