"""Text as it reads: full-width forms in ASCII, and without characters that nobody sees.

In: a text. Out: the same text with a character for each, and the text that is left where invisible
characters stand between visible ones, with the place of each of its characters. Invariant: no
spelling hides a value (test_spelling_hides_no_value).
"""

from __future__ import annotations

import re

_WIDE = {0xFF01 + place: 0x21 + place for place in range(94)} | {0x3000: 32, 0x2212: 45}
_IS_WIDE = re.compile("[\uff01-\uff5e\u3000\u2212]")
_UNSEEN = re.compile(
    "(?<=[!-~])[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]+"
    "(?=[!-~])"
)


def narrow(text: str) -> str:
    """The text with ASCII for full-width forms, character for character."""
    return text if text.isascii() or not _IS_WIDE.search(text) else text.translate(_WIDE)


def seen(text: str) -> tuple[str, list[int]] | None:
    """What is seen of a text, and where each character stood; None where all of it is."""
    if text.isascii() or not _UNSEEN.search(text):
        return None
    places: list[int] = []
    after = 0
    for match in _UNSEEN.finditer(text):
        places += range(after, match.start())
        after = match.end()
    places += range(after, len(text))
    return "".join(map(text.__getitem__, places)), places


def as_read(text: str) -> str:
    """The text in narrow forms, with nothing unseen."""
    text = narrow(text)
    told = seen(text)
    return text if told is None else told[0]
