"""A model as a hub folder that transformers, vLLM and llama.cpp's converter read.

Out: config.json, model.safetensors (tied head left out), generation_config.json, and the base's
tokenizer files byte for byte. Invariant: what was saved loads again with the same numbers, up to
the storage format (test_save_model_round_trip).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from ownweights.model.transformer import Transformer
from ownweights.weights.load import WEIGHTS_NAME

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip


def save_model(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer_from: Path | None = None,
) -> None:
    """Write `model` (adapters already merged) into `folder` in a storage format."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    assert not any("lora_" in name for name in tensors), "merge adapters before saving"
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    spelled = str(dtype).removeprefix("torch.")
    config = model.config.to_hub() | {"torch_dtype": spelled, "dtype": spelled}
    _write_json(folder / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(
        folder / "generation_config.json", {k: v for k, v in ids.items() if v not in (None, [])}
    )
    if tokenizer_from is not None:
        copy_tokenizer(tokenizer_from, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a checkpoint's tokenizer and chat template, byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
