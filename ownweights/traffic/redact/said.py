"""What the words before a number say it is."""

from __future__ import annotations

import re

WINDOW_CHARS = 40
JOINT = "\0"  # between texts that are searched as one
KEY_JOINT = "\1"  # between a key in JSON and its value


def said_before(text: str, start: int, words: re.Pattern[str]) -> re.Match[str] | None:
    """The last such word within 40 characters before `start`, in the same text or as its key."""
    before = text[max(0, start - WINDOW_CHARS) : start].rsplit(JOINT, 1)[-1]
    found = None
    for match in words.finditer(before):
        found = match
    return found
