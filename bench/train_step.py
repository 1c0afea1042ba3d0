"""A training step: kept memory beside memory handed back, two workers beside one.

Caveats: each sample is a process of its own (how memory is kept holds for a whole process), and the
two sides take turns; a sample is the median step of a few, after two that warm up. The examples
are random tokens in the shape of a small workload (32 rows of 64 tokens, half of them trained), the
student a LoRA adapter of rank 32 on the embedded base. A `busy` case runs beside one process that
does nothing but count, as on a machine that others use; it says how a step degrades, not how fast
it is. No bound is given: the arithmetic is the same on both sides.

Cases: `memory`: blocks kept (`keep_freed_memory`) against glibc's defaults. `workers`: each of two
workers computes half a step's gradients on half the threads, against one that uses all threads for
each product. `workers busy`: the same beside a busy process. Reproduce:
make bench NAME=train_step
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from bench.result import ROOT, ratio_line

ROWS, LENGTH, RANK = 32, 64, 32
SIDES = {  # what one sample does: whether freed memory is kept, and how many workers there are
    "kept": (True, 2),
    "handed back": (False, 2),
    "one worker": (True, 1),
}


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each case."""
    repeats, steps = (2, 4) if is_quick else (5, 10)
    for case, peer, is_busy in (
        ("memory", "handed back", False), ("workers", "one worker", False),
        ("workers busy", "one worker", True),
    ):  # fmt: skip
        with neighbour() if is_busy else contextlib.nullcontext():
            pairs = [
                (sample("kept", steps, seed), sample(peer, steps, seed)) for _ in range(repeats)
            ]
        ours, theirs = zip(*pairs, strict=True)
        yield ratio_line(
            "train_step", case, ours=ours, peer=theirs, peer_name=peer, unit="tokens/s",
            is_less_better=False, seed=seed, packages=("torch", "numpy"),
            workload=f"{ROWS} rows of {LENGTH} tokens, LoRA rank {RANK}, embedded base",
        )  # fmt: skip


def sample(side: str, steps: int, seed: int) -> float:
    """Tokens a second of one side, in a process of its own."""
    command = [sys.executable, "-m", "bench.train_step", side, str(steps), str(seed)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that keeps a core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(side: str, steps: int, seed: int) -> float:
    """Tokens a second of the median step, here and now."""
    from ownweights.model.memory import keep_freed_memory

    is_kept, workers = SIDES[side]
    if is_kept:
        keep_freed_memory()
    import numpy as np

    from ownweights.model.lora import LoraConfig, attach_lora
    from ownweights.student import trainer as module
    from ownweights.student.examples import ExamplePlan, TokenRow
    from ownweights.weights.base import EMBEDDED_DIR
    from ownweights.weights.load import load_model

    model = load_model(EMBEDDED_DIR)
    attach_lora(model, LoraConfig(RANK, 2.0 * RANK), seed)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(7, model.config.vocab_size, (ROWS * 8, LENGTH)).astype(np.int32)
    rows = [TokenRow(ids, LENGTH // 2) for ids in tokens]
    plan = ExamplePlan(rows, epochs=99, rows_per_step=ROWS, max_tokens=ROWS * LENGTH, seed=seed)
    if workers == 1:
        module.NUM_WORKERS, module.halves = 1, lambda batch: [batch]
    trainer = module.Trainer(model, plan, recipe=module.Recipe(1e-3), run_id="bench")
    reports = [trainer.train_step() for _ in range(steps + 2)][2:]
    return statistics.median(report.num_tokens / report.seconds for report in reports)


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
