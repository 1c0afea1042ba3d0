"""What `own doctor` foretells of a training, beside what the training then takes.

Caveats: random weights and random tokens in the shapes named. Each case measures the shape as `own
doctor --workload` does (in a process of its own), and then takes real steps of lengths and rows
that were not measured, in another; `memory` is the process's peak, `speed` the median step's tokens
a second. Both are taken minutes apart, so on a shared machine the speed's ratio has the machine's
noise in it; memory has none. `ours` is foretold, `peer` is real: a ratio of 1 is exact, above 1 the
estimate was careful (more memory, fewer tokens a second, than it turned out).

Cases: `memory seedling`, `speed seedling` (the embedded base, rank 128), `... seedling full` (all
its weights), `... 135M` (the 30 layers of a 135M Llama shape, of which 3 and 7 are measured).
Reproduce: make bench NAME=doctor_estimate
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from bench.result import ROOT, ratio_line
from ownweights.model.config import ModelConfig, read_config
from ownweights.student.preflight.calibrate import Point, Shape, measure
from ownweights.student.preflight.estimate import Calibration, Work

SEEDLING = ROOT / "ownweights" / "weights" / "seedling"
LLAMA_135M = ModelConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, head_dim=64, max_position_embeddings=2048,
)  # fmt: skip
# (case, sizes of real steps: rows, tokens in a row, trained tokens in all)
SIZES = {
    "seedling": [(32, 100, 320), (16, 300, 2400)],
    "seedling full": [(32, 100, 320)],
    "135M": [(8, 200, 400)],
}


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Two lines for each case: memory and speed."""
    for name, sizes in SIZES.items():
        if is_quick and name != "seedling":
            continue
        shape = shape_named(name)
        calibration = Calibration(shape, measure(shape))
        foretold: list[tuple[float, float]] = []
        real: list[tuple[float, float]] = []
        for rows, width, trained in sizes[: 1 if is_quick else None]:
            work = Work(((rows, width, trained),))
            peak = calibration.peak_bytes(rows, width, trained)
            foretold.append((peak / 1e6, work.tokens / calibration.seconds(work)))
            layers = shape.config.num_hidden_layers
            taken = take(shape, Point(layers, rows, width, trained))
            real.append((taken.peak_bytes / 1e6, work.tokens / taken.seconds))
        for index, (what, unit) in enumerate((("memory", "MB"), ("speed", "tokens/s"))):
            yield ratio_line(
                "doctor_estimate", f"{what} {name}", ours=[one[index] for one in foretold],
                peer=[one[index] for one in real], peer_name="real run", unit=unit,
                is_less_better=what == "speed", seed=seed, packages=("torch", "numpy", "scipy"),
                workload=f"{shape.method}, rows x tokens {sizes}",
            )  # fmt: skip


def shape_named(name: str) -> Shape:
    """The shape of a case."""
    config = LLAMA_135M if name == "135M" else read_config(SEEDLING)
    if name.endswith("full"):
        return Shape(config, "full", 0, 0.0)
    return Shape(config, "lora", 128 if name == "seedling" else 32, 64.0)


def take(shape: Shape, point: Point) -> Point:
    """Real steps of one size, in a process of their own."""
    asked = json.dumps({"shape": shape.to_json(), "point": asdict(point)})
    command = [sys.executable, "-m", "bench.doctor_estimate"]
    done = subprocess.run(
        command, input=asked, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return replace(point, **json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Take the steps that stdin asks for."""
    from ownweights.student.preflight.calibrate import take_steps

    asked = json.loads(sys.stdin.read())
    taken = take_steps(Shape.from_json(asked["shape"]), Point(**asked["point"]))
    print(json.dumps({"seconds": taken.seconds, "peak_bytes": taken.peak_bytes}))


if __name__ == "__main__":
    main()
