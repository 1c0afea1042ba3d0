"""What the words before a number say it is."""

from __future__ import annotations

import re

WINDOW_CHARS = 40
JOINT = "\0"  # between texts that are searched as one


def said_before(text: str, start: int, words: re.Pattern[str]) -> re.Match[str] | None:
    """The last such word within 40 characters before `start`, in the same text or as its key.

    A value right after its key in JSON follows it across one joint.
    """
    before = text[max(0, start - WINDOW_CHARS) : start]
    if JOINT in before:
        is_first = before.endswith(JOINT)
        before = (before[:-1] if is_first else before).rsplit(JOINT, 1)[-1]
    found = None
    for match in words.finditer(before):
        found = match
    return found
