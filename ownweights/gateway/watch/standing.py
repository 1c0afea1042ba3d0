"""What the gateway's parts hold right now, read whenever someone asks for the numbers.

In: the parts. Out: metrics of their own counts. Invariant: reading changes nothing and asks nobody
outside the process (test_metrics_tell_how_the_gateway_stands).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ownweights.traffic.recorder import RecorderCounts

ENGINE_STATES = ("off", "loading", "ready", "down")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the gateway stands: open requests, records, teachers, audits, its engine and routes."""

    in_flight: int
    records: RecorderCounts
    drains: tuple[int, int]  # now, and ever
    engine: str
    is_draining: bool
    retries: Mapping[str, int] = field(default_factory=dict[str, int])
    failovers: Mapping[str, int] = field(default_factory=dict[str, int])
    resting_s: Mapping[str, float] = field(default_factory=dict[str, float])
    audits: Mapping[str, int] = field(default_factory=dict[str, int])
    stages: Mapping[str, str] = field(default_factory=dict[str, str])


class StandingCollector(Collector):
    """Asks for the Standing at each scrape."""

    def __init__(self, read: Callable[[], Standing]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing: so that nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        now = self._read()
        yield _gauge("in_flight", "Requests that are being answered.", now.in_flight)
        yield _gauge("draining", "1 once the gateway is stopping.", now.is_draining)
        yield from _records(now.records)
        yield _gauge("drains", "Answers read to their end for nobody.", now.drains[0])
        yield _counter("drained", "Answers that were read to their end for nobody.", now.drains[1])
        yield _by("retries", "Repeats at the same teacher.", "teacher", now.retries)
        yield _by("failovers", "Requests for another teacher's place.", "teacher", now.failovers)
        yield _by("audits", "Answers compared, by what began it.", "kind", now.audits)
        resting = GaugeMetricFamily(
            "own_gateway_teacher_rest_seconds", "How long a teacher is not asked.",
            labels=["teacher"],
        )  # fmt: skip
        for teacher, left_s in sorted(now.resting_s.items()):
            resting.add_metric([teacher], left_s)
        yield resting
        yield _one_of("engine_state", "How the engine stands.", ["state"],
                      {(state,): state == now.engine for state in ENGINE_STATES})  # fmt: skip
        yield _one_of("route", "Routes in force.", ["workload", "stage"],
                      dict.fromkeys(sorted(now.stages.items()), True))  # fmt: skip


def _records(counts: RecorderCounts) -> Iterator[Metric]:
    yield _counter("records_stored", "Records stored.", counts.recorded)
    yield _counter("records_lost", "Records never stored.", counts.lost)
    yield _counter("record_failures", "Failures to store a batch.", counts.failures)
    yield _gauge("records_waiting", "Records that wait to be stored.", counts.waiting)
    yield _gauge("record_fault", "1 while nothing can be stored.", bool(counts.fault))


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"own_gateway_{name}", says, value=float(value))


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(f"own_gateway_{name}", says, value=float(value))


def _by(name: str, says: str, label: str, counts: Mapping[str, int]) -> Metric:
    found = CounterMetricFamily(f"own_gateway_{name}", says, labels=[label])
    for value, count in sorted(counts.items()):
        found.add_metric([value], count)
    return found


def _one_of(
    name: str, says: str, labels: list[str], values: Mapping[tuple[str, ...], bool]
) -> Metric:
    found = GaugeMetricFamily(f"own_gateway_{name}", says, labels=labels)
    for key, is_so in values.items():
        found.add_metric(list(key), float(is_so))
    return found
