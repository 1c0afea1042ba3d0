"""What an endpoint says of itself: models, fingerprints, headers, pace."""

from __future__ import annotations

import pytest

from ownweights.core.chat import Completion, Usage
from ownweights.verdict.drift.asking import Reply
from ownweights.verdict.drift.metadata import Metadata, compare_metadata, read_metadata
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME


def reply(
    model: str = "m-1", fingerprint: str | None = "fp1", *, seconds: float = 1.0,
    tokens: int = 10, **headers: str,
) -> Reply:  # fmt: skip
    body = {"model": model, "system_fingerprint": fingerprint}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    done = Completion("x", "stop", model, Usage(3, tokens), body=body, headers=named)
    return Reply(done, seconds)


def test_read_metadata_collects_what_answers_say() -> None:
    found = read_metadata(
        [reply(), reply("m-2", None, seconds=3.0, tokens=20), Reply(None, fault="500"),
         reply(server="x", date="today", openai_version="2020")]
    )  # fmt: skip
    assert (found.models, found.fingerprints) == (("m-1", "m-2"), ("fp1",))
    assert found.headers == {"openai-version": ("2020",), "server": ("x",)}
    assert (found.median_s, found.median_tokens) == (1.0, 10.0)


def test_read_metadata_of_nothing_knows_nothing() -> None:
    assert read_metadata([Reply(None, fault="down")]) == Metadata()


@pytest.mark.parametrize(
    ("after", "outcome", "what"),
    [
        ([reply()], SAME, "answers name m-1"),
        ([reply("m-2")], CHANGED, "model m-2 where m-1 was"),
        ([reply(), reply("m-2")], CHANGED, "model m-2 where m-1 was"),
        ([reply(fingerprint="fp2")], CHANGED, "fingerprint fp2 where fp1 was"),
        ([reply(fingerprint=None)], SAME, "answers name m-1"),
        ([], COULD_NOT_TELL, "no answer says which model gave it"),
        ([reply("", None)], COULD_NOT_TELL, "no answer says which model gave it"),
    ],
)
def test_compare_metadata_finds_new_names(after: list[Reply], outcome: str, what: str) -> None:
    finding, notes = compare_metadata(read_metadata([reply()]), read_metadata(after))
    assert (finding.channel, finding.outcome, finding.what) == ("metadata", outcome, what)
    assert notes == ()


def test_compare_metadata_knows_all_fingerprints_of_a_rotation() -> None:
    before = read_metadata([reply(fingerprint="a"), reply(fingerprint="b")])
    assert compare_metadata(before, read_metadata([reply(fingerprint="b")]))[0].outcome == SAME
    assert compare_metadata(before, read_metadata([reply(fingerprint="c")]))[0].outcome == CHANGED


def test_compare_metadata_does_not_alarm_on_a_fingerprint_where_none_was() -> None:
    before = read_metadata([reply(fingerprint=None)])
    assert compare_metadata(before, read_metadata([reply(fingerprint="c")]))[0].outcome == SAME


def test_compare_metadata_only_notes_headers_and_pace() -> None:
    before = read_metadata([reply(server="a"), reply(server="b")])
    after = read_metadata([reply(server="c", seconds=2.5, tokens=4, openai_version="new")])
    finding, notes = compare_metadata(before, after)
    assert finding.outcome == SAME
    assert notes == (
        "header server: c where a, b was",
        "median seconds an answer: 2.5 where 1 was",
        "median tokens an answer, which is what it costs: 4 where 10 was",
    )


def test_compare_metadata_notes_no_small_change_of_pace() -> None:
    before, after = read_metadata([reply()]), read_metadata([reply(seconds=1.9, tokens=6)])
    assert compare_metadata(before, after)[1] == ()
