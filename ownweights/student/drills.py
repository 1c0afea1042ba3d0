"""Copying exercises made from plain sentences, so that a small base learns to copy names exactly.

In: a sentence and a random generator. Out: a (question, answer) pair whose answer is fully
determined by the question (test_make_drill_answer_always_follows_from_the_question): bracketed
spans named by labels, spans after cue words, the words between two others, words with a capital,
the word next to another, the whole sentence. Some words are replaced by made-up ones, since names
are what no vocabulary holds. No answer of any workload is used as a pattern.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

_ONSETS = (
    "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p",
    "pr", "qu", "r", "s", "sh", "st", "t", "th", "tr", "v", "w", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ie", "oo", "ou", "y")
_CODAS = ("", "", "", "n", "r", "s", "l", "ck", "nd", "rt", "m", "x", "sk", "ng")
_LABELS = (
    "a", "b", "c", "d", "e", "name", "title", "place", "time", "number", "kind", "object", "person",
    "city", "date", "list", "item", "topic", "first_part", "second_part", "short_name", "full_name",
    "place_name", "item_type", "part_of_text", "time_range",
)  # fmt: skip
_STRIPPED = "“”‘’\"'()[]{},.;:!?—_*|<>…^$"  # what separates the parts of a question is in no word
_CUES = {
    "called": "name", "by": "maker", "at": "place", "near": "near", "for": "purpose", "on": "day",
    "from": "origin", "to": "goal", "with": "company", "about": "topic",
}  # fmt: skip
MADE_UP_FRAC, SHUFFLED_FRAC, LOWER_FRAC = 0.2, 0.5, 0.5
Drill = tuple[str, str]


def made_up_word(rng: random.Random) -> str:
    """A pronounceable word that no dictionary holds, often with a capital."""
    word = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.randint(1, 3))
    )
    return word.capitalize() if rng.random() < 0.5 else word


def make_drill(sentence: str, rng: random.Random) -> Drill:
    """One exercise over the words of a sentence."""
    words = sentence.split()[: rng.randint(4, 18)]
    words = [made_up_word(rng) if rng.random() < MADE_UP_FRAC else _clean(word) for word in words]
    words = [word for word in words if word] or ["nothing"]
    if rng.random() < SHUFFLED_FRAC:  # then only the question tells what comes next
        rng.shuffle(words)
    if rng.random() < LOWER_FRAC:
        words = [word.lower() for word in words]
    maker: Callable[[list[str], random.Random], Drill] = rng.choice(_MAKERS)
    return maker(words, rng)


def texts_of(drill: Drill) -> tuple[str, str, str]:
    """What an exercise says: its question, that without the task (if it names one), its answer."""
    question, answer = drill
    return question, question.rpartition(" | ")[0], answer


def _clean(word: str) -> str:
    return word.strip(_STRIPPED)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _spans(words: list[str], rng: random.Random) -> list[tuple[int, int]]:
    """Up to four disjoint spans (start, end) in order."""
    spans, at = [], 0
    while at < len(words) and len(spans) < 4:
        start = at + rng.randint(0, 3)
        end = start + rng.randint(1, 4)
        if end > len(words):
            break
        spans.append((start, end))
        at = end
    return spans or [(0, 1)]


def _bracketed(words: list[str], rng: random.Random) -> Drill:
    spans = _spans(words, rng)
    labels = rng.sample(_LABELS, len(spans))
    pieces, at = [], 0
    for (start, end), label in zip(spans, labels, strict=True):
        pieces += [*words[at:start], f"[{label}", *words[start : end - 1], f"{words[end - 1]}]"]
        at = end
    found = {
        label: " ".join(words[start:end]) for (start, end), label in zip(spans, labels, strict=True)
    }
    question = " ".join([*pieces, *words[at:]])
    if rng.random() < 0.5:
        return f"{question} | parts", _dump({"kind": "parts", "parts": found})
    return question, _dump(found)


def _cued(words: list[str], rng: random.Random) -> Drill:
    """Spans after cue words, each up to the next cue: the everyday shape of a request."""
    plain = [word for word in words if word.lower() not in _CUES] or ["nothing"]
    cues = rng.sample(sorted(_CUES), rng.randint(1, 3))
    lead = rng.randint(1, 3)
    pieces, found, at = plain[:lead], dict[str, str](), lead
    for cue in cues:
        span = plain[at : at + rng.randint(1, 4)] or [made_up_word(rng).capitalize()]  # no cue
        pieces += [cue, *span]
        found[_CUES[cue]] = " ".join(span)
        at += len(span)
    return " ".join(pieces), _dump({"asked": " ".join(plain[:lead]), "parts": found})


def _between(words: list[str], rng: random.Random) -> Drill:
    ends = ["^", *words, "$"]  # words[i] stands between ends[i] and ends[i + 2]
    clear = [
        (start, end)
        for start, end in _spans(words, rng)
        if ends.count(ends[start]) == ends.count(ends[end + 1]) == 1
    ]
    start, end = rng.choice(clear or [(0, len(words))])
    before, after = ends[start], ends[end + 1]
    question = f"{' '.join(words)} | {before} … {after}"
    return question, _dump({"after": before, "text": " ".join(words[start:end]), "before": after})


def _capitals(words: list[str], rng: random.Random) -> Drill:
    found = [word for word in words if word[:1].isupper()]
    return " ".join(words) + " | capitals", _dump({"kind": "capitals", "words": found})


def _whole(words: list[str], rng: random.Random) -> Drill:
    label = rng.choice(_LABELS)
    return f"{' '.join(words)} | {label}", _dump({label: " ".join(words)})


def _next(words: list[str], rng: random.Random) -> Drill:
    once = [i for i, word in enumerate(words) if words.count(word) == 1]
    if not once:
        return _whole(words, rng)
    at = rng.sample(once, min(len(once), rng.randint(1, 3)))
    question = f"{' '.join(words)} | next to {', '.join(words[i] for i in at)}"
    return question, _dump({words[i]: " ".join(words[i + 1 : i + 2]) for i in at})


_MAKERS: tuple[Callable[[list[str], random.Random], Drill], ...] = (
    _bracketed, _bracketed, _cued, _cued, _cued, _between, _capitals, _whole, _whole, _next,
)  # fmt: skip
