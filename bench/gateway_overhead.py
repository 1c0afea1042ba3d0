"""What the gateway costs with recording on, beside asking the upstream itself and beside others.

Caveats: one machine; the gateway has one core, the generator and the mock upstream share the other.
The mock answers 20 ms after the request, streams as 20 chunks 5 ms apart. On a shared machine
requests a second and times suffer from whoever else runs; CPU time a request holds best and is the
headline. Ours records every request and answer: what is stored survives kill -9 at once and a power
cut but for the last moments (the recorder does not sync each batch; docs/concepts/traffic.md). The
peers record nothing (bench/load/gateways.py says why), which favours them.

Each case is measured in turns: all gateways are up, those not measured are stopped (SIGSTOP).
Where the host takes processor time away from this virtual machine ("steal"), times say nothing of a
gateway: what was measured with more than 2 % of it is measured again, up to three times, and the
try with the least of it counts, whatever it says.
`rps`: requests a second on one core, from connections that ask again at once; there are twice as
many as can be in flight by the CPU time that a request was seen to take.
`cpu_ms`: user and system time of all processes of the gateway, by answer, in the same run.
`added_p50_ms`, `added_p95_ms`, `added_p99_ms`: open loop at half of the gateway's own `rps` (the
floor at half of ours), times from when a request was due; its quantile less the same quantile of
asking the mock itself at half of ours.
`first_token_ms`: the same for the median of the first byte of a stream. `rss_mb`: most memory in
use at once, after everything. `start_ms`: from the command to the first answer through it, and
`start_cpu_ms` the CPU's time of that.

Cases: each of these for `json`, `sse`, `json 100kB`, `sse 100kB` (large request, large answer) as
`<figure> <kind> recording=on`, and `rss_mb recording=on`, `start_ms`, `start_cpu_ms`. `bound` is
the ratio of the floor: uvicorn answering at once, no upstream, no record. --quick has only that as
the peer.
Reproduce: make bench NAME=gateway_overhead
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.load.gateways import FULL_NAMES, GATEWAYS, Running, start, write_body
from bench.load.group import stolen_ticks
from bench.load.programs import Door, Report, ask, mock
from bench.load.store import recorded
from bench.result import ratio_line

KINDS = ("json", "sse", "json 100kB", "sse 100kB")
PACKAGES = ("uvicorn", "httptools", "uvloop", "aiohttp", "httpx", "msgspec", "zstandard")
LEAST_MS = 0.01  # a difference of quantiles may be below zero by noise
MAX_FAILED_FRAC = 0.002
PROBE_S, LEAST_CONNS, MOST_CONNS = 1.0, 16, 512
ANSWER_S = {"json": 0.02, "sse": 0.12}  # how long the mock takes
START_REPEATS = 3
MOST_STOLEN_FRAC, MOST_TRIES = 0.02, 3
T = TypeVar("T")


class Unmeasured(Exception):
    """The gateway did not do what was to be measured."""


@dataclass(frozen=True, slots=True)
class Span:
    """How long to measure, of which the first part does not count."""

    seconds: float
    warm_s: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one gateway at one kind of request."""

    rps: float
    cpu_ms: float
    half: Report
    direct: Report | None

    def figure(self, name: str) -> float:
        """A figure by the name it has in the cases."""
        if name in ("rps", "cpu_ms"):
            return getattr(self, name)
        field = "first_p50_ms" if name == "first_token_ms" else name.replace("added", "whole")
        without = getattr(self.direct, field) if self.direct else 0.0
        return max(LEAST_MS, getattr(self.half, field) - without)


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """The lines of each kind of request as it is done, then memory and start."""
    names = ["ours", "floor"] if is_quick else list(GATEWAYS)
    span = Span(2.0, 0.5, 2) if is_quick else Span(4.0, 1.0, 3)
    with mock() as upstream_port, tempfile.TemporaryDirectory() as folder, _paused() as running:
        starts = _start_all(names, upstream_port, Path(folder), running)
        for kind in KINDS:
            turns = [_turn(running, upstream_port, kind, span) for _ in range(span.repeats)]
            yield from _lines(kind, names, turns, seed)
        _check_nothing_lost(running["ours"])
        memory = {name: [one.group.peak_rss_mb()] for name, one in running.items()}
    all_over = "all requests of this bench"
    yield from _compare("rss_mb recording=on", "MB", memory, all_over, seed)
    for case, found in starts.items():
        yield from _compare(case, "ms", found, "to the first answer", seed)


@contextlib.contextmanager
def _paused() -> Iterator[dict[str, Running]]:
    """The gateways that are up, all of them stopped; what is put in is killed at the end."""
    running: dict[str, Running] = {}
    try:
        yield running
    finally:
        for one in running.values():
            one.close()


def _start_all(
    names: Sequence[str], port: int, folder: Path, running: dict[str, Running]
) -> dict[str, dict[str, list[float]]]:
    """Start each gateway some times, in turns, and keep the last of each; the times by case."""
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpus: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(START_REPEATS):
        for name in names:
            if name in running:
                running[name].close()
            one = running[name] = start(name, port, folder / f"{name}-{repeat}")
            one.group.pause()
            walls[name].append(1e3 * one.start_s)
            cpus[name].append(1e3 * one.start_cpu_s)
    return {"start_ms": walls, "start_cpu_ms": cpus}


def _turn(
    running: dict[str, Running], upstream_port: int, kind: str, span: Span
) -> dict[str, Sample]:
    """Every gateway once, ours first; asking the mock itself right after ours, at the same rate."""
    samples: dict[str, Sample] = {}
    direct: Report | None = None
    for name, one in running.items():
        body = write_body(one.folder, kind, one.plan.model_prefix)
        at = samples["ours"].rps if name == "floor" else None
        try:
            rps, cpu_ms, half = _quietest(
                lambda one=one, body=body, at=at: _measured(one, body, kind, span, at_rps=at)
            )
        except Unmeasured as fault:
            if name == "ours":
                raise
            print(f"{kind} {name}: left out, {fault}", file=sys.stderr, flush=True)
            continue
        if name == "ours":
            door = Door(upstream_port, headers=one.plan.door.headers)
            words = ("--rate", rps / 2, *_timing(span))
            direct = _quietest(lambda door=door, body=body, words=words: ask(door, [body], *words))
        samples[name] = Sample(rps, cpu_ms, half, None if name == "floor" else direct)
        talk = f"{kind} {name}: {rps:.0f}/s, {cpu_ms:.3f} ms CPU, p50 {half.whole_p50_ms:.2f} ms"
        print(f"{talk}, p99 {half.whole_p99_ms:.2f} ms", file=sys.stderr, flush=True)
    return samples


def _measured(
    one: Running, body: Path, kind: str, span: Span, *, at_rps: float | None
) -> tuple[float, float, Report]:
    """Requests a second and CPU time of one gateway, and half load: its own or another's."""
    one.group.resume()
    try:
        rps, cpu_ms = _saturate(one, body, kind, span)
        if not rps:
            raise Unmeasured(f"no answer within {span.seconds} s")
        half = ask(one.plan.door, [body], "--rate", (at_rps or rps) / 2, *_timing(span))
        _check(half)
    finally:
        one.group.pause()
    return rps, cpu_ms, half


def _quietest(measure: Callable[[], T]) -> T:
    """What was measured while the host took least of the processors away, of some tries."""
    tries: list[tuple[float, T]] = []
    while len(tries) < MOST_TRIES and not (tries and tries[-1][0] <= MOST_STOLEN_FRAC):
        before = stolen_ticks()
        found = measure()
        stolen, ticks = (b - a for a, b in zip(before, stolen_ticks(), strict=True))
        tries.append((stolen / max(1, ticks), found))
        print(f"  stolen {tries[-1][0]:.1%}", file=sys.stderr, flush=True)
    return min(tries, key=lambda one: one[0])[1]


def _saturate(one: Running, body: Path, kind: str, span: Span) -> tuple[float, float]:
    """Requests a second and CPU milliseconds a request with as many callers as keep it busy."""
    _, cpu_ms = _closed_loop(one, body, LEAST_CONNS, Span(PROBE_S, 0.0, 1))
    in_flight = ANSWER_S[kind.split(maxsplit=1)[0]] * 1e3 / max(cpu_ms, 0.01)
    conns = min(MOST_CONNS, max(LEAST_CONNS, round(2 * in_flight)))
    return _closed_loop(one, body, conns, span)


def _closed_loop(one: Running, body: Path, conns: int, span: Span) -> tuple[float, float]:
    before_s = one.group.cpu_s()
    report = ask(one.plan.door, [body], "--conns", conns, *_timing(span))
    _check(report)
    return report.rps, 1e3 * (one.group.cpu_s() - before_s) / report.answers


def _timing(span: Span) -> tuple[object, ...]:
    return ("--seconds", span.seconds, "--warm-s", span.warm_s)


def _check(report: Report) -> None:
    """A figure of requests that fail is none."""
    failed = report.errors + report.unanswered
    if failed > MAX_FAILED_FRAC * report.done or not report.done:
        raise Unmeasured(f"{failed} of {failed + report.done} requests failed")


def _check_nothing_lost(ours: Running) -> None:
    ours.group.resume()
    records = recorded(ours)
    if records["lost"]:
        raise SystemExit(f"not everything was recorded: {records}")


def _lines(
    kind: str, names: Sequence[str], turns: list[dict[str, Sample]], seed: int
) -> Iterator[dict[str, Any]]:
    figures = {"rps": "requests/s", "cpu_ms": "ms", "added_p50_ms": "ms"}
    if "100kB" not in kind:
        figures |= {"added_p95_ms": "ms", "added_p99_ms": "ms"}
    if kind.startswith("sse"):
        figures |= {"first_token_ms": "ms"}
    names = [name for name in names if all(name in turn for turn in turns)]
    rate = statistics.median(turn["ours"].rps for turn in turns) / 2
    for figure, unit in figures.items():
        found = {name: [turn[name].figure(figure) for turn in turns] for name in names}
        workload = f"{kind}, upstream 20 ms"
        if figure not in ("rps", "cpu_ms"):
            workload += f", half load: {rate:.0f} requests/s through ours"
        yield from _compare(f"{figure} {kind} recording=on", unit, found, workload, seed)


def _compare(
    case: str, unit: str, found: dict[str, list[float]], workload: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Ours beside each of the others."""
    is_less_better = unit != "requests/s"
    floor = statistics.median(found["floor"])
    for name in (name for name in found if name != "ours"):
        peer = statistics.median(found[name])
        yield ratio_line(
            "gateway_overhead",
            case,
            ours=found["ours"],
            peer=found[name],
            peer_name=FULL_NAMES[name],
            unit=unit,
            is_less_better=is_less_better,
            bound=round(peer / floor if is_less_better else floor / peer, 3),
            workload=workload,
            seed=seed,
            packages=PACKAGES,
        )
