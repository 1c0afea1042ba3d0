"""A student's adapter for PEFT: the same answers, the base named, trainable again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ownweights.core.errors import ArtefactError, ModelError
from ownweights.model.lora import LoraConfig
from ownweights.weights.adapter import (
    ADAPTER_NAME,
    CONFIG_NAME,
    Adapter,
    attach_adapter,
    read_adapter,
)
from ownweights.weights.base import base_id
from ownweights.weights.canary import CANARY_NAME
from ownweights.weights.export.peft_folder import DTYPES, base_reference, export_peft
from ownweights.weights.load import load_model
from ownweights.weights.student import load_student
from tests.tiny import make_student
from tests.weights.made import logits, make_full, make_lora, project_with_base

ROUNDING = 1e-5
STORED_ERROR = {"float32": 1e-5, "bfloat16": 0.05, "float16": 0.01}


@pytest.mark.parametrize("dtype", DTYPES)
def test_export_peft_answers_as_the_student(tmp_path: Path, dtype: str) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project)
    made = export_peft(project, student, to=tmp_path / "peft", dtype=dtype)
    expected = logits(load_student(project, student).model)
    model = load_model(tmp_path / "tiny")
    attach_adapter(model, read_adapter(made.path, base_id=base_id(tmp_path / "tiny")))
    assert (logits(model) - expected).abs().max() <= STORED_ERROR[dtype] * expected.abs().max()
    assert made.canary_error is not None and made.canary_error <= STORED_ERROR[dtype]
    assert (made.rank, made.findings) == (8, ())
    assert {t.dtype for t in load_file(made.path / ADAPTER_NAME).values()} == {DTYPES[dtype]}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("rank", [4, 8])
def test_export_peft_matches_peft(tmp_path: Path, rank: int) -> None:
    from peft import AutoPeftModelForCausalLM

    project = project_with_base(tmp_path)
    student = make_lora(project, LoraConfig(rank, 6.0))
    made = export_peft(project, student, to=tmp_path / "peft")
    theirs = AutoPeftModelForCausalLM.from_pretrained(made.path)  # finds the base by its name
    with torch.inference_mode():
        found = theirs(torch.arange(7, 27).view(2, 10)).logits
    expected = logits(load_student(project, student).model)
    assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_exported_adapter_can_be_trained_on(tmp_path: Path) -> None:
    """training.md c.48: loaded to be trained, here or in PEFT, both factors of each layer are."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    project = project_with_base(tmp_path)
    made = export_peft(project, make_lora(project), to=tmp_path / "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    theirs = PeftModel.from_pretrained(base, made.path, is_trainable=True)
    trained = {name for name, one in theirs.named_parameters() if one.requires_grad}
    model = load_model(tmp_path / "tiny")
    attach_adapter(model, read_adapter(made.path))
    ours = {name for name, one in model.named_parameters() if one.requires_grad}
    assert len(trained) == len(ours) == 2 * 7 * 2
    assert all("lora_" in name for name in trained | ours)


def test_export_peft_names_the_base_and_its_revision(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project)
    made = export_peft(project, student, to=tmp_path / "peft")
    config = json.loads((made.path / CONFIG_NAME).read_text("utf-8"))
    assert config["base_model_name_or_path"] == str(tmp_path / "tiny")
    assert config["revision"] == base_id(tmp_path / "tiny")
    card = (made.path / "README.md").read_text("utf-8")
    assert f"# Student {student}" in card
    assert f'base_model: "{tmp_path / "tiny"}"' in card
    told = export_peft(project, student, to=tmp_path / "b", base_name="a/b", revision="main")
    assert (told.base, told.revision) == ("a/b", "main")


def test_base_reference_of_a_hub_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name-1B" / "snapshots" / "0123abcd"
    assert base_reference(snapshot, "id") == ("org/name-1B", "0123abcd")
    assert base_reference(tmp_path / "model", "id") == (str(tmp_path / "model"), "id")


def test_export_peft_without_canary_logits_says_so(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    made = export_peft(project, make_student(project), to=tmp_path / "peft")
    assert made.canary_error is None


def test_export_peft_refuses_what_answers_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """training.md c.39: a loader that took alpha for the scale would be found by the canary."""
    from ownweights.weights.export import peft_folder

    project = project_with_base(tmp_path)
    student = make_lora(project)
    monkeypatch.setattr(peft_folder, "portable_adapter", lambda adapter: adapter)
    monkeypatch.setattr(
        peft_folder, "peft_config", lambda config, name: peft_config_with(config, name, alpha=1)
    )
    with pytest.raises(ModelError, match="does not answer as student"):
        export_peft(project, student, to=tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".draft")]


def peft_config_with(config: LoraConfig, name: str, *, alpha: int) -> dict[str, object]:
    from ownweights.weights.adapter import peft_config

    return peft_config(config, name) | {"lora_alpha": alpha}


def test_export_peft_refuses_full_weights_and_existing_folders(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    with pytest.raises(ModelError, match="has weights of its own and no adapter"):
        export_peft(project, make_full(project), to=tmp_path / "peft")
    with pytest.raises(ArtefactError, match="tiny exists already"):
        export_peft(project, make_lora(project), to=tmp_path / "tiny")


def test_export_peft_refuses_factors_beyond_float16(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project, LoraConfig(4, 8e6))
    with pytest.raises(ModelError, match=r"beyond the end of torch.float16") as refusal:
        export_peft(project, student, to=tmp_path / "peft", dtype="float16")
    assert refusal.value.hint == "--dtype bfloat16"


def test_export_peft_refuses_layers_that_peft_has_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a reader does that splits fused projections into the layers of our network."""
    from ownweights.weights.export import peft_folder

    def renamed(adapter: Adapter) -> Adapter:
        factors = {name.replace("q_proj", "qkv_proj"): one for name, one in adapter.factors.items()}
        return Adapter(adapter.config, factors, adapter.base_id)

    project = project_with_base(tmp_path)
    student = make_lora(project)
    monkeypatch.setattr(peft_folder, "portable_adapter", renamed)
    with pytest.raises(ModelError, match="are fused in its base's files") as refusal:
        export_peft(project, student, to=tmp_path / "peft")
    assert "is a PEFT folder as it is" in (refusal.value.hint or "")


def test_export_peft_finds_a_damaged_student(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project)
    (project.kind_dir("student") / student / CANARY_NAME).write_bytes(b"")
    with pytest.raises(ArtefactError, match="is not what its card says"):
        export_peft(project, student, to=tmp_path / "peft")
