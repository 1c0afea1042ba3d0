"""A span of each request, by OpenTelemetry's conventions for generative AI.

In: exchanges, and the caller's `traceparent`. Out: spans by OTLP over HTTP, made and sent by a
batch processor; the upstream gets a `traceparent` of the same trace. Invariants: no content, no
key and no session is in a span (test_spans_hold_no_content); the caller's trace goes on through us
(test_spans_continue_the_callers_trace); the extra is needed only where spans are asked for
(test_spans_without_the_extra_say_the_pip_line).
Source: OpenTelemetry semantic conventions, "Generative AI spans"; W3C Trace Context.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from ownweights import __version__
from ownweights.core.errors import SettingsError
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.settings import Upstream
from ownweights.teacher.asgi import Scope, header
from ownweights.traffic.record import model_of, usage_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

MAX_NAME_CHARS = 200
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}
_PROVIDERS = {"openai": "openai", "azure": "azure.ai.openai", "anthropic": "anthropic"}
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACE_HEADERS = (b"traceparent", b"tracestate")
_MISSING_HINT = "pip install 'ownweights[otel]'"


def is_asked_for(endpoint: str) -> bool:
    """Whether the settings or OpenTelemetry's own variables say where spans go."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(endpoint) or any(os.environ.get(name) for name in _ENDPOINTS)


def open_spans(endpoint: str) -> Spans | None:
    """Spans that are sent on; None where nobody asks for any.

    Raises: SettingsError where the extra `otel` is not installed
    """
    if not is_asked_for(endpoint):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        what = "spans are to be sent, but OpenTelemetry is not installed"
        raise SettingsError(what, hint=_MISSING_HINT) from None
    named = os.environ.get("OTEL_SERVICE_NAME") or "ownweights-gateway"
    resource = Resource.create({"service.name": named, "service.version": __version__})
    provider = TracerProvider(resource=resource)
    place = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=place)))
    return Spans(provider)


class Spans:
    """Begins a span with each exchange, and ends it when the exchange is over."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ownweights.gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[str, Span] = {}

    async def close(self) -> None:
        """Send what is left, and end."""
        await asyncio.to_thread(self._provider.shutdown)

    def began(self, exchange: Exchange, scope: Scope) -> None:
        """Begin a span in the caller's trace, and pass its name on to the upstream."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        asked = {name.decode(): header(scope, name) or "" for name in _TRACE_HEADERS}
        operation = _OPERATIONS.get(exchange.protocol.name, "chat")
        model = model_of(exchange.body)[:MAX_NAME_CHARS]
        span = self._tracer.start_span(
            f"{operation} {model}".rstrip(),
            self._propagator.extract({name: value for name, value in asked.items() if value}),
            kind=SpanKind.CLIENT,
            attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": model},
            start_time=_nanoseconds(exchange.at),
        )
        self._open[exchange.id] = span
        told: dict[str, str] = {}
        self._propagator.inject(told, set_span_in_context(span))
        others = [pair for pair in scope["headers"] if pair[0] not in _TRACE_HEADERS]
        scope["headers"] = [*others, *((k.encode(), v.encode("latin-1")) for k, v in told.items())]

    def ended(self, exchange: Exchange, teacher: Upstream | None) -> None:
        """End the span of an exchange that is over."""
        from opentelemetry.trace import StatusCode

        span = self._open.pop(exchange.id, None)
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(_attributes(exchange, teacher))
            if exchange.error is not None or exchange.http_status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end(_nanoseconds(time.time()))


def _nanoseconds(at_s: float) -> int:
    return int(at_s * 1e9)


def _attributes(exchange: Exchange, teacher: Upstream | None) -> dict[str, Any]:
    """What a span says of an exchange that is over."""
    usage, is_student = usage_of(exchange.response), exchange.served_by == "student"
    found: dict[str, Any] = {
        "gen_ai.provider.name": "ownweights" if is_student else _provider_of(teacher),
        "gen_ai.response.model": exchange.student_model if is_student else _answered(exchange),
        "gen_ai.response.finish_reasons": _finish_reasons(exchange.response),
        "http.response.status_code": exchange.http_status,
        "error.type": exchange.error,
        "own.request_id": exchange.id,
        "own.workload": exchange.workload,
        "own.served_by": exchange.served_by,
        "own.reason": exchange.reason,
        "own.teacher": exchange.upstream,
        "own.status": exchange.status,
        "own.overhead_ms": round(exchange.overhead_ms(), 3),
    }
    if exchange.response is not None:
        found["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        found["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if exchange.route is not None:
        found["own.certificate"] = exchange.route.verdict_id
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def _provider_of(teacher: Upstream | None) -> str:
    return _PROVIDERS[teacher.kind.name] if teacher is not None else "openai"


def _answered(exchange: Exchange) -> str:
    return model_of(exchange.response)[:MAX_NAME_CHARS]


def _finish_reasons(body: dict[str, Any] | None) -> list[str]:
    """Why the answer ended, as any of the protocols says it."""
    if body is None:
        return []
    choices = body.get("choices")
    each = (
        [c.get("finish_reason") for c in choices or () if isinstance(c, dict)]
        if isinstance(choices, list)
        else [body.get("stop_reason")]
    )
    return [reason[:MAX_NAME_CHARS] for reason in each if isinstance(reason, str)]
