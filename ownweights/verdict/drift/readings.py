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
_REFUSALS = re.compile(
    r"\b(?:i(?: am|'m)? (?:really |very |so )?sorry\b|sorry, (?:but )?i\b"
    r"|i (?:can(?:no|')t|can not|won'?t|will not|must decline|am unable|am not able|do not condone)"
    r"|i(?:'m| am) (?:unable|not able|not comfortable)"
    r"|(?:it|this|that) (?:is|would be) (?:not appropriate|inappropriate|unethical|not ethical)"
    r"|not (?:appropriate|ethical|acceptable) to|against (?:my|our|ethical|openai)"
    r"|as an ai(?: language)? model, (?:i|my)|inappropriate (?:and|or) (?:offensive|unethical)"
    r"|can(?:no|')t (?:assist|help|comply|provide|fulfil)"
    r"|es tut mir leid|ich kann (?:das |ihnen |dir )?nicht|je suis désolée?|je ne peux pas"
    r"|lo siento|no puedo)",
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
    return _REFUSALS.search(text[:MAX_REFUSAL_CHARS].replace("’", "'")) is not None


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
