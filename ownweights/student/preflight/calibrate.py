"""A few real training steps of a shape, measured: how long each takes, and the most memory held.

In: a `Shape` on stdin of a process of its own. Out: one JSON line of `Point`s. Every point is
measured in a process that did nothing before, because a process's peak only grows. Deep models
are measured with fewer of their layers, at two depths; `estimate` goes on from there.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from ownweights.core.errors import WontFit
from ownweights.model.config import ModelConfig, parse_config

NUM_TIMED = 2
MAX_SECONDS = 60.0  # after which the less important sizes are left out
ENOUGH_SECONDS = 3.0  # of steps of one size, on a machine that is slow or busy
_SHALLOW = 6  # layers up to which the model itself is measured
_STEP_FLOPS = 6e10  # of the largest step that is measured, about a second
_SEED = 1
_WAY = "fork" if sys.platform.startswith("linux") else "spawn"


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how much a training step costs, but for its examples."""

    config: ModelConfig
    method: str
    rank: int
    alpha: float
    dtype: str = "float32"

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.config.to_hub(), "method": self.method, "rank": self.rank,
            "alpha": self.alpha, "dtype": self.dtype,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shape:
        """The shape that `to_json` wrote."""
        config = parse_config(value["config"])
        return cls(config, value["method"], value["rank"], value["alpha"], value["dtype"])


@dataclass(frozen=True, slots=True)
class Point:
    """One size of a step and what it took. `rows` of `width` tokens, of which `trained` in all."""

    layers: int
    rows: int
    width: int
    trained: int
    seconds: float = 0.0
    peak_bytes: int = 0
    start_bytes: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.width


def measure(shape: Shape) -> list[Point]:
    """The points of a shape, measured in another process.

    Raises: WontFit when not even the smallest step could be taken
    """
    asked = json.dumps(shape.to_json())
    command = [sys.executable, "-m", "ownweights.student.preflight.calibrate"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:]
        raise WontFit(
            "a few steps of this base could not be measured here"
            f" (exit code {done.returncode}){': ' + said[0] if said else ''}",
            hint="it may need more memory than there is; take a smaller base",
        )
    return [Point(**point) for point in json.loads(lines[-1])]


def plan_points(shape: Shape) -> list[Point]:
    """What is measured, what matters most first: sizes that tell apart a step's own cost, its
    tokens', their width's and the scores'; each at two depths, or at the model's own where that is
    small.
    """
    config = shape.config
    layers = config.num_hidden_layers
    depths = [layers] if layers <= _SHALLOW else [max(1, layers // 10), max(2, layers // 4)]
    width = min(256, config.max_position_embeddings)
    narrow = max(2, width // 4)
    per_token = 6 * (layer_parameters(config) * depths[-1] + config.vocab_size * config.hidden_size)
    most = max(4 * width, min(8192, int(_STEP_FLOPS / per_token)))
    rows = max(2, most // width)
    sizes = [
        (2, narrow, 8), (rows, width, 4 * rows), (rows, width, rows * width),
        (rows, narrow, 4 * rows),
    ]  # fmt: skip
    return [Point(d, r, w, n) for r, w, n in sizes for d in depths]


def layer_parameters(config: ModelConfig) -> int:
    """Numbers in the matrices of one layer."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = config.hidden_size * config.head_dim * heads
    return attention + 3 * config.hidden_size * config.intermediate_size


def main() -> None:
    """Measure what stdin asks for."""
    shape = Shape.from_json(json.loads(sys.stdin.read()))
    import_module(
        "ownweights.student.preflight.estimate"
    )  # what a training loads; once for all forks
    context: Any = multiprocessing.get_context(_WAY)
    began, points = time.monotonic(), plan_points(shape)
    measured: list[Point] = []
    needed = 2 * len({point.layers for point in points})  # a small and a large step of each depth
    for point in points:
        if len(measured) >= needed and time.monotonic() - began > MAX_SECONDS:
            break
        receive, send = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(shape, point, send))
        worker.start()
        send.close()
        try:
            measured.append(Point(**receive.recv()))
        except EOFError:
            sys.exit(f"a step of {point.tokens} tokens died")
        finally:
            worker.join()
    # a fork counts no pages of libraries that it did not touch again: once without one
    missing = take_steps(shape, points[0]).peak_bytes - measured[0].peak_bytes
    print(json.dumps([asdict(_shifted(point, missing)) for point in measured]))  # noqa: T201


def _shifted(point: Point, missing: int) -> Point:
    """A point as if its process had loaded everything itself."""
    return replace(
        point, start_bytes=point.start_bytes + missing, peak_bytes=point.peak_bytes + missing
    )


def _work(shape: Shape, point: Point, send: Any) -> None:
    send.send(asdict(take_steps(shape, point)))
    send.close()


def take_steps(shape: Shape, point: Point) -> Point:
    """Steps of one size, here and now."""
    from ownweights.model.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from ownweights.model.lora import LoraConfig, attach_lora
    from ownweights.model.transformer import Transformer
    from ownweights.student.precision import COMPUTE_DTYPES
    from ownweights.student.trainer import Recipe, Trainer

    start = _peak_bytes()
    torch.manual_seed(_SEED)
    model = Transformer(replace(shape.config, num_hidden_layers=point.layers))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0) if parameter.ndim < 2 else parameter.normal_(0.0, 0.02)
    if shape.method == "lora":
        attach_lora(model, LoraConfig(shape.rank, shape.alpha), _SEED)
    plan, dtype = _Same(point, shape.config.vocab_size), COMPUTE_DTYPES[shape.dtype]
    trainer = Trainer(model, plan, recipe=Recipe(1e-4, 1e-4), run_id="", dtype=dtype)
    seconds: list[float] = []
    for report in trainer:  # the first step warms up
        seconds.append(report.seconds)
        if len(seconds) > 1 and sum(seconds) > ENOUGH_SECONDS:
            break
    return replace(
        point, seconds=statistics.median(seconds[1:]), peak_bytes=_peak_bytes(), start_bytes=start
    )


class _Same:
    """A plan whose steps all have the same examples, of random tokens."""

    num_steps = 1 + NUM_TIMED

    def __init__(self, point: Point, vocab_size: int) -> None:
        import torch

        from ownweights.student.trainer import Batch

        draw = torch.Generator().manual_seed(_SEED)
        shape = (point.rows, point.width)
        tokens = torch.randint(0, vocab_size, shape, generator=draw)
        each = point.trained // point.rows
        last = torch.arange(point.width - each, point.width)
        where = (torch.arange(point.rows)[:, None] * point.width + last).flatten()
        targets = torch.randint(0, vocab_size, (len(where),), generator=draw)
        self._parts = [Batch(tokens, where, targets)]

    def batches(self, step: int) -> Sequence[Any]:
        """The same parts at every step."""
        return self._parts


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
