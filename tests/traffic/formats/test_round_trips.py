"""Whatever a record holds, each form brings back all that the form has a word for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.chat import Usage
from ownweights.core.jsonl import encode_json
from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore, import_file, make_record
from ownweights.traffic.exporter import export_file, export_line
from ownweights.traffic.formats import ExportFormat, Skip, export, read
from ownweights.traffic.formats.incoming import amount_of, iso_of, moment_of, tokens_of
from tests.traffic.formats.test_formats import OBSERVATION, SPEND_LOG
from tests.traffic.samples import answer, ask, line, write_lines

FORMS: tuple[ExportFormat, ...] = get_args(ExportFormat)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
NAME = st.text("abcXYZ019-_.é漢", min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=6,
)
CALL = st.builds(
    lambda name, given, number: {
        "id": f"call-{number}", "type": "function",
        "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=number % 2 == 0)},
    },
    NAME, st.dictionaries(NAME, JSON, max_size=3), st.integers(0, 9),
)  # fmt: skip
PARTS = st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), min_size=1,
                 max_size=3)  # fmt: skip
USER = st.builds(lambda said: {"role": "user", "content": said}, TEXT | PARTS)
TURN = st.one_of(
    USER,
    st.builds(lambda said: {"role": "assistant", "content": said}, TEXT),
    st.builds(
        lambda call, said: [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": said},
        ],
        CALL, TEXT,
    ),
)  # fmt: skip
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2), "seed": st.integers(0, 2**40), "stream": st.booleans(),
        "top_p": st.floats(0.01, 1), "logit_bias": st.dictionaries(NAME, st.integers(-9, 9)),
        "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        "response_format": st.just({"type": "json_object"}),
        "stop": st.lists(NAME, max_size=2),
    },
)  # fmt: skip
ANSWER = st.one_of(
    st.builds(answer, TEXT),
    st.builds(lambda text: answer(text, finish_reason="length"), TEXT),
    st.builds(lambda text: answer(text, finish_reason="content_filter"), TEXT),
    st.builds(lambda call: answer(None, tool_calls=[call], finish_reason="tool_calls"), CALL),
    st.builds(lambda text: answer(None, refusal=text), TEXT),
)
AMOUNT = st.none() | st.floats(1e-9, 1e5)


def flat(turns: list[Any]) -> list[dict[str, Any]]:
    return [one for turn in turns for one in (turn if isinstance(turn, list) else [turn])]


@st.composite
def records(draw: st.DrawFn, *, number: int = 0) -> Record:
    """A chat with any facts, as a file could have brought it."""
    messages = [draw(USER), *flat(draw(st.lists(TURN, max_size=3)))]
    user = draw(st.none() | NAME)
    said = draw(ANSWER)
    is_cut = draw(st.booleans()) and said["choices"][0]["finish_reason"] == "stop"
    if is_cut:  # a stream that broke off: nothing in the answer says so
        said["choices"][0]["finish_reason"] = None
    base = make_record(
        {"model": "big", "messages": messages, **draw(OPTIONS)},
        said,
        role=draw(st.sampled_from(["teacher", "student", "imported"])),
        status="partial" if is_cut else None,
        workload="w",
        session=draw(st.none() | NAME),
        metadata=draw(st.dictionaries(NAME.map(lambda name: f"m-{name}"), JSON, max_size=3)),
        at=draw(st.floats(1, 4e9).map(lambda at: round(at, 3))),
    )
    return replace(
        base, source_id=f"id-{number}", end_user=user, key_id=draw(st.none() | NAME),
        upstream=draw(st.just("") | NAME), cost_usd=draw(AMOUNT), latency_ms=draw(AMOUNT),
        usage=draw(st.builds(Usage, st.integers(1, 10**6), st.integers(1, 10**6))),
    )  # fmt: skip


def through(record: Record, form: Any) -> Any:
    """What is read of the line that a record became."""
    line = export_line(record, form)
    assert line is not None
    assert line.count(b"\n") == 1
    return read(json.loads(line))


@given(records())
@pytest.mark.parametrize("form", ["own", "langfuse", "litellm"])
def test_every_fact_of_any_chat_comes_back(form: Any, record: Record) -> None:
    found = through(record, form)
    assert found.request == record.request
    assert found.response["choices"][0]["message"] == dict(record.message)
    assert found.response["choices"][0]["finish_reason"] == record.finish_reason
    assert found.metadata.items() >= record.metadata.items()
    for name in ("workload", "session", "end_user", "key_id", "upstream", "usage", "cost_usd",
                 "latency_ms", "role"):  # fmt: skip
        assert getattr(found, name) == getattr(record, name), name
    assert found.id == record.source_id
    assert found.at == pytest.approx(record.at, abs=1e-6)


@given(records())
def test_openai_brings_back_question_and_answer_of_what_is_whole(record: Record) -> None:
    value = export(record, "openai")
    assert (value is None) == (record.status != "ok")
    if value is None:
        return
    found = read(json.loads(encode_json(value)))
    assert found.request["messages"] == record.request["messages"]
    assert found.response["choices"][0]["message"] == dict(record.message)
    kept = {"tools", "response_format"} & record.request.keys()
    assert all(found.request[name] == record.request[name] for name in kept)
    assert found.request.keys() <= kept | {"model", "messages"}


@settings(max_examples=15)
@given(st.lists(records(), min_size=1, max_size=6), st.sampled_from(["x.jsonl", "x.jsonl.gz"]))
@pytest.mark.parametrize("form", FORMS)
def test_a_store_brought_over_goes_out_as_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, form: Any, made: list[Record], name: str
) -> None:
    folder = tmp_path_factory.mktemp("over")
    given_records = [replace(record, source_id=f"id-{n}") for n, record in enumerate(made)]
    written = export_file(given_records, folder / name, form)
    if not written:
        return
    with TrafficStore.open(Project(folder / "p")) as store:
        report = import_file(folder / name, store, workload="w")
        assert (report.read, report.added, report.skipped) == (written, written, {})
        first = [export_line(record, form) for record in store.records()]
        assert import_file(folder / name, store, workload="w").added == 0
        assert store.verify().is_sound
        statuses = [(record.status, record.role, record.at) for record in store.records()]
        assert export_file(store.records(), folder / f"again-{name}", form) == written
    if form != "openai":
        assert statuses == [
            (record.status, record.role, pytest.approx(record.at, abs=1e-6))
            for record in given_records
        ]
    with TrafficStore.open(Project(folder / "q")) as other:
        assert import_file(folder / f"again-{name}", other, workload="w").added == written
        assert [export_line(record, form) for record in other.records()] == first


@pytest.mark.parametrize("form", ["openai", "langfuse", "litellm"])
def test_an_error_has_no_word_but_in_our_form(form: Any) -> None:
    failed = make_record(ask(), {"error": {"message": "overloaded"}}, role="teacher", workload="w")
    assert failed.status == "error"
    assert export(failed, form) is None
    value = export(failed, "own")
    assert value is not None
    found = read(value)
    assert (found.status, found.response) == ("error", failed.response)
    with pytest.raises(Skip) as caught:
        read({**value, "status": "ok"})
    assert caught.value.reason == "no_answer"


@pytest.mark.parametrize(
    "gone",
    [
        make_record(ask(), None, role="teacher", workload="w"),
        make_record(ask(), answer(""), role="teacher", workload="w", status="partial"),
        make_record(ask(), {"choices": []}, role="student", workload="w"),
        replace(make_record({"input": "x"}, {"output": []}, role="teacher", workload="w"),
                protocol="responses", status="partial"),
        replace(make_record({"prompt": "x"}, None, role="teacher", workload="w"),
                protocol="completions", status="error"),
    ],
)  # fmt: skip
def test_what_was_not_answered_whole_comes_back_as_that(project: Project, gone: Record) -> None:
    path = project.root.parent / "out.jsonl"
    assert export_file([gone], path, "own") == 1
    with TrafficStore.open(project) as store:
        assert import_file(path, store).added == 1
        (back,) = store.records()
    assert (back.request, back.response, back.status) == (gone.request, gone.response, gone.status)
    assert (back.role, back.at, back.protocol) == (gone.role, gone.at, gone.protocol)


@pytest.mark.parametrize(
    ("said", "finish_reason", "status"),
    [
        ({}, "stop", "ok"), ({}, "length", "partial"), ({"status": "ok"}, "length", "partial"),
        ({"status": "partial"}, "stop", "partial"), ({"status": "error"}, "stop", "error"),
    ],
)  # fmt: skip
def test_the_worse_of_what_is_said_and_shown_holds(
    store: TrafficStore, tmp_path: Path, said: dict[str, Any], finish_reason: str, status: str
) -> None:
    response = answer("hi", finish_reason=finish_reason)
    path = write_lines(tmp_path / "x.jsonl", [line(response=response, **said)])
    import_file(path, store)
    assert [record.status for record in store.records()] == [status]


@pytest.mark.parametrize(("field", "odd"), [("status", "fine"), ("role", "judge"), ("role", [])])
def test_a_status_or_role_that_is_none_is_refused(field: str, odd: Any) -> None:
    with pytest.raises(Skip, match=f"'{field}' is none of") as caught:
        read(line(**{field: odd}))
    assert caught.value.reason == "bad_fact"


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(9990, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, ZONES, st.sampled_from(["T", " "]))
def test_a_time_is_the_same_in_every_zone_and_spelling(at: datetime, zone: Any, mark: str) -> None:
    true = at.timestamp()
    local = at.astimezone(zone).isoformat(mark)
    utc = at.replace(tzinfo=None).isoformat(mark)
    for text in (local, utc, f"{utc}Z", f"{utc} UTC", f" {utc}Z "):
        found = moment_of({"t": text}, "t")
        assert found == pytest.approx(true, abs=1e-6), text
    assert moment_of({"t": iso_of(true)}, "t") == pytest.approx(true, abs=1e-5)


@given(st.floats(1e8, 9e10))
def test_a_number_is_seconds_or_milliseconds(at: float) -> None:
    assert moment_of({"t": at}, "t") == at
    assert moment_of({"t": at * 1000}, "t") == (
        pytest.approx(at) if at * 1000 >= 1e11 else pytest.approx(at * 1000)
    )


@pytest.mark.parametrize("odd", ["", None])
def test_no_time_is_no_fault(odd: Any) -> None:
    assert moment_of({"t": odd}, "t") is None
    assert moment_of({}, "t") is None


@pytest.mark.parametrize(
    "odd", [0, -5, True, False, [], {}, "soon", "2026-13-01", "2026-02-30", "25:00", 10**30, 1e308,
            -(10**400), 10**400, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused(odd: Any) -> None:
    with pytest.raises(Skip, match="'t' is no time"):
        moment_of({"t": odd}, "t")


@pytest.mark.parametrize(
    "odd", [-1, -0.001, True, "x", "nan", "inf", "-inf", "1e400", 1e9, 10**400, [], {}, "1,5"]
)
def test_an_amount_that_is_none_is_refused(odd: Any) -> None:
    with pytest.raises(Skip, match="'a' is no amount"):
        amount_of({"a": odd}, "a")


@given(st.floats(0, 999_999_999) | st.integers(0, 999_999_999))
def test_an_amount_is_the_same_as_number_and_as_text(amount: float) -> None:
    assert amount_of({"a": amount}, "a") == amount
    assert amount_of({"a": repr(amount)}, "a") == amount
    assert amount_of({"a": f" {amount!r} "}, "a") == amount


@given(st.floats(0, 999_999_999))
def test_tokens_are_whole_or_refused(number: float) -> None:
    if number == int(number):
        assert tokens_of({"n": number}, "n") == number
    else:
        with pytest.raises(Skip, match="'n' is no number of tokens"):
            tokens_of({"n": number}, "n")


@pytest.mark.parametrize("form", ["langfuse", "litellm"])
def test_a_record_at_the_end_of_time_goes_out(form: Any) -> None:
    late = replace(make_record(ask(), answer(), role="imported", workload="w"),
                   at=253_402_300_799.5, latency_ms=5000.0)  # fmt: skip
    found = through(late, form)
    assert found.latency_ms == 5000.0
    assert found.at == pytest.approx(late.at, abs=1)


@given(TEXT)
def test_text_of_langfuse_and_litellm_survives_json_in_text(text: str) -> None:
    messages = [{"role": "user", "content": text}]
    said = {"role": "assistant", "content": text}
    for ascii_alone in (True, False):
        one = {**OBSERVATION, "input": json.dumps(messages, ensure_ascii=ascii_alone),
               "output": json.dumps(said, ensure_ascii=ascii_alone)}  # fmt: skip
        two = {**SPEND_LOG, "response": json.dumps(answer(text), ensure_ascii=ascii_alone),
               "proxy_server_request": json.dumps({"messages": messages})}  # fmt: skip
        for found in (read(one), read(two)):
            assert found.request["messages"] == messages
            assert found.response["choices"][0]["message"]["content"] == text


@given(records())
def test_reading_changes_nothing_of_what_it_is_given(record: Record) -> None:
    for form in FORMS:
        value = export(record, form)
        if value is not None:
            before = json.dumps(value)
            read(json.loads(before))
            export(record, form)
            assert json.dumps(value) == before


def test_export_of_nothing_is_an_empty_file(tmp_path: Path) -> None:
    for form in FORMS:
        assert export_file([], tmp_path / f"{form}.jsonl", form) == 0
        assert (tmp_path / f"{form}.jsonl").read_bytes() == b""
