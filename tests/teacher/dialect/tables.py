"""The tables of docs/concepts/dialects.md, written from the code's own data.

`python -m tests.teacher.dialect.tables` writes them into the page again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ownweights.teacher.dialect import chat_fields, messages_fields
from ownweights.teacher.dialect.fields import Field, Table
from tests.meta.tree import ROOT

PAGE = ROOT / "docs" / "concepts" / "dialects.md"
BEGIN, END = "<!-- the tables begin -->\n", "<!-- the tables end -->\n"
CHAT_TYPES = {
    "content part": chat_fields.CHAT_PARTS,
    "tool": chat_fields.CHAT_TOOLS,
    "tool_choice": chat_fields.CHAT_CHOICES,
    "response_format": chat_fields.CHAT_FORMATS,
}
MESSAGES_TYPES = {
    "block of a user's turn": messages_fields.USER_BLOCKS,
    "block of an assistant's turn": messages_fields.ASSISTANT_BLOCKS,
    "block of a tool's result": messages_fields.RESULT_BLOCKS,
    "source of an image": messages_fields.IMAGE_SOURCES,
    "source of a document": messages_fields.DOCUMENT_SOURCES,
    "thinking": messages_fields.THINKING,
}


def page_tables() -> str:
    """Both tables, as they stand in the page."""
    lines = [
        *_section("A chat request for a Messages teacher", chat_fields.CHAT, CHAT_TYPES),
        *_section("A Messages request for a chat teacher", messages_fields.MESSAGES,
                  MESSAGES_TYPES),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _section(title: str, table: Table, types: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| where | field | what becomes of it |", "|---|---|---|")
    for kind, known in table.items():
        for field in known.fields.values():
            yield f"| {kind} | `{field.name}` | {_fate(field)} |"
    for kind, words in types.items():
        for word, why in words.items():
            if why:
                yield f"| {kind} | type `{word}` | refused: {why} |"


def _fate(field: Field) -> str:
    same = " or ".join(f"`{_spelled(value)}`" for value in field.same)
    if field.verdict == "hint":
        return f"left out: {field.becomes}"
    if field.verdict == "refused":
        return f"refused{f', but for {same}' if same else ''}: {field.becomes}"
    return field.becomes + (f"; {same} says nothing" if same else "")


def _spelled(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def main() -> None:
    """Write the tables into the page."""
    text = PAGE.read_text("utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + BEGIN + page_tables() + END + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
