"""TRL's side of bench/train_vs_trl.py, and the reference for losses.

Runs in the peer's environment.

`python trl_sft.py JOB SIDE` reads what the bench wrote into the folder JOB (`model/`, `adapter/`,
`examples.json`, `steps.json`, `job.json`) and prints one JSON object: seconds and trained tokens of
each step, losses, peak memory. Sides:

default    SFTConfig as it comes, but for what the work fixes (rows, rate, no saving): weights as
           it loads them, bfloat16 by autocast, checkpointing, PEFT's float32 adapters
tuned      bfloat16 weights and adapters without autocast, no checkpointing; how it batches is the
           third word: `plain`, `by-length`, `packed`
float32    as tuned `by-length`, in float32 throughout
reference  no trainer: transformers and PEFT in float32, one row at a time, the steps of ours
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

BATCHING: dict[str, dict[str, Any]] = {
    "plain": {},
    "by-length": {"train_sampling_strategy": "group_by_length"},
    "packed": {"packing": True, "max_length": 1024},
}


def main() -> None:
    folder, side = Path(sys.argv[1]), sys.argv[2]
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    found = reference(folder, job) if side == "reference" else trl(folder, job, side)
    found["max_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def trl(folder: Path, job: dict[str, Any], side: str) -> dict[str, Any]:
    """Train with SFTTrainer; time between the beginning and the end of each step."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = json.loads((folder / "examples.json").read_text())
    batching = sys.argv[3] if len(sys.argv) > 3 else "by-length"
    given: dict[str, Any] = {
        "per_device_train_batch_size": job["rows_per_step"], "learning_rate": job["rate"],
        "max_steps": job["steps"], "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "use_cpu": True, "completion_only_loss": True, "disable_tqdm": True,
        "seed": job["seed"], "bf16": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    if side != "default":
        given |= {"gradient_checkpointing": False, "bf16": False, **BATCHING[batching]}
    if given.get("packing"):  # so that a step holds about as many tokens
        mean = sum(len(ids) for ids, _ in rows) / len(rows)
        packs = max(1, round(job["rows_per_step"] * mean / given["max_length"]))
        given["per_device_train_batch_size"] = packs
    masks = [[0] * prompt + [1] * (len(ids) - prompt) for ids, prompt in rows]
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "completion_mask": masks})
    model, more = _model(folder, job, side)
    trainer = SFTTrainer(
        model=model, args=SFTConfig(str(folder / "out"), **given), train_dataset=data,
        processing_class=_tokenizer(), **more,
    )  # fmt: skip
    counts: list[int] = []
    collate = trainer.data_collator

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        counts.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    trainer.data_collator = counted
    seconds: list[float] = []
    cpu_s: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-time.perf_counter())
            cpu_s.append(-time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds[-1] += time.perf_counter()
            cpu_s[-1] += time.process_time()

    trainer.add_callback(Clock())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trained = counts[: len(seconds)]  # one batch more may have been made ahead
    return {"seconds": seconds, "cpu_s": cpu_s, "trained": trained, "losses": losses}


def _model(folder: Path, job: dict[str, Any], side: str) -> tuple[Any, dict[str, Any]]:
    """What SFTTrainer is given: a path and a LoRA configuration, or a model made by hand."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(
        r=job["rank"], lora_alpha=job["alpha"], lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=job["targets"],
    )  # fmt: skip
    if side == "default":
        return str(folder / "model"), {"peft_config": lora}
    dtype = torch.float32 if side == "float32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    return get_peft_model(model, lora, autocast_adapter_dtype=False), {}


def _tokenizer() -> Any:
    """Examples are ids already; the trainer wants to know what pads and what ends."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


def reference(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The loss of each step of ours, by transformers and PEFT in float32, one row at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    moved = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(moved, lr=job["rate"], betas=(0.9, 0.999), weight_decay=0.0)
    losses: list[float] = []
    steps = json.loads((folder / "steps.json").read_text())[: job["reference_steps"]]
    for index, rows in enumerate(steps):
        total, loss = sum(len(ids) - prompt for ids, prompt in rows), 0.0
        for ids, prompt in rows:
            tokens = torch.tensor([ids])
            labels = tokens.clone()
            labels[:, :prompt] = -100
            logits = model(tokens, use_cache=False).logits[0, :-1]
            part = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum") / total
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(moved, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = job["rate"] * (job["steps"] - index) / job["steps"]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss)
    return {"losses": losses}


if __name__ == "__main__":
    main()
