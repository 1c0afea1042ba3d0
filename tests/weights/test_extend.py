"""A longer window: what is written, in both spellings, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ownweights.core.errors import ArtefactError, ArtefactUnwritten, ModelError, UsageError
from ownweights.lineage import trace
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.extend import (
    extend_base,
    extended_config,
    fine_tune_recipe,
    ntk_theta,
)
from ownweights.weights.load import load_model
from tests.disk import max_file_bytes
from tests.tiny import CONFIG
from tests.weights.made import logits, project_with_base

ROUNDING = 1e-5
RAW = CONFIG.to_hub()


def test_ntk_theta_has_its_golden_value() -> None:
    """training.md e3: base 10⁴, 128 numbers a head, fourfold."""
    assert ntk_theta(10_000.0, 4.0, 128) == pytest.approx(40889.942, abs=1e-3)


def test_extended_config_by_ntk_changes_the_base_of_the_rotation_alone() -> None:
    """training.md c.56: one number in both spellings."""
    found = extended_config(RAW, 192, "ntk")
    theta = 10_000.0 * 2 ** (8 / 6)
    assert found["rope_theta"] == found["rope_parameters"]["rope_theta"] == pytest.approx(theta)
    assert found["rope_parameters"]["rope_type"] == "default"
    assert (found["rope_scaling"], found["max_position_embeddings"]) == (None, 192)
    kept = {key: value for key, value in found.items() if "rope" not in key}
    assert kept == {k: v for k, v in RAW.items() if "rope" not in k} | {
        "max_position_embeddings": 192
    }


def test_extended_config_by_yarn_is_said_in_both_spellings() -> None:
    """training.md c.56: readers of v4 and of v5 find the same factor and the same old window."""
    found = extended_config(RAW, 384, "yarn")
    scaling = {"factor": 4.0, "original_max_position_embeddings": 96}
    assert found["rope_parameters"] == {"rope_type": "yarn", "rope_theta": 10_000.0, **scaling}
    assert found["rope_scaling"] == {"rope_type": "yarn", "type": "yarn", **scaling}
    assert found["rope_theta"] == 10_000.0


@pytest.mark.oracle
@pytest.mark.parametrize("spelling", ["both", "new", "old"])
def test_extended_config_is_read_by_transformers_in_either_spelling(spelling: str) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    raw = extended_config(RAW | {"head_dim": 32}, 384, "yarn")
    gone = {"both": (), "new": ("rope_theta", "rope_scaling"), "old": ("rope_parameters",)}
    config = LlamaConfig(**{k: v for k, v in raw.items() if k not in gone[spelling]})
    found, factor = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    assert factor == pytest.approx(0.1 * 4.0**0 * torch.log(torch.tensor(4.0)).item() + 1)
    assert found[0] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(10_000.0 ** (-30 / 32) / 4)


@pytest.mark.parametrize("to", [96, 95, 96 * 64 + 1])
def test_extended_config_refuses_what_is_no_extension(to: int) -> None:
    with pytest.raises(UsageError, match=f"a window of {to} tokens is no extension of 96") as no:
        extended_config(RAW, to, "ntk")
    assert no.value.hint == "--to takes 97 to 6144"


def test_extended_config_refuses_a_scaled_base() -> None:
    """Whoever reads the configuration refuses first, or this does."""
    scaled = RAW | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}
    with pytest.raises(ModelError):
        extended_config(scaled, 192, "ntk")


def test_extend_base_keeps_weights_and_words(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    old = tmp_path / "tiny"
    tokenizer = json.loads((old / "tokenizer_config.json").read_text("utf-8"))
    (old / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 96}))
    made = extend_base(project, "tiny", 192, method="ntk")
    assert made.path == resolve_base(project, made.id) == project.kind_dir("base") / made.id
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (made.path / name).read_bytes() == (old / name).read_bytes()
    changed = json.loads((made.path / "tokenizer_config.json").read_text("utf-8"))
    assert changed == tokenizer | {"model_max_length": 192}
    assert (made.old_window, made.new_window, made.factor) == (96, 192, 2.0)
    model = load_model(made.path)
    assert model.config.max_position_embeddings == 192
    assert model(torch.arange(190)[None]).shape == (1, 190, 32)
    root = trace(project, "base", made.id, verify=True)
    assert [(node.id, node.state) for _, node in root.walk()] == [
        (made.id, "here"), (base_id(old), "outside"),
    ]  # fmt: skip


@pytest.mark.oracle
def test_extend_base_by_ntk_matches_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = extend_base(project_with_base(tmp_path), "tiny", 192, method="ntk")
    theirs = AutoModelForCausalLM.from_pretrained(made.path)
    with torch.inference_mode():
        expected = theirs(torch.arange(7, 27).view(2, 10)).logits
    found = logits(load_model(made.path))
    assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.oracle
def test_extend_base_by_yarn_matches_transformers(tmp_path: Path) -> None:
    """Beyond the old window too, in the logits; skipped where the reader knows no scalings."""
    from transformers import AutoModelForCausalLM

    project = project_with_base(tmp_path)
    try:
        made = extend_base(project, "tiny", 384, method="yarn")
    except ModelError as error:
        pytest.skip(f"no scaled positions in this tree: {error.what}")
    theirs, tokens = AutoModelForCausalLM.from_pretrained(made.path), torch.arange(300)[None] % 260
    model = load_model(made.path)
    with torch.inference_mode():
        expected = theirs(tokens).logits
        found = model.logits(model(tokens))
    assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


def test_extend_base_into_a_named_folder(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    made = extend_base(project, "tiny", 192, method="ntk", name="long")
    assert made.path == resolve_base(project, "long") == tmp_path / "long"
    assert not project.kind_dir("base").exists()
    with pytest.raises(ArtefactError, match="long exists already"):
        extend_base(project, "tiny", 192, method="ntk", name="long")


def test_extend_base_on_a_full_disk_names_what_was_to_be_written(tmp_path: Path) -> None:
    """The weights that are copied from are not what could not be written."""
    project = project_with_base(tmp_path)
    message = r"/\.draft-[^/]*/model\.safetensors could not be written: File too large"
    with pytest.raises(ArtefactUnwritten, match=message), max_file_bytes(20_000):
        extend_base(project, "tiny", 192)
    assert list(project.kind_dir("base").iterdir()) == []


@pytest.mark.parametrize(("to", "steps"), [(192, 400), (96 * 16, 400), (96 * 17, 600)])
def test_fine_tune_recipe_scales_with_the_factor(tmp_path: Path, to: int, steps: int) -> None:
    """training.md e3: 400 steps up to sixteenfold, 200 more beyond; settings that are known."""
    import tomllib

    from ownweights.core.settings import load_settings

    project = project_with_base(tmp_path)
    made = extend_base(project, "tiny", to, method="ntk", name="long")
    recipe = fine_tune_recipe(made, num_examples=100)
    table, _, command = recipe.partition("\n\n")
    found: dict[str, Any] = tomllib.loads(table)["student"]["long"]
    assert found["epochs"] * 100 == steps * found["rows_per_step"]
    assert found["base"] == "long"
    assert command.startswith("own student train --workload long\nown weights check long")
    project.settings_path.write_text(table, "utf-8")
    assert load_settings(project).student_of("long").rank == 16
