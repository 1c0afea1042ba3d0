"""The profile that every reader takes, and the linter that knows what they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownweights.core.errors import ModelError
from ownweights.model.lora import LoraConfig
from ownweights.weights.adapter import ADAPTER_NAME, CONFIG_NAME, attach_adapter, read_adapter
from ownweights.weights.export.peft_folder import export_peft
from ownweights.weights.export.profile import RANKS, lint_adapter, portable_adapter
from ownweights.weights.load import load_model
from tests.weights.made import logits, make_lora, project_with_base

ROUNDING = 1e-5
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"
EMBEDDING = "base_model.model.model.embed_tokens"


@pytest.mark.parametrize(("rank", "padded"), [(1, 8), (8, 8), (9, 16), (200, 256)])
def test_portable_adapter_computes_the_same(tmp_path: Path, rank: int, padded: int) -> None:
    """training.md c.39, c.40: alpha is the rank, one rank for all layers, the scale in B."""
    project = project_with_base(tmp_path)
    student = make_lora(project, LoraConfig(rank, 1.5 * rank, ("q_proj", "down_proj")))
    adapter = read_adapter(project.kind_dir("student") / student)
    portable = portable_adapter(adapter)
    assert (portable.config.rank, portable.config.alpha) == (padded, float(padded))
    assert {(a.shape[0], b.shape[1]) for a, b in portable.factors.values()} == {(padded, padded)}
    ours, theirs = (load_model(tmp_path / "tiny") for _ in range(2))
    attach_adapter(ours, adapter)
    attach_adapter(theirs, portable)
    expected = logits(ours)
    assert (logits(theirs) - expected).abs().max() <= ROUNDING * expected.abs().max()


def test_portable_adapter_refuses_a_rank_that_nobody_serves(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project, LoraConfig(257, 257.0, ("q_proj",)))
    adapter = read_adapter(project.kind_dir("student") / student)
    with pytest.raises(ModelError, match="rank 257 is served by no common engine"):
        portable_adapter(adapter)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project = project_with_base(tmp_path)
    return export_peft(project, make_lora(project), to=tmp_path / "peft").path


def test_lint_adapter_finds_nothing_in_what_is_exported(folder: Path) -> None:
    assert lint_adapter(folder) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "use_dora = True: vLLM and llama.cpp know no DoRA"),
        ({"use_rslora": True}, "use_rslora = True: llama.cpp's converter ignores it"),
        ({"modules_to_save": ["lm_head"]}, "vLLM and llama.cpp load no saved modules"),
        ({"rank_pattern": {"q_proj": 4}}, "llama.cpp's converter reads no patterns"),
        ({"bias": "all"}, "vLLM and llama.cpp add no bias"),
        ({"lora_alpha": 16}, "lora_alpha is not r"),
        ({"r": 12, "lora_alpha": 12}, "r = 12: vLLM serves 8, 16, 32"),
        ({"revision": None}, "revision is not said"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is not said"),
    ],
)
def test_lint_adapter_names_what_a_reader_ignores(
    folder: Path, changed: dict[str, Any], said: str
) -> None:
    """training.md c.38, c.39, c.40: DoRA, saved modules, rsLoRA, patterns, alpha and rank."""
    config = json.loads((folder / CONFIG_NAME).read_text("utf-8")) | changed
    (folder / CONFIG_NAME).write_text(json.dumps(config), "utf-8")
    assert any(said in finding for finding in lint_adapter(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_B.weight"), f"{QUERY}: has lora_A alone"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(3, 32)}), "is not of rank 8"),
        (lambda t: t[f"{QUERY}.lora_A.weight"].fill_(torch.nan), "what is no number"),
        (lambda t: t.update({f"{EMBEDDING}.lora_embedding_A": torch.ones(8, 2)}),
         "not a LoRA factor"),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(8, 32)}),
         "llama.cpp loads no adapter of head or embedding"),
    ],
)  # fmt: skip
def test_lint_adapter_names_a_wrong_tensor(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    """training.md c.41: an adapter of the embedding or the head breaks llama.cpp."""
    tensors = load_file(folder / ADAPTER_NAME)
    change(tensors)
    save_file(tensors, folder / ADAPTER_NAME)
    assert any(said in finding for finding in lint_adapter(folder))


def test_lint_adapter_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config.json cannot be read"):
        lint_adapter(tmp_path)


def test_ranks_are_those_of_the_profile() -> None:
    assert RANKS == (8, 16, 32, 64, 128, 256)
