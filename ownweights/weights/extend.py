"""A base with a longer window: its positions turned more slowly, by YaRN or by a greater RoPE base.

In: a base and a number of tokens. Out: the same weights with another config.json, in both RoPE
spellings, and the recipe of the short fine-tune that makes it use the new room. Nothing is trained
here; `window` measures what the change costs before and after.

    ntk     θ' = θ·s^(D/(D-2)), s = new window / old: one number, read by everybody; fast turns
            stay, slow ones stretch by s
    yarn    fast turns stay, slow ones are divided by s, those between blend; queries and keys grow
            by 0.1 ln s + 1

Source: YaRN: Peng et al. 2023, arXiv 2309.00071 (recipe: its appendix); NTK-aware scaling as there.
Checked: test_extended_config_*, and against transformers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import draft_folder, seal
from ownweights.core.errors import ArtefactError, ModelError, UsageError
from ownweights.core.project import Project
from ownweights.model.config import parse_config, read_config
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.save import copy_tokenizer

METHODS = ("yarn", "ntk")
_MAX_FACTOR = 64.0
# YaRN's schedule: 400 steps up to sixteenfold, 200 more beyond; eight texts a step.
_STEPS, _STEPS_BEYOND, _FAR, _ROWS = 400, 200, 16.0, 8
_RANK, _ALPHA = 16, 64.0


@dataclass(frozen=True, slots=True)
class Extended:
    """A base with a longer window, and the one it came from."""

    id: str
    path: Path
    name: str
    base: Path
    method: str
    old_window: int
    new_window: int

    @property
    def factor(self) -> float:
        return self.new_window / self.old_window


def extend_base(
    project: Project, base_name: str, to: int, *, method: str = "yarn", name: str | None = None
) -> Extended:
    """Write the base with a window of `to` tokens: as a base of the project, or as the new folder
    `name` in it.

    Raises: UsageError when `to` is no extension; ModelError when its positions are scaled already
    """
    folder = resolve_base(project, base_name)
    config = read_config(folder)
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    changed = extended_config(raw, to, method)
    parse_config(changed)  # what is written is what is read
    target = None if name is None else project.root / name
    if target is not None and target.exists():
        raise ArtefactError(f"{target} exists already", hint="give another --name")
    old_id, home = base_id(folder), project.kind_dir("base") if target is None else project.root
    with draft_folder(home) as draft:
        _copy(folder, draft)
        _write_json(draft / "config.json", changed)
        _lengthen_tokenizer(draft / "tokenizer_config.json", to)
        made = seal(
            draft, "base",
            identity={"extended_from": old_id, "base_name": base_name, "method": method, "to": to},
            parents={"base": old_id},
            facts={"old_window": config.max_position_embeddings, "new_window": to},
        )  # fmt: skip
    if target is not None:
        os.rename(made.path, target)
    return Extended(
        made.id, target or made.path, name or made.id, folder, method,
        config.max_position_embeddings, to,
    )  # fmt: skip


def extended_config(raw: Mapping[str, Any], to: int, method: str) -> dict[str, Any]:
    """A hub configuration with a window of `to` tokens, in both RoPE spellings.

    Raises: UsageError when `to` is not longer, or much too long; ModelError when the positions are
    scaled already
    """
    assert method in METHODS, f"{method!r} is not one of {METHODS}"
    config = parse_config(raw)
    window, theta = config.max_position_embeddings, config.rope_theta
    if not window < to <= window * _MAX_FACTOR:
        raise UsageError(
            f"a window of {to} tokens is no extension of {window}",
            hint=f"--to takes {window + 1} to {int(window * _MAX_FACTOR)}",
        )
    _refuse_scaled(raw)
    factor = to / window
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    legacy: dict[str, Any] | None = None
    if method == "ntk":
        width = config.head_dim * float(raw.get("partial_rotary_factor") or 1.0)
        rope["rope_theta"] = ntk_theta(theta, factor, int(width))
    else:
        scaling = {"factor": factor, "original_max_position_embeddings": window}
        rope = {"rope_type": "yarn", "rope_theta": theta, **scaling}
        legacy = {"rope_type": "yarn", "type": "yarn", **scaling}
    return {
        **raw, "max_position_embeddings": to, "rope_theta": rope["rope_theta"],
        "rope_scaling": legacy, "rope_parameters": rope,
    }  # fmt: skip


def ntk_theta(theta: float, factor: float, width: int) -> float:
    """The RoPE base under which the slowest of `width` numbers turns `factor` times more slowly."""
    return theta * factor ** (width / (width - 2))


def fine_tune_recipe(made: Extended, num_examples: int = 400) -> str:
    """A settings table and the command for the short fine-tune on long texts.

    The numbers are those of YaRN's own recipe; the rate stays the derived one, as theirs was the
    usual rate of fine-tuning.
    """
    steps = _STEPS + (_STEPS_BEYOND if made.factor > _FAR else 0)
    epochs = max(1, math.ceil(steps * _ROWS / num_examples))
    return f"""\
# {steps} steps of {_ROWS} texts that fill the new window ({made.new_window:,} tokens)
[student.long]
base = {json.dumps(made.name)}
rank = {_RANK}
lora_alpha = {_ALPHA}
rows_per_step = {_ROWS}
hard_frac = 1.0
swap = false
epochs = {float(epochs)}  # {steps * _ROWS:,} over the number of your training examples

own student train --workload long
own weights check {made.name} --against {made.base.name}"""


def _refuse_scaled(raw: Mapping[str, Any]) -> None:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kinds = {str(rope.get("rope_type", rope.get("type", "default")))}
    if any(isinstance(value, dict) for value in rope.values()):
        kinds = {"by layer"}
    if kinds != {"default"}:
        raise ModelError(
            f"the base's positions are scaled already ({', '.join(kinds)})",
            hint="extend the base that it was made from, to the window you want at last",
        )


def _copy(folder: Path, draft: Path) -> None:
    """Weights, tokenizer and generation settings as they are."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
            shutil.copyfile(path, draft / path.name)
    if (folder / "generation_config.json").is_file():
        shutil.copyfile(folder / "generation_config.json", draft / "generation_config.json")
    copy_tokenizer(folder, draft)
    (draft / "canary.safetensors").unlink(missing_ok=True)  # of other positions


def _lengthen_tokenizer(path: Path, to: int) -> None:
    """`model_max_length`, beyond which other libraries warn or cut."""
    if not path.is_file():
        return
    config = json.loads(path.read_text("utf-8"))
    known = config.get("model_max_length")
    if isinstance(known, int | float) and known < to:
        _write_json(path, config | {"model_max_length": to})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
