"""Result lines: what a bench measured, against whom, on what, and how to find the code again.

In: samples of ours and the peer's, taken in turns within one run. Out: one JSON object a case with
exactly the keys of RATIO_KEYS or SIMULATION_KEYS. A ratio above 1 means that ours is better
(test_ratio_line_is_above_one_when_ours_is_better).
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS_DIR = ROOT / "bench" / "results"

_HEAD = ("bench", "case", "ours", "peer", "peer_name", "unit")
_RATIO = ("ratio_median", "ratio_p10", "ratio_p90")
_SIMULATION = ("violation_frac", "se", "trials", "delta", "coverage_frac")
_TAIL = (
    "bound", "workload", "repeats", "seed", "commit", "dirty", "machine", "versions", "date",
)  # fmt: skip
_DEMO_ENDS = (*_HEAD[:2], *_TAIL)  # a demo's line has the keys of `own demo --json` between
RATIO_KEYS = _HEAD + _RATIO + _TAIL
SIMULATION_KEYS = _HEAD + _SIMULATION + _TAIL


def ratio_line(
    bench: str,
    case: str,
    *,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    unit: str,
    is_less_better: bool,
    workload: str,
    bound: float | None = None,
    seed: int = 0,
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """The line of one comparison; sample i of ours was taken beside sample i of the peer's."""
    if not ours or len(ours) != len(peer):
        raise ValueError(f"{bench}/{case}: {len(ours)} samples of ours, {len(peer)} of the peer's")
    ratios = sorted(p / o if is_less_better else o / p for o, p in zip(ours, peer, strict=True))
    return {
        "bench": bench,
        "case": case,
        "ours": _rounded(statistics.median(ours)),
        "peer": _rounded(statistics.median(peer)),
        "peer_name": peer_name,
        "unit": unit,
        "ratio_median": _rounded(statistics.median(ratios)),
        "ratio_p10": _rounded(quantile(ratios, 0.1)),
        "ratio_p90": _rounded(quantile(ratios, 0.9)),
        **circumstances(bound, workload, len(ours), seed, packages),
    }


def simulation_line(
    bench: str,
    case: str,
    *,
    violations: int,
    trials: int,
    delta: float,
    coverage_frac: float | None,
    workload: str,
    seed: int = 0,
    packages: Sequence[str] = ("numpy", "scipy"),
) -> dict[str, Any]:
    """The line of a simulation: how often a guarantee failed, with its standard error."""
    if not 0 <= violations <= trials or trials < 1:
        raise ValueError(f"{bench}/{case}: {violations} violations in {trials} trials")
    frac = violations / trials
    return {
        "bench": bench,
        "case": case,
        **dict.fromkeys(("ours", "peer", "peer_name", "unit")),
        "violation_frac": _rounded(frac),
        "se": _rounded(math.sqrt(frac * (1 - frac) / trials)),
        "trials": trials,
        "delta": delta,
        "coverage_frac": None if coverage_frac is None else _rounded(coverage_frac),
        **circumstances(None, workload, trials, seed, packages),
    }


def is_result(line: Mapping[str, Any]) -> bool:
    """Whether a line has the keys of a comparison, of a simulation, or of a demo."""
    keys = tuple(line)
    return keys in (RATIO_KEYS, SIMULATION_KEYS) or keys[:2] + keys[-len(_TAIL) :] == _DEMO_ENDS


def write_line(line: Mapping[str, Any], results_dir: Path = RESULTS_DIR) -> str:
    """Append a line to `<bench>.jsonl`, and return it as text."""
    if not is_result(line):
        raise ValueError(f"not the keys of a result line: {', '.join(line)}")
    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    results_dir.mkdir(parents=True, exist_ok=True)
    with (results_dir / f"{line['bench']}.jsonl").open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return text


def quantile(ordered: Sequence[float], frac: float) -> float:
    """The quantile of sorted samples, by linear interpolation."""
    place = frac * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def circumstances(
    bound: float | None, workload: str, repeats: int, seed: int, packages: Sequence[str]
) -> dict[str, Any]:
    """Where, when and from which code a line was measured: its last keys."""
    return {
        "bound": bound,
        "workload": workload,
        "repeats": repeats,
        "seed": seed,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **_versions(packages)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions(packages: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _machine() -> str:
    """Processor, cores and memory; no names of hosts or people."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].split(":", 1)[1].strip() if models else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {cores} cores, {memory:.0f} GiB, {sys.platform}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
