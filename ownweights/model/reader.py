"""Rendered text as ids: what a template wrote is special, what people wrote never is.

In: text that a chat template made of a conversation whose special strings were hidden. Out: ids,
and where each token stands. Invariants: a special string in a message stays text
(test_render_prompt_keeps_special_strings_plain); where no message holds one, the ids are those of
the whole text at once, as transformers reads it (test_render_prompt_matches_transformers); text
that goes on after a rendered one is read as it would be in one piece, unless a token would reach
across the border: then it is cut there (test_answer_is_cut_where_tokens_would_join).
"""

from __future__ import annotations

import re
from typing import Any

from ownweights.core.errors import Ineligible
from ownweights.model.sandbox import map_texts, texts
from ownweights.model.tokenizer import Span, Tokenizer, split_specials

# Unicode noncharacters: legal in a str, never in anybody's text. One of them hides special strings.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_ANCHOR = "\n"  # joins nothing in vocabularies that write a space before the first word


class Guard:
    """A conversation whose special strings are marked numbers while a template runs, so that those
    which are there afterwards came from the template."""

    def __init__(self, tokenizer: Tokenizer, values: Any) -> None:
        pattern, said = tokenizer.special_pattern, list(texts(values))
        self.is_needed = pattern is not None and any(map(pattern.search, said))
        if pattern is None or not self.is_needed:
            return
        mark = next((mark for mark in _MARKS if not any(mark in text for text in said)), None)
        if mark is None:
            raise Ineligible("messages.content", "every Unicode noncharacter is used in it")
        self._pattern, self._mark = pattern, mark
        self._names = list(tokenizer.special_ids)
        self._hidden = re.compile(f"{mark}([0-9]+){mark}")

    def hide(self, value: Any) -> Any:
        """A JSON value with every special string in it hidden."""
        return map_texts(value, self._hide) if self.is_needed else value

    def show(self, text: str) -> str:
        """Text as it was before it was hidden."""
        if not self.is_needed:
            return text
        return self._hidden.sub(lambda found: self._names[int(found.group(1))], text)

    def _hide(self, text: str) -> str:
        mark, names = self._mark, self._names
        return self._pattern.sub(lambda m: f"{mark}{names.index(m.group())}{mark}", text)


class Reader:
    """Reads rendered text with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._prefixes_first_only = False  # a text's first word is spelled apart, no other is
        name = next((n for n, i in tokenizer.special_ids.items() if not tokenizer.added[i].lstrip
                     and not tokenizer.added[i].single_word), None)  # fmt: skip
        if name is not None:
            after = tokenizer.encode(f"{name}a", allow_special=True)[1:]
            self._prefixes_first_only = after != tokenizer.encode("a")

    def whole(self, text: str, guard: Guard) -> tuple[list[int], list[Span]]:
        """Ids of a rendered text, and where they stand in it, as it is shown."""
        if not guard.is_needed:
            return self.tokenizer.encode_spans(text, allow_special=True)
        ids: list[int] = []
        spans: list[Span] = []
        seen = at = 0
        for stretch in split_specials(self.tokenizer, text):
            at, seen = at + len(guard.show(text[seen : stretch.start])), stretch.start
            if stretch.special_id is not None:
                ids.append(stretch.special_id)
                spans.append(Span(at, at + len(stretch.text)))
                continue
            more, where = self._plain(guard.show(stretch.text), is_first=not ids)
            ids += more
            spans += [Span(at + span.start, at + span.end) for span in where]
        return ids, spans

    def after(self, before: str, text: str, guard: Guard) -> list[int]:
        """Ids of plain text that goes on where a rendered text ends."""
        *_, last = split_specials(self.tokenizer, before)
        is_first, tail = last.start == 0, guard.show(last.text)
        known, _ = self._plain(tail, is_first=is_first)
        both, _ = self._plain(tail + text, is_first=is_first)
        if both[: len(known)] == known:
            return both[len(known) :]
        return self._plain(text, is_first=False)[0]

    def after_rendered(self, before: str, text: str, guard: Guard) -> list[int]:
        """Ids of rendered text that goes on where another ends."""
        ids: list[int] = []
        for index, stretch in enumerate(split_specials(self.tokenizer, text)):
            if stretch.special_id is not None:
                ids.append(stretch.special_id)
            elif index == 0:
                ids += self.after(before, guard.show(stretch.text), guard)
            else:
                ids += self._plain(guard.show(stretch.text), is_first=False)[0]
        return ids

    def _plain(self, text: str, *, is_first: bool) -> tuple[list[int], list[Span]]:
        """Ids of text without special tokens, at the beginning or after one."""
        if not text:
            return [], []
        if is_first or not self._prefixes_first_only:
            return self.tokenizer.encode_spans(text)
        known = len(self.tokenizer.encode(_ANCHOR))
        ids, spans = self.tokenizer.encode_spans(_ANCHOR + text)
        if ids[:known] != self.tokenizer.encode(_ANCHOR):
            return self.tokenizer.encode_spans(text)
        shift = len(_ANCHOR)
        return ids[known:], [Span(s.start - shift, s.end - shift) for s in spans[known:]]
