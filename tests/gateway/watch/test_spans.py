"""Spans: what they say, whose trace they belong to, and where they go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.gateway.exchange import Exchange, open_exchange
from ownweights.gateway.watch import spans
from ownweights.gateway.watch.spans import Spans, open_spans
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import WAIT_S, Engines, KeptRecords
from tests.route.samples import route_of
from tests.teacher.servers import asked, completion, json_answer, running, talking

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
TEACHER = Upstream("main", "http://x/v1", kind=Kind("azure"))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*spans._ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


def kept() -> tuple[Spans, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider), exporter


MAIN = Upstream("main", "http://x/v1")


def exchange_of(**fields: Any) -> Exchange:
    named = [(b"x-own-workload", b"tickets"), (b"x-own-session", b"session-private")]
    exchange = open_exchange({"headers": named}, b"", asked("private", model="gpt-x"))
    exchange.http_status, exchange.asked, exchange.status = 200, MAIN, "ok"
    exchange.response = completion("private", usage=USAGE)
    for name, value in fields.items():
        setattr(exchange, name, value)
    return exchange


def span_of(exchange: Exchange, scope: dict[str, Any] | None = None) -> Any:
    made, exporter = kept()
    made.began(exchange, scope if scope is not None else {"headers": []})
    made.ended(exchange, TEACHER)
    (span,) = exporter.get_finished_spans()
    return span


def test_spans_follow_the_conventions() -> None:
    exchange = exchange_of(route=route_of())
    span = span_of(exchange)
    assert (span.name, span.kind) == ("chat gpt-x", SpanKind.CLIENT)
    said = dict(span.attributes)
    assert said.pop("own.overhead_ms") >= 0
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.model": "rented-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "http.response.status_code": 200,
        "own.request_id": exchange.id,
        "own.workload": "tickets",
        "own.served_by": "teacher",
        "own.reason": "no_route",
        "own.teacher": "main",
        "own.status": "ok",
        "own.certificate": route_of().verdict_id,
    }
    assert span.end_time >= span.start_time


def test_spans_tell_a_student_and_an_error() -> None:
    said = span_of(exchange_of(served_by="student", student_model="own/abc")).attributes
    assert said["gen_ai.provider.name"] == "ownweights"
    assert said["gen_ai.response.model"] == "own/abc"
    failed = span_of(exchange_of(response=None, error="teacher_timeout", http_status=504))
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "teacher_timeout"
    assert "gen_ai.usage.input_tokens" not in failed.attributes


def test_spans_hold_no_content() -> None:
    scope = {"headers": [(b"authorization", b"Bearer private")]}
    assert "private" not in span_of(exchange_of(), scope).to_json()


def test_spans_continue_the_callers_trace() -> None:
    scope: dict[str, Any] = {
        "headers": [
            (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"tracestate", b"a=1"),
            (b"x-other", b"stays"),
        ]
    }  # fmt: skip
    span = span_of(exchange_of(), scope)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    passed = dict(scope["headers"])
    assert passed[b"traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01".encode()
    assert (passed[b"tracestate"], passed[b"x-other"]) == (b"a=1", b"stays")


@pytest.mark.parametrize("given", [b"garbage", b"00-0-0-01", b"\xff\x00", b""])
def test_spans_begin_a_trace_where_the_callers_is_none(given: bytes) -> None:
    scope: dict[str, Any] = {"headers": [(b"traceparent", given)]}
    span = span_of(exchange_of(), scope)
    assert span.parent is None
    assert scope["headers"][0][1].startswith(f"00-{span.context.trace_id:032x}".encode())


def test_spans_of_a_trace_that_is_not_sampled_are_not_kept() -> None:
    made, exporter = kept()
    scope: dict[str, Any] = {"headers": [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]}
    exchange = exchange_of()
    made.began(exchange, scope)
    made.ended(exchange, TEACHER)
    assert exporter.get_finished_spans() == ()
    assert scope["headers"][0][1].endswith(b"-00")


class Receiver:
    """An OTLP receiver: what was posted, by path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                kept.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join(WAIT_S)


@pytest.mark.parametrize("is_by_variable", [False, True])
def test_spans_reach_an_otlp_receiver(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, is_by_variable: bool
) -> None:
    endpoint = "" if is_by_variable else receiver.url
    if is_by_variable:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    good = json_answer(json.dumps(completion("private", usage=USAGE)).encode())
    with talking(good) as talk:
        teachers = {"main": Upstream("main", talk.base_url)}
        settings = GatewaySettings(
            teachers=teachers, default_teacher="main", otel_endpoint=endpoint
        )
        app = Gateway(Project(tmp_path), settings, start_engine=Engines(), recorder=KeptRecords())
        with running(app) as url:
            httpx.post(
                f"{url}/v1/chat/completions", json=asked("private"), timeout=WAIT_S,
                headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
            )  # fmt: skip
        passed = talk.head()["traceparent"]
    ((path, body),) = receiver.requests
    assert path == "/v1/traces" and b"private" not in body
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert passed == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert {a.key for a in resource.resource.attributes} >= {"service.name", "service.version"}


def test_spans_are_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_spans("") is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_spans("http://127.0.0.1:9") is None


def test_spans_without_the_extra_say_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match="OpenTelemetry is not installed") as caught:
        open_spans("http://127.0.0.1:4318")
    assert caught.value.hint == "pip install 'ownweights[otel]'"
