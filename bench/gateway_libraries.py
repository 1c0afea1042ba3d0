"""Which HTTP server and client the gateway should stand on: the least gateway on each of them.

Caveats: a pass-through that reads no JSON and records nothing (bench/load/passthrough.py); one
core, the mock and the generator on the other. CPU time a request, which holds on a shared machine.
64 connections that ask again at once (of httpx and httpcore a request costs more the more of them
are in flight). Each library in the version that is pinned here, in one environment of its own.

Cases: `cpu_ms json` and `cpu_ms sse` (21 chunks): `ours` is uvicorn with httptools and uvloop, and
aiohttp as the client, `peer` each other pair; `none` as a client answers at once, `raw` is a client
of 50 lines. `bound` is the ratio of uvicorn on uvloop answering at once. --quick: only the clients
on uvicorn. Reproduce: make bench NAME=gateway_libraries
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load.gateways import Plan, Running, door_at, python_with, start, write_body
from bench.load.programs import ask, mock
from bench.result import ratio_line

PINS = (
    "uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.22.1", "granian==2.8.7", "aiohttp==3.14.5",
    "httpx==0.28.1", "httpcore==1.0.9", "httpx2==2.16.2", "niquests==3.21.2", "pyreqwest==0.15.1",
    "pyqwest==0.12.0",
)  # fmt: skip
CHOSEN = "uvicorn-uvloop aiohttp"
FLOOR = "uvicorn-uvloop none"
CLIENTS = ("raw", "pyreqwest", "pyqwest", "niquests", "httpx2", "httpx", "httpcore")
SERVERS = ("uvicorn-asyncio", "granian-asgi", "granian-rsgi", "aiohttp")
CONNS = 64
KINDS = ("json", "sse")


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """The lines of each kind of request."""
    pairs = [CHOSEN, FLOOR, *(f"uvicorn-uvloop {client}" for client in CLIENTS)]
    if not is_quick:
        pairs += [f"{server} {client}" for server in SERVERS for client in ("aiohttp", "none")]
    repeats, seconds = (2, 1.5) if is_quick else (5, 5)
    found: dict[tuple[str, str], list[float]] = {}
    with mock() as upstream_port, tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for pair in pairs:
                home = Path(folder) / f"{pair} {repeat}"
                with contextlib.closing(_start(pair, upstream_port, home)) as one:
                    for kind in KINDS:
                        found.setdefault((kind, pair), []).append(_cpu_ms(one, kind, seconds))
    for kind in KINDS:
        yield from _lines(kind, {pair: found[kind, pair] for pair in pairs}, seed)


def _cpu_ms(one: Running, kind: str, seconds: float) -> float:
    """CPU milliseconds an answer, once it is warm."""
    body = write_body(one.folder, kind)
    ask(one.plan.door, [body], "--conns", CONNS, "--seconds", seconds / 3)
    before_s = one.group.cpu_s()
    report = ask(one.plan.door, [body], "--conns", CONNS, "--seconds", seconds)
    return 1e3 * (one.group.cpu_s() - before_s) / report.answers


def _start(pair: str, upstream_port: int, home: Path) -> Running:
    program = str(Path(__file__).parent / "load" / "passthrough.py")

    def plan(upstream: int, port: int, folder: Path) -> Plan:
        python = str(python_with("candidates", *PINS))
        return Plan([python, program, *pair.split(" "), str(port), str(upstream)], door_at(port))

    return start(pair, upstream_port, home, planner=plan)


def _lines(kind: str, found: dict[str, list[float]], seed: int) -> Iterator[dict[str, Any]]:
    floor = statistics.median(found[FLOOR])
    for pair in (pair for pair in found if pair != CHOSEN):
        yield ratio_line(
            "gateway_libraries",
            f"cpu_ms {kind}",
            ours=found[CHOSEN],
            peer=found[pair],
            peer_name=pair,
            unit="ms",
            is_less_better=True,
            bound=round(statistics.median(found[pair]) / floor, 3),
            workload=f"{kind}, {CONNS} connections; " + " ".join(PINS),
            seed=seed,
        )
