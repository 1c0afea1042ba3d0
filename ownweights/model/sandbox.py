"""Where chat templates run: code of strangers, in jinja2's immutable sandbox.

In: a template's source and plain JSON values. Out: text. The template sees the globals, filters and
options that transformers gives it, with one difference: the date stands still, for a student must
read tomorrow what it reads today (test_template_knows_one_date_only). Nothing that reaches it has
methods of its own (test_template_cannot_leave_its_sandbox, test_template_sees_json_values_only).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ownweights.core.errors import Ineligible, ModelError
from ownweights.model.tokenizer import readable

FROZEN_DATE = datetime(2024, 7, 26)  # what Llama's own templates say where nothing tells the date


class SandboxedTemplate:
    """One compiled template. `uses_date` is true once a rendering asked for the date."""

    def __init__(self, source: str) -> None:
        self.uses_date = False
        try:
            self._template = _environment(self._now).from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template does not compile: {error}") from None

    def render(self, **values: Any) -> str:
        """The text that the template makes of plain values.

        Raises: Ineligible when the template refuses them
        """
        try:
            return self._template.render(**values)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise Ineligible("messages", f"the chat template refuses them: {error}") from None

    def _now(self, form: str) -> str:
        self.uses_date = True
        return FROZEN_DATE.strftime(form)


def plain(value: Any) -> Any:
    """JSON values only, copied: objects with methods have no business in a template."""
    if isinstance(value, Mapping):
        return {readable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return readable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise Ineligible("messages", f"a message holds a {type(value).__name__}, not a JSON value")


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(item, change) for item in value]
    return value


def _environment(now: Callable[[str], str]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _GenerationBlock],
    )
    environment.filters["tojson"] = _to_json
    names = cast("dict[str, Any]", environment.globals)
    names.update(raise_exception=_raise_exception, strftime_now=now)
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


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
