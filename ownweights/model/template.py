"""A conversation as token ids: the checkpoint's own chat template, for training and for serving.

In: a hub folder's template (chat_template.jinja, or `chat_template` in tokenizer_config.json) and
messages. Out: ids. Invariants:

- what is trained is what is served: ids(prompt) + ids(answer) + the end-of-turn id, never tokenised
  again across a boundary (test_render_example_starts_with_the_served_prompt);
- a special string in a message stays text (test_render_prompt_keeps_special_strings_plain);
- otherwise the ids are transformers' (test_render_prompt_matches_transformers), with at most one
  BOS.

The template is untrusted code: it runs in jinja2's immutable sandbox, with the globals and filters
that transformers gives it, and sees plain JSON values only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ownweights.core.errors import Ineligible, ModelError
from ownweights.model.tokenizer import Tokenizer, special_pattern, split_specials

# Unicode noncharacters: legal in a str, never in anybody's text. One of them hides special strings.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_PROBE_USER, _PROBE_ANSWER = "question", "answer"


class ChatTemplate:
    """Renders conversations for one checkpoint."""

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self._specials = special_pattern(tokenizer)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template does not compile: {error}") from None
        self._texts = {
            name: text for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (text := tokenizer.special_text(name)) is not None
        }  # fmt: skip
        self.end_id = self._find_end()

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
        """The chat template of the checkpoint in `folder`."""
        path = folder / "chat_template.jinja"
        try:
            source = (
                path.read_text("utf-8") if path.is_file() else tokenizer.config.get("chat_template")
            )
            if isinstance(source, list):  # several named templates
                source = {entry["name"]: entry["template"] for entry in source}.get("default")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder}: the chat template cannot be read: {error!r}") from None
        if not isinstance(source, str):
            raise ModelError(
                f"{folder} has no chat template",
                hint="take the chat-tuned variant of this model, or add a chat_template.jinja",
            )
        return cls(tokenizer, source)

    def render_text(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """The text that the template makes of the messages.

        Raises: Ineligible when the template refuses the messages
        """
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages], tools=None, documents=None,
                add_generation_prompt=add_generation_prompt, **self._texts,
            )  # fmt: skip
        except (jinja2.TemplateError, TypeError) as error:
            raise Ineligible("messages", f"the chat template refuses them: {error}") from None

    def render_prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of the conversation up to where the assistant begins to speak."""
        specials = self._specials
        if specials is None or not any(map(specials.search, _texts(list(messages)))):
            ids = self.tokenizer.encode(self.render_text(messages), allow_special=True)
        else:
            ids = self._render_guarded(messages)
        return self._single_bos(ids)

    def render_example(
        self, messages: Sequence[Mapping[str, Any]], answer: str
    ) -> tuple[list[int], int]:
        """Ids to train on, and how many of them are the prompt (no loss there)."""
        prompt = self.render_prompt(messages)
        return [*prompt, *self.tokenizer.encode(answer), self.end_id], len(prompt)

    def _render_guarded(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """As `render_prompt`, where messages hold special strings: a marked number stands for each
        while the template runs, so that those which are there afterwards came from the template."""
        assert self._specials is not None, "guarded rendering is for vocabularies with specials"
        said = "".join(_texts(list(messages)))
        mark = next((mark for mark in _MARKS if mark not in said), None)
        if mark is None:
            raise Ineligible("messages.content", "every Unicode noncharacter is used in it")
        names = list(self.tokenizer.special_ids)
        pattern, hidden = self._specials, re.compile(f"{mark}([0-9]+){mark}")

        def hide(text: str) -> str:
            return pattern.sub(lambda m: f"{mark}{names.index(m.group())}{mark}", text)

        ids: list[int] = []
        text = self.render_text([_map_texts(message, hide) for message in messages])
        for stretch, special_id in split_specials(self.tokenizer, text):
            plain = hidden.sub(lambda m: names[int(m.group(1))], stretch)
            ids += self.tokenizer.encode(plain) if special_id is None else [special_id]
        return ids

    def _single_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_id
        while len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
            ids = ids[1:]
        return ids

    def _find_end(self) -> int:
        """The special token that the template puts after an answer; else the tokenizer's EOS."""
        turn = [
            {"role": "user", "content": _PROBE_USER},
            {"role": "assistant", "content": _PROBE_ANSWER},
        ]
        try:
            text = self.render_text(turn, add_generation_prompt=False)
        except Ineligible:
            text = ""
        after = text.rpartition(_PROBE_ANSWER)[2] if _PROBE_ANSWER in text else ""
        for _, special_id in split_specials(self.tokenizer, after):
            if special_id is not None:
                return special_id
        if self.tokenizer.eos_id is None:
            raise ModelError("neither the chat template nor the tokenizer names an end token")
        return self.tokenizer.eos_id


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _GenerationBlock],
    )
    environment.filters["tojson"] = _to_json
    names = cast("dict[str, Any]", environment.globals)
    names.update(raise_exception=_raise_exception, strftime_now=_now)
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}` marks what the assistant said, unchanged."""

    tags = {"generation"}  # noqa: RUF012  # jinja's own attribute

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja's own filter would escape HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _plain(value: Any) -> Any:
    """JSON values only, copied: objects with methods have no business in a template."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Ineligible("messages", f"a message holds a {type(value).__name__}, not a JSON value")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    return value
