"""Fine-tuning on a CPU: our trainer beside TRL's SFTTrainer with PEFT's LoRA.

Caveats: the two networks hold random or seedling's weights and the examples are random tokens (20
to 400, the first 30 to 70 % of each a prompt that is not trained), so what is measured is work and
not learning. Every sample is a process of its own with all threads; sides take turns, and a sample
is trained tokens (no padding, no prompt) a second over all steps but the first (--quick: over all,
there may be one). Both sides train a LoRA adapter of rank 16 on all linear layers with AdamW, 8
rows a step, the same rate and clipping. What TRL does on a GPU is another matter. `trl-tuned` is
TRL in bfloat16; its way of batching is the fastest of three, tried first. A processor without
matrix units for bfloat16 may be faster in float32: TRL's figure in that is told, too.

Each line also says, in its workload: the peak memory of both sides, by how much our losses differ
from those of transformers and PEFT in float32, one row at a time, over the first steps, and the
share of the bound that ours reaches, and the same ratio in processor time, which a busy machine
disturbs less. The bound: operations needed (two products for each linear
layer and token, the head for trained tokens alone, attention, the factors) over the rate of this
machine's fastest matrix product in the dtype that ours computes in.

Cases: `trl-default 135M`, `trl-tuned 135M`, `trl-default seedling`, `trl-tuned seedling`.
Reproduce: make bench NAME=train_vs_trl
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.load.gateways import python_with
from bench.result import ROOT, ratio_line

if TYPE_CHECKING:
    from ownweights.model.config import ModelConfig
    from ownweights.model.transformer import Transformer
    from ownweights.student.examples import TokenRow

PEER = (
    "torch==2.13.0", "transformers==5.23.0", "trl==1.16.0", "peft==0.21.2", "accelerate==1.15.0",
)  # fmt: skip
BATCHING = ("by-length", "plain", "packed")
RANK, ROWS, THREADS, RATE = 16, 8, 2, 2e-4
LONGEST, SHORTEST = 400, 20
MOST_LOSS_GAP_FRAC = 0.005


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a network's work a run measures."""

    repeats: int
    steps: int
    reference_steps: int


SIZES = {  # network: quick, full
    "135M": (Size(1, 1, 1), Size(3, 4, 3)),
    "seedling": (Size(1, 4, 2), Size(5, 20, 6)),
}


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """One line for each case."""
    peer = python_with("trl", *PEER)
    rates = {name: run([sys.executable, "-m", "bench.train_vs_trl", "rate", name])["flops_per_s"]
             for name in ("float32", "bfloat16")}  # fmt: skip
    tell(f"matrix products: {rates['float32'] / 1e9:.0f} GFLOP/s in float32,"
         f" {rates['bfloat16'] / 1e9:.0f} in bfloat16")  # fmt: skip
    for network, sizes in SIZES.items():
        size = sizes[0] if is_quick else sizes[1]
        folder = ROOT / "build" / "bench" / "train_vs_trl" / f"{network}-{seed}"
        command = [sys.executable, "-m", "bench.train_vs_trl"]
        job = run([*command, "job", str(folder), network, str(size.steps), str(seed),
                   str(size.reference_steps)])  # fmt: skip
        ours_words = [*command, "ours", str(folder)]
        side = [str(peer), str(ROOT / "bench" / "load" / "trl_sft.py"), str(folder)]
        tried = BATCHING[:1] if is_quick else BATCHING
        tuned = tried[0]
        if len(tried) > 1:
            tuned = max(tried, key=lambda name: speed(run([*side, "tuned", name])))
        more = "" if is_quick else f", {speed(run([*side, 'float32', tuned])):.0f} in float32"
        ours, default, best = [], [], []
        for _ in range(size.repeats):
            ours.append(run(ours_words))
            default.append(run([*side, "default"]))
            best.append(run([*side, "tuned", tuned]))
        expected = run([*side, "reference"])["losses"]
        gap = max(abs(a - b) / b for a, b in zip(ours[0]["losses"], expected, strict=False))
        bound = rates[ours[0]["dtype"]] / job["flops_per_trained"]
        for case, theirs, said in (
            ("trl-default", default, "SFTConfig's defaults"),
            ("trl-tuned", best, f"bfloat16, no checkpointing, batches {tuned}{more}"),
        ):
            memory = [max(one["max_rss_mib"] for one in each) for each in (ours, theirs)]
            fraction = sum(map(speed, ours)) / len(ours) / bound
            cpu = statistics.median(
                per_second(a, "cpu_s") / per_second(b, "cpu_s")
                for a, b in zip(ours, theirs, strict=True)
            )
            yield ratio_line(
                "train_vs_trl", f"{case} {network}", ours=[*map(speed, ours)],
                peer=[*map(speed, theirs)], peer_name="trl 1.16.0 + peft 0.21.2",
                unit="trained tokens/s", is_less_better=False, bound=float(f"{bound:.6g}"),
                seed=seed, packages=("torch", "numpy"),
                workload=(
                    f"{network}, {ROWS} rows of {SHORTEST}-{LONGEST} tokens a step, {size.steps}"
                    f" steps, LoRA {RANK}, AdamW; ours in {ours[0]['dtype']}; TRL: {said}; peak"
                    f" {memory[0]:.0f} MiB against {memory[1]:.0f}; loss off by {100 * gap:.3f} %"
                    f" of the reference's; {cpu:.2f} times in processor time;"
                    f" {100 * fraction:.0f} % of the bound;"
                    f" {100 * ours[0]['padding_frac']:.1f} % of ours is padding"
                ),
            )  # fmt: skip
            if gap > MOST_LOSS_GAP_FRAC:
                tell(f"{network}: the loss is off by {100 * gap:.2f} %, more than allowed")


def run(words: list[str]) -> dict[str, Any]:
    """The JSON that a process of its own prints last."""
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "seconds" in found:
        tell(f"{' '.join(words[-2:])}: {speed(found):.1f} trained tokens/s,"
             f" {found['max_rss_mib']:.0f} MiB")  # fmt: skip
    return found


def speed(side: dict[str, Any]) -> float:
    """Trained tokens a second of all steps but the first, which warms up, where there are more."""
    return per_second(side, "seconds")


def per_second(side: dict[str, Any], clock: str) -> float:
    """Trained tokens a second of a clock: `seconds`, or `cpu_s` of all threads."""
    first = 1 if len(side[clock]) > 1 else 0
    return sum(side["trained"][first:]) / sum(side[clock][first:])


def tell(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


# --- what runs in processes of its own


def make_job(folder: Path, network: str, steps: int, seed: int, reference: int) -> dict[str, Any]:
    """Write weights, a fresh adapter and examples for all sides."""
    import numpy as np

    from ownweights.model.lora import TARGETS
    from ownweights.weights.adapter import save_adapter
    from ownweights.weights.save import save_model

    model = make_model(network, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "model")
    save_adapter(model, adapter(model, seed), folder / "adapter", base_id="", base_name="bench")
    rng = np.random.default_rng(seed)
    examples: list[tuple[list[int], int]] = []
    for length in rng.integers(SHORTEST, LONGEST + 1, ROWS * steps):
        ids = rng.integers(3, model.config.vocab_size, length).tolist()
        examples.append((ids, int(length * rng.uniform(0.3, 0.7))))
    job = {
        "network": network, "steps": steps, "seed": seed, "rank": RANK, "alpha": 2 * RANK,
        "targets": list(TARGETS), "rate": RATE, "rows_per_step": ROWS, "threads": THREADS,
        "reference_steps": reference, "flops_per_trained": flops(model.config, examples),
    }  # fmt: skip
    (folder / "examples.json").write_text(json.dumps(examples))
    (folder / "job.json").write_text(json.dumps(job))
    return job


def make_model(network: str, seed: int) -> Transformer:
    """The weights: SmolLM2-135M's shape at random, or the embedded base."""
    from ownweights.model.config import ModelConfig
    from ownweights.model.transformer import Transformer, initialise
    from ownweights.weights.base import EMBEDDED_DIR
    from ownweights.weights.load import load_model

    if network == "seedling":
        return load_model(EMBEDDED_DIR)
    model = Transformer(ModelConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, head_dim=64, rope_theta=100_000.0,
        max_position_embeddings=8192, bos_token_id=1, eos_token_ids=(2,), pad_token_id=0,
    ))  # fmt: skip
    initialise(model, seed)
    return model


def adapter(model: Transformer, seed: int) -> Any:
    """A fresh adapter attached to a model; its configuration."""
    from ownweights.model.lora import LoraConfig, attach_lora

    config = LoraConfig(RANK, 2.0 * RANK)
    attach_lora(model, config, seed)
    return config


def flops(config: ModelConfig, examples: list[tuple[list[int], int]]) -> float:
    """Operations that training needs, for each trained token."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes = [(width, queries), (width, keys), (width, keys), (queries, width),
              (width, inner), (width, inner), (inner, width)]  # fmt: skip
    dense = 2 * 2 * sum(a * b for a, b in shapes)  # forward and the input's gradient
    thin = 3 * 2 * RANK * sum(a + b for a, b in shapes)
    total = 0.0
    for ids, prompt in examples:
        attention = (2 + 5) * queries * len(ids)  # of half the square: forward 2, backward 5
        total += len(ids) * config.num_hidden_layers * (dense + thin + attention)
        total += (len(ids) - prompt) * 2 * 2 * width * config.vocab_size
    return total / sum(len(ids) - prompt for ids, prompt in examples)


def train_ours(folder: Path) -> dict[str, Any]:
    """Train as `own student train` does, and note each step."""
    from ownweights.model.memory import keep_freed_memory

    keep_freed_memory()
    import numpy as np
    import torch

    from ownweights.student.examples import ExamplePlan, TokenRow
    from ownweights.student.precision import COMPUTE_DTYPES, derive_dtype
    from ownweights.student.train import MAX_PART_TOKENS
    from ownweights.student.trainer import Recipe, Trainer
    from ownweights.weights.load import load_model

    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    model = load_model(folder / "model")
    adapter(model, job["seed"])
    pairs = json.loads((folder / "examples.json").read_text())
    rows = [TokenRow(np.array(ids, np.int32), prompt) for ids, prompt in pairs]
    plan = ExamplePlan(
        rows, epochs=1, rows_per_step=ROWS, max_tokens=MAX_PART_TOKENS, seed=job["seed"]
    )
    read = [[row for part in plan.batches(step) for row in rows_of(part)]
            for step in range(plan.num_steps)]  # fmt: skip
    (folder / "steps.json").write_text(json.dumps([
        [(row.ids.tolist(), row.num_prompt) for row in step] for step in read
    ]))  # fmt: skip
    dtype, _ = derive_dtype("auto")
    recipe = Recipe(job["rate"], warmup_frac=0.0, beta2=0.999)
    trainer = Trainer(model, plan, recipe=recipe, run_id="bench", dtype=COMPUTE_DTYPES[dtype])
    reports, cpu_s, before = [], list[float](), time.process_time()
    for report in trainer:
        reports.append(report)
        cpu_s.append(time.process_time() - before)
        before += cpu_s[-1]
    computed, real = (
        sum(r.num_tokens for r in reports),
        sum(len(r.ids) - 1 for s in read for r in s),
    )
    return {
        "seconds": [r.seconds for r in reports], "trained": [r.num_trained for r in reports],
        "losses": [r.loss for r in reports], "cpu_s": cpu_s, "dtype": dtype,
        "padding_frac": 1 - real / computed,
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def rows_of(batch: Any) -> list[TokenRow]:
    """The examples that a batch was made of: what is trained ends each of them."""
    import numpy as np

    from ownweights.student.examples import TokenRow

    width, found = batch.tokens.shape[1], list[TokenRow]()
    for index, tokens in enumerate(batch.tokens.numpy()):
        mine = batch.where // width == index
        columns, targets = (batch.where[mine] % width).numpy(), batch.targets[mine].numpy()
        ids = np.append(tokens[: columns[-1] + 1], targets[-1])
        found.append(TokenRow(ids.astype(np.int32), int(columns[0]) + 1))
    return found


def measure_rate(dtype_name: str) -> dict[str, float]:
    """The fastest of a few matrix products, in operations a second."""
    import torch

    torch.set_num_threads(THREADS)
    size, best = 1024, 0.0
    a, b = (torch.randn(size, size).to(getattr(torch, dtype_name)) for _ in range(2))
    for _ in range(100):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return {"flops_per_s": best}


def main() -> None:
    words = sys.argv[1:]
    if words[0] == "job":
        found: Any = make_job(Path(words[1]), words[2], *map(int, words[3:]))
    elif words[0] == "ours":
        found = train_ours(Path(words[1]))
    else:
        found = measure_rate(words[1])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
