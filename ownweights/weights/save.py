"""A model as a hub folder that transformers, vLLM and llama.cpp's converter read.

Out: config.json, model.safetensors (tied head left out), generation_config.json, and the base's
tokenizer files byte for byte. Invariant: what was saved loads again with the same numbers, up to
the storage format (test_save_model_round_trip).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ownweights.core.artefact import writing
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.model.transformer import Transformer
from ownweights.weights.fused import join_fused
from ownweights.weights.load import WEIGHTS_NAME

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
_FILE_MODE = 0o644


def save_model(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer_from: Path | None = None,
) -> None:
    """Write `model` (adapters already merged) into `folder` in a storage format."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    assert not any("lora_" in name for name in state), "merge adapters before saving"
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in join_fused(state, model.config).items()
    }
    write_tensors(tensors, folder / WEIGHTS_NAME)
    spelled = str(dtype).removeprefix("torch.")
    config = model.config.to_hub() | {"torch_dtype": spelled, "dtype": spelled}
    config["tie_word_embeddings"] = model.lm_head is None  # a merged head is one of its own
    _write_json(folder / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(
        folder / "generation_config.json", {k: v for k, v in ids.items() if v not in (None, [])}
    )
    if tokenizer_from is not None:
        copy_tokenizer(tokenizer_from, folder)


def add_end_ids(folder: Path, ids: Iterable[int]) -> None:
    """Have engines that read generation_config.json stop at these tokens too."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_text("utf-8"))
    held = config.get("eos_token_id", [])
    ends = held if isinstance(held, list) else [held]
    ends += [one for one in ids if one not in ends]
    _write_json(path, config | {"eos_token_id": ends if len(ends) != 1 else ends[0]})


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file that everybody may read (the library makes it private).

    The library writes metadata in an order of chance; ours is sorted, so that the same tensors are
    the same bytes (test_train_student_again_gives_the_same_bytes).
    Raises: ArtefactUnwritten when the disk is full or may not be written
    """
    with writing(path, SafetensorError):
        save_file(dict(tensors), path, metadata={"format": "pt", **(metadata or {})})
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length, "the same header in another order is as long"
        file.seek(8)
        file.write(text)
    path.chmod(_FILE_MODE)


def check_new_folder(project: Project, to: Path) -> None:
    """Raise ArtefactError unless `to` is a folder that could be made outside of the project's own.

    A link that leads nowhere is there, too.
    """
    if to.exists() or to.is_symlink():
        raise ArtefactError(f"{to} exists already", hint="name a folder that does not exist yet")
    check_outside(project, to)


def check_outside(project: Project, to: Path) -> None:
    """Raise ArtefactError for a target among the project's artefacts, which never change."""
    if to.resolve().is_relative_to(project.store_dir.resolve()):
        raise ArtefactError(
            f"{to} is among the project's artefacts", hint="name a place outside of .own"
        )


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a checkpoint's tokenizer and chat template, byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
