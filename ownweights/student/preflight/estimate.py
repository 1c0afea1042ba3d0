"""How much memory and time a training will take here, from steps that were measured here.

In: a base's shape, and the rows of a run. Out: an `Estimate`, and a `WontFit` where the memory is
not there. A few steps of the shape are measured once (`calibrate`) and kept in .own/calibration/,
named by machine, shape and versions. Memory is linear in layers, tokens in flight, and scores; time
in layers, tokens, tokens by width, and trained tokens: non-negative least squares over relative
errors find how much each costs. Memory is told for the longest examples side by side; at sizes
that were not measured it came out up to a tenth too low (bench/doctor_estimate.py), and as much
must stay free (test_estimate_foretells_memory).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

import ownweights
from ownweights.core.artefact import hash_json, write_atomic
from ownweights.core.errors import WontFit
from ownweights.core.project import Project
from ownweights.model.config import ModelConfig
from ownweights.model.memory import available_bytes
from ownweights.student.loss import CHUNK_POSITIONS, CHUNK_SCORES
from ownweights.student.precision import COMPUTE_DTYPES, derive_dtype
from ownweights.student.preflight.calibrate import Point, Shape, layer_parameters, measure
from ownweights.student.train import MAX_PART_TOKENS, Run, StudentOptions
from ownweights.student.trainer import NUM_WORKERS, Batch, piece_tokens

FOLDER = "calibration"
RESERVE_FRAC = 0.1  # of what is free, that a run must leave
NUM_SAMPLED_STEPS = 40
_FLOAT_BYTES = 4
SCORE_BYTES = 8.0  # a score and what becomes of it, where that was not measured


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take. `free_bytes` is what there was for it."""

    peak_bytes: int
    free_bytes: int
    seconds: float
    tokens_per_s: float
    steps: int
    longest: int

    @property
    def fits(self) -> bool:
        """Whether the memory is there, with a little to spare."""
        return self.peak_bytes <= (1 - RESERVE_FRAC) * self.free_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """The examples of a step: parts (rows, width, trained) that are gone through one by one."""

    parts: tuple[tuple[int, int, int], ...]

    @property
    def tokens(self) -> int:
        return sum(rows * width for rows, width, _ in self.parts)


class Calibration:
    """Measured points of one shape, and what follows from them for the whole model."""

    def __init__(self, shape: Shape, points: Sequence[Point]) -> None:
        self.shape, self.points = shape, list(points)
        self._vocab = shape.config.vocab_size
        self._piece = piece_tokens(shape.config, COMPUTE_DTYPES[shape.dtype])
        sizes = [self._of_memory(p.layers, (p.rows, p.width, p.trained)) for p in points]
        costs = [self._of_time(p.layers, Work(((p.rows, p.width, p.trained),))) for p in points]
        scores = 0.0 if any(p.trained == p.tokens for p in points) else SCORE_BYTES
        held = [p.peak_bytes - p.start_bytes for p in points]
        if scores:  # no point tells what they cost: as much as the arithmetic says
            held = [most - scores * size[-1] for most, size in zip(held, sizes, strict=True)]
            sizes = [np.append(size[:-1], 0.0) for size in sizes]
        self._memory = _fit(sizes, held)
        self._memory[-1] += scores
        self._time = _fit(costs, [p.seconds for p in points])
        self.start_bytes = max(p.start_bytes for p in points)

    def peak_bytes(self, rows: int, width: int, trained: int) -> int:
        """The most memory held while a part of that size is learned, the process and the loading of
        the base counted in."""
        layers = self.shape.config.num_hidden_layers
        learning = self._of_memory(layers, (rows, width, trained)) @ self._memory
        loading = 2 * num_parameters(self.shape.config) * _FLOAT_BYTES
        return int(self.start_bytes + max(learning, loading))

    def seconds(self, work: Work) -> float:
        """How long one step takes."""
        return float(self._of_time(self.shape.config.num_hidden_layers, work) @ self._time)

    def _of_memory(self, layers: int, part: tuple[int, int, int]) -> np.ndarray:
        rows, width, trained = part
        chunk = min(CHUNK_POSITIONS, max(1, CHUNK_SCORES // self._vocab))
        each = min(chunk, -(-trained // NUM_WORKERS))
        tokens = min(rows * width, NUM_WORKERS * max(self._piece, width))  # at any one time
        return np.array([1.0, layers, tokens, layers * tokens, NUM_WORKERS * each * self._vocab])

    def _of_time(self, layers: int, work: Work) -> np.ndarray:
        tokens = work.tokens
        squares = sum(rows * width * width for rows, width, _ in work.parts)
        trained = sum(count for _, _, count in work.parts)
        return np.array([1.0, layers, tokens, layers * tokens, layers * squares, trained])


def calibrate(project: Project, shape: Shape) -> Calibration:
    """The measured costs of a shape on this machine: as kept, or measured now (some seconds).

    Raises: WontFit when not even the smallest step could be taken
    """
    path = calibration_path(project, shape)
    try:
        points = [Point(**point) for point in json.loads(path.read_text("utf-8"))["points"]]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or of no use
        points = measure(shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"shape": shape.to_json(), "machine": _machine(),
                "points": [asdict(point) for point in points]}  # fmt: skip
        write_atomic(path, json.dumps(kept, indent=1).encode())
    return Calibration(shape, points)


def calibration_path(project: Project, shape: Shape) -> Path:
    """Where the measurements of a shape on this machine, with these versions, are kept."""
    name = hash_json([shape.to_json(), _machine()])[:12]
    return project.store_dir / FOLDER / f"{name}.json"


def shape_of(config: ModelConfig, options: StudentOptions) -> Shape:
    """The shape that a training with these options has."""
    rank = options.rank if options.method == "lora" else 0
    alpha = float(options.lora_alpha or 2 * options.rank)
    dtype, _ = derive_dtype(options.compute_dtype)
    return Shape(config, options.method, rank, alpha if rank else 0.0, dtype)


def estimate_run(
    run: Run, calibration: Calibration, *, rows_per_step: int | None = None,
    free_bytes: int | None = None,
) -> Estimate:  # fmt: skip
    """What a planned run will take, perhaps with other `rows_per_step` (memory alone, then)."""
    plan = run.plan
    lengths = [len(row.ids) - 1 for row in plan.rows]
    longest, most = max(lengths), max(len(row.trained_at()) for row in plan.rows)
    rows = max(1, min(rows_per_step or plan.rows_per_step, _most_rows(longest)))
    work = _sampled(run)
    seconds = sum(map(calibration.seconds, work)) / len(work)
    tokens = sum(one.tokens for one in work) / len(work)
    return Estimate(
        peak_bytes=calibration.peak_bytes(rows, longest, rows * most),
        free_bytes=_free_bytes() if free_bytes is None else free_bytes,
        seconds=seconds * plan.num_steps, tokens_per_s=tokens / seconds if seconds else 0.0,
        steps=plan.num_steps, longest=longest,
    )  # fmt: skip


def check_fits(run: Run, calibration: Calibration, *, free_bytes: int | None = None) -> Estimate:
    """The estimate of a run that fits.

    Raises: WontFit, naming the setting with which it would
    """
    found = estimate_run(run, calibration, free_bytes=free_bytes)
    if found.fits:
        return found
    raise WontFit(
        f"this training would need about {_gb(found.peak_bytes)} of memory, and"
        f" {_gb(found.free_bytes)} are free",
        needed_bytes=found.peak_bytes, free_bytes=found.free_bytes,
        hint=_way_out(run, calibration, found),
    )  # fmt: skip


def check_weights(config: ModelConfig, *, free_bytes: int | None = None) -> None:
    """Refuse a base whose weights alone do not fit, before they are read.

    Raises: WontFit
    """
    free = _free_bytes() if free_bytes is None else free_bytes
    needed = num_parameters(config) * _FLOAT_BYTES
    if needed > (1 - RESERVE_FRAC) * free:
        raise WontFit(
            f"the base's weights alone need {_gb(needed)} of memory, and {_gb(free)} are free",
            needed_bytes=needed, free_bytes=free, hint="take a smaller base",
        )  # fmt: skip


def is_foretold(options: StudentOptions) -> bool:
    """Whether the costs of a run's kind are known: of recorded answers, on a base held whole."""
    return options.objective == "sft" and options.method in ("lora", "full")


def is_surely_small(
    config: ModelConfig, options: StudentOptions, *, free_bytes: int | None = None
) -> bool:
    """Whether a run takes less than half of the free memory by the most careful reckoning, so that
    nothing needs to be measured before it starts."""
    free = _free_bytes() if free_bytes is None else free_bytes
    window = config.max_position_embeddings
    tokens = min(max(MAX_PART_TOKENS, window), options.rows_per_step * window)
    copies = 7 if options.method == "lora" else 9  # weights, formed, gradients of each worker, ...
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    each = 24 * config.hidden_size + 8 * config.intermediate_size + 4 * heads * config.head_dim
    numbers = (
        copies * num_parameters(config)
        + tokens * config.num_hidden_layers * each
        + 3 * NUM_WORKERS * CHUNK_POSITIONS * config.vocab_size
    )
    return 2 * (_FLOAT_BYTES * numbers + 10**9) < free


def num_parameters(config: ModelConfig) -> int:
    """Numbers in a model's matrices."""
    tables = 1 if config.tie_word_embeddings else 2
    return (
        tables * config.vocab_size * config.hidden_size
        + config.num_hidden_layers * layer_parameters(config)
    )


def _way_out(run: Run, calibration: Calibration, found: Estimate) -> str:
    rows = run.plan.rows_per_step
    while rows > 1:
        rows //= 2
        if estimate_run(run, calibration, rows_per_step=rows, free_bytes=found.free_bytes).fits:
            return f"set rows_per_step = {rows}"
    shape = calibration.shape
    if shape.method != "lora":
        return 'set method = "lora"'
    rank, config = shape.rank, shape.config
    wide = 2 * config.hidden_size + config.intermediate_size  # a layer's in and out, about
    while rank > 8:
        rank //= 2
        spared = 16 * (shape.rank - rank) * config.num_hidden_layers * 4 * wide
        if found.peak_bytes - spared <= (1 - RESERVE_FRAC) * found.free_bytes:
            return f"set rank = {rank} and rows_per_step = 1"
    return f"take a smaller base; the longest example has {found.longest} tokens"


def _most_rows(longest: int) -> int:
    """Rows that are ever side by side: as many as a part's tokens allow, however long they are."""
    return -(-max(MAX_PART_TOKENS, longest) // longest)


def _sampled(run: Run) -> list[Work]:
    """Some steps of the first pass, as they will be."""
    num_steps = min(run.plan.steps_per_epoch, run.plan.num_steps)
    places = sorted(set(np.linspace(0, num_steps - 1, NUM_SAMPLED_STEPS).astype(int).tolist()))
    return [Work(tuple(map(_size, run.plan.batches(step)))) for step in places]


def _size(part: Batch) -> tuple[int, int, int]:
    rows, width = part.tokens.shape
    return rows, width, len(part.targets)


def _fit(features: Sequence[np.ndarray], found: Sequence[float]) -> np.ndarray:
    """How much of each feature explains what was found, none of them less than nothing."""
    table, values = np.array(features, float), np.maximum(np.array(found, float), 1e-9)
    table = table / values[:, None]  # relative errors
    scale = np.maximum(np.abs(table).max(0), 1e-30)
    weights, _ = nnls(table / scale, np.ones(len(values)))
    return weights / scale


def _free_bytes() -> int:
    """What this process may hold in all: what it has, and what is free besides."""
    return available_bytes() + _own_bytes()


def _own_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine() -> dict[str, Any]:
    """What else decides how long a step takes."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next(one.split(":", 1)[1].strip() for one in lines if one.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": name, "threads": threads, "torch": importlib.metadata.version("torch"),
        "ownweights": ownweights.__version__,
    }  # fmt: skip


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
