"""Code as models write it down: bare, or in one Markdown fence around the whole answer."""

from __future__ import annotations

import re

_FENCED = re.compile(r"\s*(`{3,})[^\n`]*\n(.*?)\n?\1\s*", re.S)


def unfenced(text: str) -> str:
    """What stands inside a fence around the whole text; any other text as it is."""
    found = _FENCED.fullmatch(text)
    return found[2] if found and found[1] not in found[2] else text
