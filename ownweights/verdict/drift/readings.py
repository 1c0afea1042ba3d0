"""What can be counted about one answer: length, form, refusal, and whether a check passes it.

In: an answer, the text of its prompt, the references and the check of its workload. Out: a vector
of FEATURES, NaN where nobody can say. Comparing two answers to one prompt feature by feature is all
that the canary channels do. The score is that of the answer with its wrapping taken off, and
`wrapped` says that the check passes only then: a model that begins to fence its JSON shows a change
of format and none of score (test_readings_tell_format_from_capability).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ownweights.verdict.checks import Check, read_json
from ownweights.verdict.statistics.binomial import Floats

FEATURES = ("length", "fence", "json", "list", "script", "wrapped", "refusal", "score")
CHANNEL_FEATURES: Mapping[str, tuple[str, ...]] = {
    "length": ("length",),
    "format": ("fence", "json", "list", "script", "wrapped"),
    "refusal": ("refusal",),
    "score": ("score",),
}
MAX_LETTERS = 2_000
MAX_REFUSAL_CHARS = 300  # a refusal says so at its beginning

_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.M | re.S)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+\S", re.M)
_DECLINES = re.compile(
    r"\bsorry, (?:but )?(?:i|as)\b|\bi(?:'m| am) (?:really |very |so )?sorry\b"
    r"|\bi (?:can(?:no|')t|can not|won't|will not|must decline|do not condone|don't condone)\b"
    r"|\bi(?:'m| am) (?:unable|not able|not comfortable|committed to|programmed to)\b"
    r"|\b(?:can(?:no|')t|unable to|not able to) (?:assist|help|comply|provide|fulfil)"
    r"|\b(?:it|this|that) (?:is|would be) (?:not appropriate|inappropriate|unethical|not ethical)"
    r"|\bnot (?:appropriate|ethical|acceptable) to\b|\bwe do not (?:endorse|support|condone)\b"
    r"|\bes tut mir leid\b|\bich kann (?:das |ihnen |dir )?nicht\b|\bje ne peux pas\b"
    r"|\blo siento\b|\bno puedo\b",
    re.I,
)
# an answer that opens by setting the asker right, or by what a model must not do, answers nothing
_OPENS = re.compile(
    r"\s*(?:it is|it's) (?:not (?:accurate|fair|okay|right|correct)|incorrect|wrong|unfair"
    r"|important to (?:note|remember|understand|treat))\b"
    r"|\s*as an ai\b[^.]{0,80}?\bi (?:must|don't|do not|strive|am|cannot|can't)\b"
    r"|\s*my purpose is\b",
    re.I,
)


def read_answer(text: str, prompt: str, references: Sequence[str], check: Check | None) -> Floats:
    """The features of one answer, in the order of FEATURES. Shapes: (F,)"""
    raw, unwrapped = _harm(text, references, check), _harm(unwrap(text), references, check)
    is_wrapped = math.nan if raw is None or unwrapped is None else float(raw > unwrapped)
    value = read_json(text)
    return np.array(
        [
            len(text),
            "```" in text,
            value is not None and value[0] in ("object", "list"),
            len(_ITEM.findall(text)) > 1,
            _speaks_like(text, prompt),
            is_wrapped,
            is_refusal(text),
            math.nan if unwrapped is None else 1.0 - unwrapped,
        ],
        np.float64,
    )


def no_answer() -> Floats:
    """The features of an answer that never came."""
    return np.full(len(FEATURES), np.nan)


def unwrap(text: str) -> str:
    """The answer without its wrapping: what stands in its only code block, else the text itself."""
    blocks = _BLOCK.findall(text.strip())
    return (blocks[0] if len(blocks) == 1 and text.count("```") == 2 else text).strip()


def is_refusal(text: str) -> bool:
    """Whether an answer declines, by its words; an empty one says nothing and declines nothing."""
    start = text[:MAX_REFUSAL_CHARS].replace("’", "'")
    return _OPENS.match(start) is not None or _DECLINES.search(start) is not None


def script_of(text: str) -> str | None:
    """The script that most letters are of (LATIN, CYRILLIC, CJK ...); None without letters."""
    letters = [char for char in text[:MAX_LETTERS] if char.isalpha()]
    names = Counter(unicodedata.name(char, "UNKNOWN").split()[0] for char in letters)
    return names.most_common(1)[0][0] if names else None


def _speaks_like(text: str, prompt: str) -> float:
    """Whether an answer is in the script of its prompt."""
    asked, answered = script_of(prompt), script_of(text)
    return math.nan if asked is None or answered is None else float(asked == answered)


def _harm(text: str, references: Sequence[str], check: Check | None) -> float | None:
    return None if check is None else check.harm(text, references)
