"""How `own serve` writes its log: one line a record, text or JSON, and never more than one.

In: log records of ours, among them requests that were answered. Out: lines. Invariants: whatever
is in a message stays within its line (test_logs_hostile_words_stay_in_their_line); both forms say
the same facts (test_logs_json_says_what_text_says).
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

# what ends a line somewhere, or moves a terminal's cursor
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Told:
    """Facts that are also a line of text."""

    __slots__ = ("facts", "line")

    def __init__(self, line: str, facts: Mapping[str, Any]) -> None:
        self.line, self.facts = line, facts

    def __str__(self) -> str:
        return self.line


def one_line(text: str) -> str:
    """A text with whatever would end the line spelled out."""
    text = text.replace("\nhint: ", "; hint: ")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class TextLines(logging.Formatter):
    """The time, then the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return one_line(f"{self.formatTime(record, self.datefmt)} {record.getMessage()}")


class JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, and the message or its facts."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        told = record.args[0] if isinstance(record.args, tuple) and len(record.args) == 1 else None
        if isinstance(told, Told):
            return json.dumps({**said, "event": "request", **told.facts})
        if record.exc_info and record.exc_info[0] is not None:
            said["error"] = record.exc_info[0].__name__  # what it says may be content
        return json.dumps({**said, "event": "log", "message": record.getMessage()})


def formatter_of(form: str) -> logging.Formatter:
    """The formatter of a form: text or json."""
    return JsonLines() if form == "json" else TextLines()
