"""Does the gateway grow while it runs? Memory and descriptors over ten minutes of rude traffic.

Caveats: ten minutes show a leak of a kilobyte a request, not one of a byte. Half load, by a short
run without faults at the beginning. One request in ten hangs up early, one in twenty reads in sips
of 2 kB; of the upstream's answers one in eight is a 500, one a 429, one is reset half way, one is a
stream of 100 kB; the rest are small, half of them streams. Sampled four times a second.

Cases: `rss_mb` (memory of the gateway's processes) and `fds` (their open descriptors): `ours` is
the last fifth of the time, `peer` the second fifth of the same run; a ratio of 1 is flat. The slope
by least squares since the first fifth is in `workload`. The run fails where a record was lost, an
answer failed that should not, or the store does not verify. --quick: one minute.
Reproduce: make bench NAME=gateway_soak
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load.gateways import Running, start, write_body
from bench.load.programs import ask, mock, report_of, start_load
from bench.load.store import check_sound, recorded
from bench.result import ratio_line

FAULTS = ("mock-error", "mock-limit", "mock-reset")
PACKAGES = ("uvicorn", "httptools", "uvloop", "aiohttp", "httpx")
EVERY_S = 0.25


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """The line of memory and the line of descriptors."""
    seconds = 60 if is_quick else 600
    with mock() as upstream_port, tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(start("ours", upstream_port, Path(folder) / "ours")) as one:
            rate, found = _soak(one, seconds, seed)
            lost = recorded(one)["lost"]
        if lost:
            raise SystemExit(f"{lost} requests were not recorded")
        check_sound(one.folder)
    for case, unit, place in (("rss_mb", "MB", 1), ("fds", "descriptors", 2)):
        points = [(row[0], row[place]) for row in found]
        yield _line(case, unit, points, f"{seconds} s at {rate:.0f} requests/s with faults", seed)


Rows = list[tuple[float, float, float]]  # seconds since the start, megabytes, descriptors


def _soak(one: Running, seconds: int, seed: int) -> tuple[float, Rows]:
    """Half the rate that it can hold, and what was sampled while it was held."""
    small = [write_body(one.folder, kind) for kind in ("json", "sse")]
    rate = ask(one.plan.door, small, "--conns", 128, "--seconds", 5, "--warm-s", 1).rps / 2
    rude = [write_body(one.folder, "json", model=model) for model in FAULTS]
    rude += [write_body(one.folder, "sse", model="mock-large"), *small, *small]
    load = start_load(one.plan.door, rude, "--rate", rate, "--seconds", seconds,
                      "--leave", 0.1, "--slow", 0.05, "--seed", seed + 1)  # fmt: skip
    found = list(_sampled(one, load))
    report = report_of(load)
    _check(report.done / report.issued, report.unanswered)
    return rate, found


def _sampled(one: Running, load: subprocess.Popen[str]) -> Iterator[tuple[float, float, float]]:
    begun_s = time.perf_counter()
    while load.poll() is None:
        yield time.perf_counter() - begun_s, one.group.rss_mb(), one.group.num_fds()
        time.sleep(EVERY_S)


def _check(done_frac: float, unanswered: int) -> None:
    """Five in eight are answered with 200, less a tenth that hung up."""
    if unanswered or not 0.5 < done_frac < 0.625:
        raise SystemExit(f"{done_frac:.3f} were answered, {unanswered} never")


def _line(
    case: str, unit: str, found: list[tuple[float, float]], load: str, seed: int
) -> dict[str, Any]:
    fifth = len(found) // 5
    late = [value for _, value in found[4 * fifth : 5 * fifth]]
    early = [value for _, value in found[fifth : 2 * fifth]]
    slope = 60 * _slope(found[fifth:])
    return ratio_line(
        "gateway_soak",
        case,
        ours=late,
        peer=early,
        peer_name="the same run, earlier",
        unit=unit,
        is_less_better=True,
        bound=1.0,
        workload=f"{load}, {slope:+.3f} {unit} a minute",
        seed=seed,
        packages=PACKAGES,
    )


def _slope(points: list[tuple[float, float]]) -> float:
    """By least squares, a second."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
