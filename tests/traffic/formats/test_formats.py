"""Each form is read as its makers write it, and what we write in it comes back."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.chat import Usage
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.traffic import Record, TrafficStore, import_file
from ownweights.traffic.exporter import export_file
from ownweights.traffic.formats import EXPORT_FORMATS, Skip, export, files, read, unwrap, values_of
from tests.traffic.samples import answer, ask, line, make, write_lines

AT = 1_700_000_000.25
OBSERVATION: dict[str, Any] = {
    "id": "obs-1", "trace_id": "t-1", "type": "GENERATION", "start_time": "2023-11-14 22:13:20.250",
    "end_time": "2023-11-14 22:13:21.750", "name": "reply", "provided_model_name": "gpt-4o",
    "input": json.dumps([{"role": "user", "content": "hello"}]),
    "output": json.dumps({"role": "assistant", "content": "hi"}),
    "model_parameters": json.dumps({"temperature": "0.5"}),
    "usage_details": {"input": 12, "output": 3, "total": 15}, "cost_details": {"total": 0.002},
    "total_cost": 0.002, "user_id": "eve", "session_id": "s-1", "metadata": {"plan": "pro"},
}  # fmt: skip
API_OBSERVATION = {
    "id": "obs-1", "traceId": "t-1", "type": "GENERATION", "startTime": "2023-11-14T22:13:20.250Z",
    "endTime": "2023-11-14T22:13:21.750Z", "model": "gpt-4o",
    "input": {"messages": [{"role": "user", "content": "hello"}]},
    "output": {"role": "assistant", "content": "hi"}, "modelParameters": {"temperature": 0.5},
    "usageDetails": {"input": 12, "output": 3}, "totalCost": 0.002, "metadata": {"plan": "pro"},
}  # fmt: skip
SPEND_LOG: dict[str, Any] = {
    "request_id": "chatcmpl-1", "call_type": "acompletion", "api_key": "88dc28d0f0", "spend": 0.002,
    "total_tokens": 15, "prompt_tokens": 12, "completion_tokens": 3,
    "startTime": "2023-11-14T22:13:20.250Z", "endTime": "2023-11-14T22:13:21.750Z",
    "completionStartTime": "2023-11-14T22:13:21.000Z", "model": "gpt-4o", "model_group": "fast",
    "custom_llm_provider": "openai", "user": "", "end_user": "eve", "session_id": "s-1",
    "status": "success", "cache_hit": "False", "request_tags": "[]", "metadata": '{"plan": "pro"}',
    "messages": "{}", "response": json.dumps({"id": "chatcmpl-1", **answer("hi")}),
    "proxy_server_request": json.dumps(
        {"model": "fast", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5}
    ),
}  # fmt: skip


def rich(reply: Any = "hi", **fields: Any) -> Record:
    """A record with every fact."""
    base = make("hello", reply, at=AT, session="s-1", metadata={"plan": "pro", "user": "eve"})
    return replace(
        base, source_id="r-1", end_user="eve", key_id="k-1", upstream="main", usage=Usage(12, 3),
        cost_usd=0.002, latency_ms=1500.0, model="big-1", **fields,
    )  # fmt: skip


def brought(path: Path, store: TrafficStore) -> list[Record]:
    import_file(path, store)
    return list(store.records())


FACTS = ("source_id", "workload", "session", "end_user", "key_id", "upstream", "usage", "cost_usd",
         "latency_ms", "model", "finish_reason", "at")  # fmt: skip


def facts_of(record: Record) -> dict[str, Any]:
    return {one: getattr(record, one) for one in FACTS}


@pytest.mark.parametrize("form", ["own", "langfuse", "litellm"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_forms_come_back_as_they_went_out(
    store: TrafficStore, tmp_path: Path, form: Any, name: str
) -> None:
    record = rich()
    cut = replace(rich(), source_id="r-2", response=answer("cut", finish_reason="length"),
                  status="partial", cost_usd=None, latency_ms=None)  # fmt: skip
    assert export_file([record, cut], tmp_path / name, form) == 2
    back = brought(tmp_path / name, store)
    for old, new in zip([record, cut], back, strict=True):
        assert facts_of(new) == facts_of(old)
        assert dict(new.message) == dict(old.message)
        assert new.request == old.request
        assert new.status == old.status
        assert new.metadata.items() >= old.metadata.items()
    assert import_file(tmp_path / name, store).duplicates == 2


@pytest.mark.parametrize("form", ["own", "langfuse", "litellm"])
def test_forms_keep_tools_and_their_calls(store: TrafficStore, tmp_path: Path, form: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    record = replace(
        rich(),
        request=ask("hello", tools=tools, temperature=0.5, seed=7),
        response=answer(None, tool_calls=calls, finish_reason="tool_calls"),
    )
    export_file([record], tmp_path / "x.jsonl", form)
    (back,) = brought(tmp_path / "x.jsonl", store)
    assert back.request == record.request
    assert back.message["tool_calls"] == calls
    assert back.finish_reason == "tool_calls"


@pytest.mark.parametrize("protocol", ["embeddings", "responses", "messages", "completions"])
def test_our_form_keeps_every_protocol(store: TrafficStore, tmp_path: Path, protocol: Any) -> None:
    record = replace(rich(), protocol=protocol, request={"input": "x"}, response={"data": [1]},
                     status="ok")  # fmt: skip
    export_file([record], tmp_path / "x.jsonl", "own")
    (back,) = brought(tmp_path / "x.jsonl", store)
    assert (back.protocol, back.request, back.response) == (protocol, {"input": "x"}, {"data": [1]})
    assert all(export(record, form) is None for form in EXPORT_FORMATS if form != "own")


def check_call(record: Record, *, upstream: str = "", key_id: str | None = None) -> None:
    assert record.request["messages"] == [{"role": "user", "content": "hello"}]
    assert (record.answer_text, record.source_id) in {("hi", "obs-1"), ("hi", "chatcmpl-1")}
    assert (record.end_user, record.session) == ("eve", "s-1")
    assert (record.usage, record.cost_usd, record.latency_ms) == (Usage(12, 3), 0.002, 1500.0)
    assert (record.at, record.status, record.role) == (AT, "ok", "imported")
    assert (record.upstream, record.key_id) == (upstream, key_id)
    assert record.metadata == {"plan": "pro"}


@pytest.mark.parametrize(
    "shape", ["lines", "array", "pretty", "page", "trace", "download", "csv", "csv.gz"]
)
def test_langfuse_is_read_in_every_shape(store: TrafficStore, tmp_path: Path, shape: str) -> None:
    trace = {"id": "t-1", "name": "chat", "userId": "eve", "sessionId": "s-1"}
    span = {**API_OBSERVATION, "id": "span", "type": "SPAN"}
    path = tmp_path / "x.json"
    match shape:
        case "lines":
            write_lines(path, [{**OBSERVATION, "type": "EVENT"}, OBSERVATION])
        case "array":
            path.write_text(json.dumps([OBSERVATION, span]))
        case "pretty":
            path.write_text(json.dumps([span, OBSERVATION], indent=2))
        case "page":
            path.write_text(json.dumps({"data": [OBSERVATION, span], "meta": {"page": 1}}))
        case "trace":
            path.write_text(json.dumps({**trace, "observations": [span, API_OBSERVATION]}))
        case "download":
            whole = {"trace": trace, "observations": [API_OBSERVATION, span], "scores": []}
            path.write_text(json.dumps(whole, indent=1))
        case _:
            write_csv(path, [OBSERVATION, {**OBSERVATION, "type": "SPAN"}], shape)
    report = import_file(path, store)
    assert (report.added, report.skipped) == (1, {"not_generation": 1})
    (record,) = store.records()
    check_call(record)
    assert str(record.request["temperature"]) == "0.5"


def write_csv(path: Path, rows: list[dict[str, Any]], shape: str) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
        )
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if shape.endswith("gz") else data)


@pytest.mark.parametrize("shape", ["lines", "array", "page", "csv", "decoded", "body", "messages"])
def test_litellm_is_read_in_every_shape(store: TrafficStore, tmp_path: Path, shape: str) -> None:
    path = tmp_path / "x.json"
    failed = {**SPEND_LOG, "request_id": "no", "status": "failure"}
    body = json.loads(SPEND_LOG["proxy_server_request"])
    match shape:
        case "lines":
            write_lines(path, [failed, SPEND_LOG])
        case "array":
            path.write_text(json.dumps([failed, SPEND_LOG]))
        case "page":
            path.write_text(json.dumps({"data": [failed, SPEND_LOG], "total": 2}))
        case "csv":
            write_csv(path, [failed, SPEND_LOG], shape)
        case "decoded":
            given = {"proxy_server_request": body, "metadata": {"plan": "pro"},
                     "response": answer("hi")}  # fmt: skip
            write_lines(path, [failed, {**SPEND_LOG, **given}])
        case "body":
            write_lines(path, [failed, {**SPEND_LOG, "proxy_server_request": {"body": body}}])
        case _:
            given = {"proxy_server_request": "{}", "messages": body["messages"]}
            write_lines(path, [failed, {**SPEND_LOG, **given}])
    report = import_file(path, store)
    assert (report.added, report.skipped) == (1, {"no_answer": 1})
    (record,) = store.records()
    check_call(record, upstream="openai", key_id="88dc28d0f0")
    assert (record.request["model"], record.model) == ("fast", "big-1")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "SPAN"}, "not_generation"),
        ({"type": None}, "not_generation"),
        ({"input": None}, "bad_messages"),
        ({"input": {"prompt": "x"}}, "bad_messages"),
        ({"input": [{"role": "robot", "content": "x"}]}, "wrong_roles"),
        ({"output": None}, "no_answer"),
        ({"output": {"score": 1}}, "no_answer"),
        ({"output": ""}, "empty_answer"),
        ({"start_time": "yesterday"}, "bad_fact"),
        ({"total_cost": "free"}, "bad_fact"),
        ({"total_cost": -1}, "bad_fact"),
        ({"usage_details": {"input": 1.5}}, "bad_fact"),
    ],
)
def test_langfuse_refuses_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Skip) as caught:
        read({**OBSERVATION, **changed})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": "failure"}, "no_answer"),
        ({"call_type": "aembedding"}, "not_chat"),
        ({"proxy_server_request": "{}"}, "no_content"),
        ({"response": "{}"}, "no_content"),
        ({"response": json.dumps({"choices": []})}, "no_answer"),
        ({"startTime": 10**20}, "bad_fact"),
        ({"spend": True}, "bad_fact"),
        ({"prompt_tokens": -1}, "bad_fact"),
        (
            {"response": answer("a... (litellm_truncated skipped 900 chars) ...z")},
            "truncated",
        ),
    ],
)
def test_litellm_refuses_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Skip) as caught:
        read({**SPEND_LOG, **changed})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "changed",
    [
        {"cost_usd": "dear"}, {"cost_usd": -1}, {"cost_usd": True}, {"latency_ms": 1e300},
        {"usage": []}, {"usage": {"prompt_tokens": -1}}, {"protocol": "smoke"}, {"end_user": 5},
        {"key_id": []}, {"upstream": {}},
    ],
)  # fmt: skip
def test_read_refuses_a_fact_that_is_none(changed: dict[str, Any]) -> None:
    with pytest.raises(Skip) as caught:
        read({**line(1), **changed})
    assert caught.value.reason == "bad_fact"


def test_litellm_leaves_a_key_that_is_no_hash_behind() -> None:
    assert read({**SPEND_LOG, "api_key": "sk-1234"}).key_id is None


def test_litellm_takes_no_spend_for_unknown() -> None:
    assert read({**SPEND_LOG, "spend": 0.0}).cost_usd is None


@pytest.mark.parametrize("prompt", ["Translate: hello", "{not json", '["a", "b"'])
def test_langfuse_takes_text_for_a_user_message(prompt: str) -> None:
    found = read({**OBSERVATION, "input": prompt, "output": "hallo"})
    assert found.request["messages"] == [{"role": "user", "content": prompt}]
    assert found.response["choices"][0]["message"]["content"] == "hallo"


def test_langfuse_takes_a_whole_completion() -> None:
    found = read({**OBSERVATION, "output": answer("hi", finish_reason="length")})
    assert found.response["choices"][0]["finish_reason"] == "length"


def test_unwrap_of_a_plain_value_is_itself() -> None:
    assert list(unwrap(line(1))) == [line(1)]


def test_values_of_a_document_that_is_broken_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[\n{"a": 1},\n')
    (found,) = values_of(path, max_line_bytes=1000)
    assert found.fault == "broken_json"
    path.write_text('[\n{"a": 1},\n5]')
    assert [one.fault for one in values_of(path, max_line_bytes=1000)] == [None, "not_object"]


def test_values_of_a_document_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 2**20)
    path = tmp_path / "x.json"
    path.write_text("[\n" + " " * 2**20 + "]")
    with pytest.raises(InputError, match="one JSON document of more than 1 MiB"):
        list(values_of(path, max_line_bytes=1000))


def test_values_of_csv_that_is_not_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"request_id,startTime,spend\n1,2,3\n\xff\xfe,2,3\n")
    assert [one.fault for one in values_of(path, max_line_bytes=1000)][-1] == "undecodable"


@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, [[]], {"a": {"b": []}}, True, -1.5, "{", ""])
@pytest.mark.parametrize("sample", [OBSERVATION, API_OBSERVATION, SPEND_LOG], ids=["a", "b", "c"])
def test_read_never_fails_on_odd_values(sample: dict[str, Any], odd: Any) -> None:
    for key in sample:
        try:
            found = read({**sample, key: odd})
        except Skip:
            continue
        assert found.request["messages"]


def test_an_import_of_odd_observations_never_fails(tmp_path: Path) -> None:
    rows = [{**OBSERVATION, "id": f"{key}-{n}", key: odd} for key in OBSERVATION if key != "id"
            for n, odd in enumerate([None, 5, "x", [], {}, {"a": 1}, ["x"]])]  # fmt: skip
    with TrafficStore.open(Project(tmp_path / "p")) as store:
        report = import_file(write_lines(tmp_path / "x.jsonl", rows), store)
        assert report.added + sum(report.skipped.values()) + report.duplicates == len(rows)
        assert store.verify().is_sound
