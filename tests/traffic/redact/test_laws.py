"""What holds of every text and record: order, fidelity, consistency, and steps that add up."""

from __future__ import annotations

import itertools
import json
import sys
import unicodedata
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.traffic.record import make_record
from ownweights.traffic.redact import (
    KINDS,
    PATTERN_KINDS,
    Placeholders,
    Privacy,
    PrivacyRules,
    Redactor,
    Span,
    find_spans,
    kinds_of,
)
from ownweights.traffic.redact.placeholder import PLACEHOLDER
from ownweights.traffic.redact.plain import narrow, seen
from ownweights.traffic.redact.span import without_overlaps

VALUES = ("ana@example.org", "+44 20 7946 0958", "4111 1111 1111 1111", "078-05-1120",
          "GB82WEST12345698765432", "203.0.113.77", "sk-proj-a1b2c3d4e5f6g7h8i9j0")  # fmt: skip
PIECES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [*VALUES, "４１１１", "＠", "\u200b", "\u00ad", "\ufeff", "password: ", "key=", "\\n", "\0",
         "\1", "<KEY_", "<", ">", "://", "{", "}", '"', ",", "-", ".", " ", "\ud83d", "Ａ１"]
    ),
)  # fmt: skip
TEXTS = st.lists(PIECES).map("".join)


def redactor_in(factory: pytest.TempPathFactory) -> Redactor:
    return Redactor(PATTERN_KINDS, Placeholders(Project(factory.getbasetemp() / "laws")))


@given(TEXTS)
def test_spans_are_always_in_order_apart_and_of_a_kind(text: str) -> None:
    place = 0
    for span in find_spans(text, PATTERN_KINDS):
        assert place <= span.start < span.end <= len(text) and span.kind in PATTERN_KINDS
        assert not {"\0", "\1"} & set(text[span.start : span.end])
        place = span.end


SPANS = st.builds(
    lambda start, size, kind: Span(start, start + size, kind),
    st.integers(0, 20), st.integers(1, 8), st.sampled_from(KINDS),
)  # fmt: skip


@given(st.lists(SPANS))
def test_without_overlaps_always_keeps_the_strongest(spans: list[Span]) -> None:
    kept = without_overlaps(spans)
    assert set(kept) <= set(spans)
    assert all(one.end <= other.start for one, other in itertools.pairwise(kept))
    if spans:
        strongest = min(KINDS.index(span.kind) for span in spans)
        assert min(KINDS.index(span.kind) for span in kept) == strongest
    alone = [
        span
        for span in spans
        if not any(o != span and o.start < span.end and span.start < o.end for o in spans)
    ]
    assert set(alone) <= set(kept)
    assert without_overlaps(reversed(kept)) == kept


@given(st.lists(TEXTS, max_size=4))
def test_masking_twice_always_is_masking_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    redactor = redactor_in(tmp_path_factory)
    once = redactor.texts(texts)
    assert redactor.texts(once) == once and len(once) == len(texts)
    assert not any(find_spans(text, PATTERN_KINDS) for text in once)


@given(TEXTS)
def test_what_is_not_masked_always_stays_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """What stands between two placeholders stands in the text, in the same order."""
    (masked,) = redactor_in(tmp_path_factory).texts([text])
    place = 0
    for kept in PLACEHOLDER.split(masked):
        place = text.find(kept, place)
        assert place >= 0
        place += len(kept)


@given(TEXTS, TEXTS)
@example("", "password: ana@example.org")
def test_a_value_has_one_placeholder_in_every_record(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str
) -> None:
    """But in one that calls it a password, where it is masked as a key."""
    redactor = redactor_in(tmp_path_factory)
    secrets = {text[span.start : span.end] for text in (before, after)
               for span in find_spans(text, PATTERN_KINDS) if span.kind == "key"}  # fmt: skip
    for value in VALUES[:1] + VALUES[2:]:
        (alone,) = redactor.texts([value])
        assert PLACEHOLDER.fullmatch(alone)
        around = redactor.texts([before, value, after])
        expected = redactor.texts([f"password: {value}"])[0][10:] if value in secrets else alone
        assert around[1] == expected


@given(TEXTS)
def test_seen_always_knows_where_each_character_stood(text: str) -> None:
    assert len(narrow(text)) == len(text) and narrow(narrow(text)) == narrow(text)
    told = seen(text)
    if told is not None:
        shown, places = told
        assert len(shown) == len(places) < len(text)
        assert places == sorted(set(places))
        assert [text[place] for place in places] == list(shown)
        gone = {text[place] for place in {*range(len(text))} - {*places}}
        assert {unicodedata.category(char) for char in gone} <= {"Cf", "Mn"}


SAFE = st.recursive(
    st.one_of(st.booleans(), st.none(), st.floats(allow_nan=False), st.integers(-999, 999),
              st.sampled_from([*VALUES, "a", "naïve", "", " "])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["a", "role", "id", "n", *VALUES]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def unnamed(value: Any, name: Callable[[str], str]) -> Any:
    """The same JSON with another text for each, as plainly as it can be written."""
    if isinstance(value, str):
        return name(value)
    if isinstance(value, list):
        return [unnamed(inner, name) for inner in value]
    if isinstance(value, dict):
        return {name(key): unnamed(inner, name) for key, inner in value.items()}
    return value


@given(SAFE)
def test_metadata_and_arguments_are_masked_as_a_plain_walk_would(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    redactor = redactor_in(tmp_path_factory)
    names = {one: redactor.texts([one])[0] for one in VALUES}
    expected = unnamed(value, lambda text: names.get(text, text))
    text = json.dumps({"it": value})
    request = {"messages": [{"role": "user", "content": text}]}
    record = make_record(request, None, role="teacher", metadata={"it": value})
    masked = redactor.record(record)
    assert masked.metadata == {"it": expected}
    assert json.loads(masked.request["messages"][0]["content"]) == {"it": expected}
    assert record.metadata == {"it": value}  # what passed is not touched
    assert masked.id == record.id and masked.prompt_hash == record.prompt_hash


def steps(call: Callable[[], object]) -> int:
    """How many lines of Python, and calls, a call runs: the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece",
    ["4111 1111 1111 1112 ", "4111 ", "1 ", "a@b.org ", "a@", "::1:", "1:", "GB82 ", "key=", "%40",
     "password: ", "Bearer a1", "://a:b1@", "-----BEGIN PRIVATE KEY-----", "-----END ", "eyJa.",
     "1\u200b", "a\u00ad@", "４１１１ ", "\0", "203.0.113.77 ", "555-555-5555 ", "(1) ", "phone 1",
     "<EMAIL_aaaaaaaaaa>", "?key=abc123&"],
)  # fmt: skip
def test_find_spans_takes_steps_as_the_text_grows(piece: str) -> None:
    """Twice the text takes at most twice the steps, and a few that do not grow."""
    small, large = (piece * 150, piece * 300)
    few = steps(lambda: find_spans(small, PATTERN_KINDS))
    many = steps(lambda: find_spans(large, PATTERN_KINDS))
    assert many <= 2.1 * few + 100


def test_redact_takes_steps_as_the_record_grows(tmp_path_factory: pytest.TempPathFactory) -> None:
    redactor = redactor_in(tmp_path_factory)
    redactor.texts(list(VALUES))  # the key is read before anything is counted

    def mask(count: int) -> int:
        texts = [f"{value} of u{n}@example.org" for n in range(count) for value in VALUES[:2]]
        return steps(lambda: redactor.texts(texts))

    assert mask(80) <= 2.2 * mask(40)


def test_a_deep_body_is_masked_or_refused_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    redactor = redactor_in(tmp_path_factory)
    for depth in (10, 200, 5_000, 100_000):
        text = "[" * depth + '"ana@example.org"' + "]" * depth
        request = {"messages": [{"role": "user", "content": text}]}
        record = make_record(request, None, role="teacher")
        try:
            masked = redactor.record(record)
        except RecursionError:
            continue  # the recorder counts it as lost
        assert "ana@" not in str(masked.request)


@given(st.lists(st.sampled_from([*KINDS, "all"])))
def test_kinds_of_is_ordered_and_always_has_keys(words: list[str]) -> None:
    kinds = kinds_of(words)
    assert "key" in kinds and len(set(kinds)) == len(kinds)
    assert list(kinds) == sorted(kinds, key=KINDS.index)
    assert set(kinds) == {"key", *words} - {"all"} | set(PATTERN_KINDS if "all" in words else ())
    assert kinds_of(kinds) == kinds == kinds_of(reversed(words))


@pytest.mark.parametrize("word", ["", "ALL", "Key", " key", "emails", "key,email", "none "])
def test_kinds_that_are_misspelt_are_named(project: Project, word: str) -> None:
    rules = PrivacyRules(workload_redact={"mine": (word,)})
    with pytest.raises(SettingsError, match=r"workload\.mine\.redact: .* is no kind.*") as raised:
        Privacy(project, rules)
    assert repr(word) in str(raised.value)


@pytest.mark.parametrize("kinds", [("none",), (), ("email",), ("all",), ("data", "ip")])
def test_rules_of_a_workload_stand_in_place_of_the_stores(
    project: Project, kinds: tuple[str, ...]
) -> None:
    text = " ; ".join(VALUES)
    wanted = {
        "mine": set(kinds_of(kinds)) - {"data"},
        "other": {"key", "card"},
        "Mine": {"key", "card"},
    }
    privacy = Privacy(project, PrivacyRules(redact=("card",), workload_redact={"mine": kinds}))
    for workload, expected in wanted.items():
        request = {"messages": [{"role": "user", "content": text}]}
        record = make_record(request, None, role="teacher", workload=workload)
        told = privacy.record(record).request["messages"][0]["content"]
        assert {name[1:].split("_")[0].lower() for name in PLACEHOLDER.findall(told)} == expected


def test_what_is_not_recorded_is_known_by_its_whole_name(project: Project) -> None:
    privacy = Privacy(project, PrivacyRules(unrecorded=frozenset({"off"})))
    told = {name: privacy.is_recorded(name) for name in ("off", "of", "off ", "OFF", "offer", "")}
    assert [name for name, is_recorded in told.items() if not is_recorded] == ["off"]
