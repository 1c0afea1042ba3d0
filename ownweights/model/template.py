"""A conversation as token ids: the checkpoint's own chat template, for training and for serving.

In: a hub folder's template (chat_template.jinja, or `chat_template` in tokenizer_config.json, and
additional_chat_templates/) and messages. Out: ids, and which of them are trained.
Invariants:

- what is trained is what is served: ids of the prompt + ids of the answer + the end-of-turn id,
  never tokenised again across a boundary (test_render_example_starts_with_the_served_prompt);
- what is trained follows from where rendered segments stand, never from a search for ids
  (test_every_turn_is_trained_as_transformers_marks_it);
- a special string in a message stays text (test_render_prompt_keeps_special_strings_plain);
- otherwise the ids are transformers' (test_render_prompt_matches_transformers,
  test_format_matches_transformers), with at most one BOS.

Templates that can write down reasoning are told not to ask for any (`enable_thinking` is false):
what is recorded are answers. What a template writes before every answer, an empty thought say,
belongs to the prompt (test_what_opens_every_answer_is_served_not_trained).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.errors import Ineligible, ModelError
from ownweights.model.reader import Guard, Reader
from ownweights.model.sandbox import SandboxedTemplate, plain, texts
from ownweights.model.tokenizer import Span, Tokenizer, split_specials

_PROBE_USER, _PROBE_ANSWER = "question", "answer"
_NO_TEMPLATE = "take the chat-tuned variant of this model, or add a chat_template.jinja"
_MORE_TEMPLATES = "additional_chat_templates"
Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How a template writes an answer: `opening`, `lead`, the answer, `tail`, the end token.

    `opening` says something and is part of the prompt; `lead` is a space that decoding takes away
    again. `is_end_written` says whether the end token is the template's or the tokenizer's EOS, and
    `continues` whether an answered conversation goes on where the prompt ends.
    """

    end_id: int
    opening: str = ""
    lead: str = ""
    tail: str = ""
    is_end_written: bool = False
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """An example as ids: the first `num_prompt` are only read, but where `mask` says otherwise.

    `untrained_turns` are the earlier assistant messages (by index) that could not be marked in
    these ids, and `dropped` the messages whose text the template left out.
    """

    ids: list[int]
    num_prompt: int
    mask: list[bool] | None = None
    untrained_turns: tuple[int, ...] = ()
    dropped: tuple[str, ...] = ()


class ChatTemplate:
    """Renders conversations for one checkpoint."""

    def __init__(
        self, tokenizer: Tokenizer, source: str, *, tool_source: str | None = None
    ) -> None:
        """`tool_source` is the template for requests that offer tools, where that is another."""
        self.tokenizer = tokenizer
        self.source = source
        self._reader = Reader(tokenizer)
        self._plain = SandboxedTemplate(source)
        self._tools = self._plain if tool_source is None else SandboxedTemplate(tool_source)
        self._names = tokenizer.special_texts()
        self.form = self._find_form()

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
        """The chat template of the checkpoint in `folder`."""
        try:
            sources = _read_sources(folder, tokenizer.config)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder}: the chat template cannot be read: {error!r}") from None
        if not isinstance(sources.get("default"), str):
            raise ModelError(f"{folder} has no chat template", hint=_NO_TEMPLATE)
        return cls(tokenizer, sources["default"], tool_source=sources.get("tool_use"))

    @property
    def end_id(self) -> int:
        """The token that ends an answer: the template's; where it writes none, the EOS."""
        return self.form.end_id

    @property
    def uses_date(self) -> bool:
        """Whether a rendering asked for the date, which stands still."""
        return self._plain.uses_date or self._tools.uses_date

    def render_text(
        self, messages: Messages, *, add_generation_prompt: bool = True, tools: Tools = None
    ) -> str:
        """The text that the template makes of the messages.

        Raises: Ineligible when the template refuses the messages
        """
        asked = [plain_message(message) for message in messages]
        return self._render(asked, plain(tools), add_generation_prompt)

    def render_prompt(self, messages: Messages, *, tools: Tools = None) -> list[int]:
        """Ids of the conversation up to where the assistant begins to speak."""
        asked, offered = [plain_message(message) for message in messages], plain(tools)
        guard = Guard(self.tokenizer, [asked, offered])
        prompt = self._prompt_text(asked, offered, guard)
        return self._read_prompt(prompt, guard)[0]

    def render_example(self, messages: Messages, answer: str) -> tuple[list[int], int]:
        """Ids to train on, and how many of them are the prompt (no loss there)."""
        rendering = self.render(messages, answer)
        return rendering.ids, rendering.num_prompt

    def render(
        self, messages: Messages, answer: str | Mapping[str, Any], *, tools: Tools = None,
        all_turns: bool = False,
    ) -> Rendering:  # fmt: skip
        """A conversation and its answer (text, or a whole message that may call tools) as ids.

        `all_turns` trains every answer in the conversation, too.
        Raises: Ineligible when the template refuses the messages, or the answer's form
        """
        asked, offered = [plain_message(message) for message in messages], plain(tools)
        guard = Guard(self.tokenizer, [asked, offered])
        prompt = self._prompt_text(asked, offered, guard)
        ids, spans = self._read_prompt(prompt, guard)
        if isinstance(answer, str):
            learned = self._read_answer(prompt, answer, guard)
        else:
            learned = self._read_message(asked, plain_message(answer), offered)
        mask: list[bool] | None = None
        left: tuple[int, ...] = ()
        if all_turns:
            turns, left = self._find_turns(asked, prompt, offered, guard)
            mask = [_is_within(span, turns) for span in spans] + [True] * len(learned)
        lost = tuple(dropped_texts(asked, guard.show(prompt)))
        return Rendering([*ids, *learned], len(ids), mask, left, lost)

    def _render(self, asked: list[Any], tools: Any, add_generation_prompt: bool) -> str:
        chosen = self._tools if tools else self._plain
        return chosen.render(
            messages=asked, tools=tools or None, documents=None, enable_thinking=False,
            add_generation_prompt=add_generation_prompt, **self._names,
        )  # fmt: skip

    def _prompt_text(self, asked: list[Any], tools: Any, guard: Guard) -> str:
        """Up to where the answer begins, special strings hidden."""
        return self._render(guard.hide(asked), guard.hide(tools), True) + self.form.opening

    def _read_prompt(self, prompt: str, guard: Guard) -> tuple[list[int], list[Span]]:
        ids, spans = self._reader.whole(prompt, guard)
        bos, extra = self.tokenizer.bos_id, 0
        while bos is not None and ids[extra : extra + 2] == [bos, bos]:
            extra += 1
        return ids[extra:], spans[extra:]

    def _read_answer(self, prompt: str, answer: str, guard: Guard) -> list[int]:
        learned = self._reader.after(prompt, self.form.lead + answer, guard) if answer else []
        return [*learned, self.end_id]

    def _read_message(self, asked: list[Any], answer: Any, tools: Any) -> list[int]:
        """Ids of an answer that is a whole message, as the template writes it."""
        guard = Guard(self.tokenizer, [asked, tools, answer])
        prompt = self._prompt_text(asked, tools, guard)
        whole = self._render(guard.hide([*asked, answer]), guard.hide(tools), False)
        said = self._cut_end(whole[len(prompt) :]) if whole.startswith(prompt) else None
        if said is None:
            raise Ineligible(
                "messages.tool_calls", "the chat template does not write it where an answer begins"
            )
        if dropped_texts([answer], guard.show(said)):
            raise Ineligible("messages.tool_calls", "the chat template leaves out what it says")
        ids = self._reader.after_rendered(prompt, said, guard)
        return ids if self.form.is_end_written else [*ids, self.end_id]

    def _find_turns(
        self, asked: list[Any], prompt: str, tools: Any, guard: Guard
    ) -> tuple[list[Span], tuple[int, ...]]:
        """Where the earlier answers stand in a prompt, each with its end; and those that do not
        stand where serving would have begun them."""
        turns: list[Span] = []
        left: list[int] = []
        for index, message in enumerate(asked):
            if message.get("role") != "assistant":
                continue
            found = self._find_turn(asked[: index + 1], prompt, tools, guard)
            if found is None:
                left.append(index)
            else:
                turns.append(found)
        return turns, tuple(left)

    def _find_turn(self, asked: list[Any], prompt: str, tools: Any, guard: Guard) -> Span | None:
        try:
            before = self._prompt_text(asked[:-1], tools, guard)
            after = self._render(guard.hide(asked), guard.hide(tools), False)
        except Ineligible:
            return None
        is_whole = self.form.is_end_written and after.startswith(before)
        said = self._cut_end(after[len(before) :]) if is_whole else None
        if said is None or not prompt.startswith(before + said):
            return None
        return Span(len(guard.show(before)), len(guard.show(before + said)))

    def _cut_end(self, said: str) -> str | None:
        """What follows a prompt, up to the token that ends the turn; None when nothing ends it.

        A turn that ends another way (a call to a tool, say) goes up to its last special token.
        """
        if not self.form.is_end_written:
            return said.rstrip()
        ends: dict[int, int] = {}
        for stretch in split_specials(self.tokenizer, said):
            if stretch.special_id is not None:
                ends.setdefault(stretch.special_id, stretch.start + len(stretch.text))
        if self.end_id not in self.tokenizer.special_ids.values():
            text = self.tokenizer.token_text(self.end_id)
            at = said.find(text) if text else -1
            return None if at < 0 else said[: at + len(text)]
        at = ends.get(self.end_id, max(ends.values(), default=0))
        return said[:at] if at else None

    def _find_form(self) -> AnswerForm:
        """How answers are written, by looking at one."""
        asked = [{"role": "user", "content": _PROBE_USER}]
        said = [*asked, {"role": "assistant", "content": _PROBE_ANSWER}]
        try:
            prompt, whole = self._render(asked, None, True), self._render(said, None, False)
        except Ineligible:
            prompt = whole = ""
        before, found, after = whole.rpartition(_PROBE_ANSWER)
        end_id, tail, is_written = self._find_end(after if found else "")
        continues = bool(found) and before.startswith(prompt)
        between = before[len(prompt) :] if continues else ""
        form = AnswerForm(end_id, "", "", tail, is_written, continues)
        if between.strip():
            return AnswerForm(end_id, between, "", tail, is_written, continues)
        guard = Guard(self.tokenizer, [])
        ids = self._reader.after(prompt, between + _PROBE_ANSWER, guard)
        if between and self.tokenizer.decode(ids) == _PROBE_ANSWER:
            return AnswerForm(end_id, "", between, tail, is_written, continues)
        return form

    def _find_end(self, after: str) -> tuple[int, str, bool]:
        """The end token, what stands before it, and whether the template writes it: the first
        special token after an answer, else the first added one, else the tokenizer's EOS."""
        for stretch in split_specials(self.tokenizer, after):
            if stretch.special_id is not None:
                return stretch.special_id, after[: stretch.start], True
        added = ((after.find(t.content), id_) for id_, t in self.tokenizer.added.items())
        at, id_ = min(((at, id_) for at, id_ in added if at >= 0), default=(-1, -1))
        if at >= 0:
            return id_, after[:at], True
        if self.tokenizer.eos_id is None:
            raise ModelError("neither the chat template nor the tokenizer names an end token")
        return self.tokenizer.eos_id, after, False


def plain_message(message: Mapping[str, Any]) -> Any:
    """A message as templates expect it: JSON values, text in one piece, arguments as objects."""
    made = plain(message)
    content = made.get("content")
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        made["content"] = "".join(part["text"] for part in content)
    calls = made.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            function["arguments"] = _arguments(function["arguments"])
    return made


def dropped_texts(messages: Sequence[Mapping[str, Any]], shown: str) -> list[str]:
    """The parts of messages whose text does not occur in what a template made of them.

    Surrounding whitespace does not count, and JSON's spelling of a text is that text.
    """
    lost: list[str] = []
    for index, message in enumerate(messages):
        for name in ("content", "reasoning_content", "tool_calls"):
            said = [one for one in texts(_values(message.get(name))) if one.strip()]
            if not all(_occurs(text.strip(), shown) for text in said):
                lost.append(f"messages[{index}].{name}")
    return lost


def _values(value: Any) -> Any:
    """What is said in a field: of tool calls the functions' names and arguments."""
    if not isinstance(value, list):
        return value
    calls = [part.get("function") for part in value if isinstance(part, dict)]
    return [[call.get("name"), call.get("arguments")] for call in calls if isinstance(call, dict)]


def _occurs(text: str, shown: str) -> bool:
    if text in shown or json.dumps(text, ensure_ascii=False)[1:-1] in shown:
        return True
    return json.dumps(text)[1:-1] in shown


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _arguments(text: str) -> Any:
    """The arguments of a call as an object, which templates write as JSON; else as they are."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _is_within(token: Span, turns: Sequence[Span]) -> bool:
    """Whether a token begins within a turn. One that reaches in from before is the prompt's; an end
    token may take the space after it along."""
    return any(t.start <= token.start < t.end and token.end > t.start for t in turns)


def _read_sources(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The templates of a folder by name; those of files come before those of the config."""
    path, more = folder / "chat_template.jinja", folder / _MORE_TEMPLATES
    found: Any = config.get("chat_template")
    if path.is_file():
        found = path.read_text("utf-8")
    if isinstance(found, list):  # several named templates
        found = {entry["name"]: entry["template"] for entry in found}
    sources: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {"default": found}
    if more.is_dir():
        sources |= {one.stem: one.read_text("utf-8") for one in sorted(more.glob("*.jinja"))}
    return sources
