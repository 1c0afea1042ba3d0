"""The gateway in numbers, for Prometheus.

In: exchanges that are over, and what other parts count by themselves. Out: metrics in Prometheus's
text form. Invariants: a label takes few values whatever callers say: workloads beyond
`MAX_WORKLOADS` are "other", derived ones "auto", reasons their class
(test_metrics_labels_stay_few); nothing that callers wrote but checked names becomes a label
(test_metrics_hold_no_content). What one request costs here: dev/LOG.md.
Source: Prometheus, "Metric and label naming", "Histograms and summaries".
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from ownweights import __version__
from ownweights.core.chat import Usage
from ownweights.gateway.exchange import Exchange
from ownweights.traffic.record import usage_of

MAX_WORKLOADS = 100
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
REASONS = frozenset({
    "served", "below_threshold", "ineligible", "student_error", "student_timeout", "forced",
    "no_route", "shadow", "canary",
})  # fmt: skip
# from a tenth of a millisecond, which the gateway takes, to the minutes that a long answer does
OWN_BUCKETS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
WAIT_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_STATUS_CLASSES = ("gone", "1xx", "2xx", "3xx", "4xx", "5xx")


class WorkloadLabels:
    """Names of workloads as labels: the first so many, and all that a route or a setting names."""

    def __init__(self, most: int = MAX_WORKLOADS) -> None:
        self._most = most
        self._known: set[str] = set()

    def allow(self, names: Iterable[str]) -> None:
        """Let these be labels in any case."""
        self._known.update(names)

    def of(self, workload: str | None) -> str:
        """The label of a workload."""
        if workload is None:
            return "none"
        if workload in self._known:
            return workload
        if workload.startswith("auto-"):
            return "auto"
        if len(self._known) >= self._most:
            return "other"
        self._known.add(workload)
        return workload


def reason_class(reason: str) -> str:
    """A reason without what it says of the request."""
    name = reason.partition(":")[0]
    return name if name in REASONS else "other"


class Metrics:
    """What is counted while requests pass; `text` is what /metrics says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workloads = WorkloadLabels()
        self._requests = Counter(
            "own_gateway_requests", "Requests answered.",
            ["workload", "protocol", "served_by", "reason", "status"], registry=self.registry,
        )  # fmt: skip
        self._refused = Counter(
            "own_gateway_refused", "Requests refused before they were read as one.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self._upstream = self._histogram(
            "own_gateway_upstream_seconds", "Wait for whoever answered.", WAIT_BUCKETS_S
        )
        self._overhead = self._histogram(
            "own_gateway_overhead_seconds",
            "Time of a request in the gateway itself, its turns in the event loop included.",
            OWN_BUCKETS_S,
        )
        self._first = self._histogram(
            "own_gateway_first_token_seconds",
            "From a streamed request's last byte to its answer's first.", WAIT_BUCKETS_S,
        )  # fmt: skip
        self.loop_lag = Histogram(
            "own_gateway_loop_lag_seconds", "How late the event loop takes its turns.",
            buckets=OWN_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._recorder_wait = Histogram(
            "own_gateway_recorder_wait_seconds",
            "How long the oldest record of a batch waited until it was stored.",
            buckets=WAIT_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter(
            "own_gateway_tokens", "Tokens that answers say they took.", ["teacher", "kind"],
            registry=self.registry,
        )  # fmt: skip
        self._cost = Counter(
            "own_gateway_cost_usd", "What teachers' answers cost, where prices are set.",
            ["teacher"], registry=self.registry,
        )  # fmt: skip
        info = Gauge(
            "own_build_info", "The version that runs.", ["version", "python"],
            registry=self.registry,
        )  # fmt: skip
        info.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        self._request_of: dict[tuple[str, str, str, str, str], Counter] = {}
        self._spent_by: dict[str, tuple[Counter, Counter, Counter]] = {}

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> dict[str, Histogram]:
        found = Histogram(name, says, ["served_by"], buckets=buckets, registry=self.registry)
        return {who: found.labels(who) for who in ("student", "teacher")}

    def refused(self, status: int) -> None:
        """Count a request that was refused before it was an exchange."""
        self._refused.labels(_STATUS_CLASSES[min(status // 100, 5)]).inc()

    def answered(self, exchange: Exchange, *, cost_usd: float | None) -> None:
        """Count an exchange that is over."""
        who = exchange.served_by
        status = _STATUS_CLASSES[min(exchange.http_status // 100, 5)]
        labels = (
            self.workloads.of(exchange.workload), exchange.protocol.name, who,
            reason_class(exchange.reason), status,
        )  # fmt: skip
        request = self._request_of.get(labels)
        if request is None:
            request = self._request_of[labels] = self._requests.labels(*labels)
        request.inc()
        self._upstream[who].observe(exchange.waited_s)
        self._overhead[who].observe(max(0.0, exchange.overhead_ms() / 1000))
        if exchange.is_stream and exchange.began_s is not None:
            self._first[who].observe(max(0.0, exchange.began_s - exchange.started_s))
        if exchange.response is not None:
            self._spend(exchange, usage_of(exchange.response), cost_usd)

    def _spend(self, exchange: Exchange, usage: Usage, cost_usd: float | None) -> None:
        teacher = exchange.upstream if exchange.served_by == "teacher" else "student"
        spent = self._spent_by.get(teacher)
        if spent is None:
            read, written = (self._tokens.labels(teacher, kind) for kind in ("read", "written"))
            spent = self._spent_by[teacher] = read, written, self._cost.labels(teacher)
        spent[0].inc(usage.prompt_tokens)
        spent[1].inc(usage.completion_tokens)
        if cost_usd:
            spent[2].inc(cost_usd)

    def recorder_waited(self, wait_s: float) -> None:
        """A batch was stored; its oldest record had waited so long. From any thread."""
        self._recorder_wait.observe(wait_s)

    def read_from(self, collector: Collector) -> None:
        """Ask another part too, whenever the numbers are read."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self.registry)
