"""Merged weights answer as the student, and what rounding takes from the update is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ownweights.core.artefact import read_card
from ownweights.core.errors import ArtefactError, UpdateLost
from ownweights.lineage import trace
from ownweights.weights.base import base_id
from ownweights.weights.canary import check_canary
from ownweights.weights.export.gguf_file import export_adapter_gguf, export_gguf
from ownweights.weights.export.peft_folder import export_peft
from ownweights.weights.load import load_model
from ownweights.weights.merge import MIN_COSINE, measure_survival, merge_student
from ownweights.weights.student import load_student
from tests.tiny import CHAT_TEMPLATE, END_ID, PAD_ID, tiny_model
from tests.weights.made import logits, make_full, make_lora, project_with_base

ROUNDING = 1e-5
STORED_ERROR = {"float32": 1e-6, "bfloat16": 0.1, "float16": 0.01}


def to_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("dtype", STORED_ERROR)
def test_merge_answers_as_the_student_does(tmp_path: Path, dtype: str, is_tied: bool) -> None:
    """training.md c.36: saved and read again, tied and untied, the logits are the same."""
    project = project_with_base(tmp_path, tie_word_embeddings=is_tied)
    student = make_lora(project)
    made = merge_student(project, student, to=tmp_path / "merged", dtype=dtype)
    expected = logits(load_student(project, student).model)
    found = load_model(made.path)
    assert (logits(found) - expected).abs().max() <= STORED_ERROR[dtype] * expected.abs().max()
    assert check_canary(found, made.path)
    assert made.canary_error is not None and made.canary_error <= STORED_ERROR[dtype]
    assert (found.lm_head is None) is is_tied


@pytest.mark.oracle
@pytest.mark.parametrize("is_tied", [True, False])
def test_merge_is_read_by_transformers_with_the_same_logits(tmp_path: Path, is_tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    project = project_with_base(tmp_path, tie_word_embeddings=is_tied)
    student = make_lora(project)
    made = merge_student(project, student, to=tmp_path / "merged", dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(made.path)
    with torch.inference_mode():
        found = theirs(torch.arange(7, 27).view(2, 10)).logits
    expected = logits(load_student(project, student).model)
    assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.parametrize(
    ("std", "cosine", "unchanged_frac"), [(1e-5, 0.46, 0.88), (1e-4, 0.95, 0.32), (1e-3, 0.999, 0)]
)
def test_measure_survival_finds_what_bfloat16_loses(
    std: float, cosine: float, unchanged_frac: float
) -> None:
    """training.md c.35: weights of std 0.02 and updates of several sizes, as measured there."""
    generator = torch.Generator().manual_seed(0)
    base = torch.empty(1024, 1024).normal_(0.0, 0.02, generator=generator).bfloat16().float()
    exact = base + torch.empty_like(base).normal_(0.0, std, generator=generator)
    layers, overall = measure_survival({"a.weight": base}, {"a.weight": exact}, to_bfloat16)
    assert overall.cosine == pytest.approx(cosine, abs=0.01)
    if unchanged_frac:
        assert overall.unchanged_frac == pytest.approx(unchanged_frac, abs=0.02)
    assert [one.layer for one in layers] == ["a"]
    assert (overall.cosine >= MIN_COSINE) is (std > 1e-4)


def test_measure_survival_matches_float64() -> None:
    base, exact = tiny_model(0).state_dict(), tiny_model(1).state_dict()
    exact["model.norm.weight"] = base["model.norm.weight"]  # not trained: not listed
    layers, overall = measure_survival(base, exact, to_bfloat16)
    assert len(layers) == len(exact) - 1
    trained, kept = [], []
    for one in layers:
        name = f"{one.layer}.weight"
        update = exact[name].double().numpy() - base[name].double().numpy()
        stored = to_bfloat16(exact[name]).double() - to_bfloat16(base[name]).double()
        cosine = np.vdot(update, stored.numpy())
        cosine /= np.linalg.norm(update) * np.linalg.norm(stored.numpy())
        assert one.cosine == pytest.approx(cosine, abs=1e-12)
        assert one.update_norm == pytest.approx(np.linalg.norm(update))
        trained.append(update.ravel())
        kept.append(stored.numpy().ravel())
    whole, stored_whole = np.concatenate(trained), np.concatenate(kept)
    cosine = whole @ stored_whole / np.linalg.norm(whole) / np.linalg.norm(stored_whole)
    assert overall.cosine == pytest.approx(cosine, abs=1e-12)


def test_measure_survival_of_no_update_is_whole() -> None:
    base = tiny_model().state_dict()
    layers, overall = measure_survival(base, base, to_bfloat16)
    assert (layers, overall.cosine, overall.update_norm) == ((), 1.0, 0.0)


def test_merge_refuses_an_update_that_rounding_loses(tmp_path: Path) -> None:
    """training.md c.35: below a cosine of 0.98 nothing is written, unless forced."""
    project = project_with_base(tmp_path)
    student = make_lora(project, update_std=1e-4)
    with pytest.raises(UpdateLost, match=r"keeps a cosine of 0\.\d+ .* the worst layer is") as lost:
        merge_student(project, student, to=tmp_path / "merged")
    assert lost.value.cosine < MIN_COSINE
    assert lost.value.exit_code == 4
    assert not (tmp_path / "merged").exists()
    forced = merge_student(project, student, to=tmp_path / "merged", is_forced=True)
    assert read_card(forced.path)["facts"]["is_forced"] is True
    exact = merge_student(project, student, to=tmp_path / "exact", dtype="float32")
    assert exact.overall.cosine == pytest.approx(1.0)


def test_merge_of_full_weights_measures_them_too(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    made = merge_student(project, make_full(project), to=tmp_path / "merged")
    assert MIN_COSINE < made.overall.cosine < 1
    with pytest.raises(UpdateLost):
        merge_student(project, make_full(project, update_std=1e-5), to=tmp_path / "lost")


def test_merge_becomes_a_base_with_its_lineage(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    student = make_lora(project)
    made = merge_student(project, student)
    assert made.path == project.kind_dir("base") / made.id
    root = trace(project, "base", made.id, verify=True)
    assert [(node.kind, node.id, node.state) for _, node in root.walk()] == [
        ("base", made.id, "here"),
        ("base", base_id(tmp_path / "tiny"), "outside"),
        ("student", student, "here"),
        ("base", base_id(tmp_path / "tiny"), "outside"),
    ]
    assert merge_student(project, student).id == made.id


def test_merge_writes_tokenizer_and_both_rope_spellings(tmp_path: Path) -> None:
    """training.md c.56: readers of either spelling find the same base of the rotation."""
    project = project_with_base(tmp_path, rope_theta=50_000.0)
    made = merge_student(project, make_lora(project), to=tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (made.path / name).read_bytes() == (tmp_path / "tiny" / name).read_bytes()
    config = json.loads((made.path / "config.json").read_text("utf-8"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 50_000.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_merge_names_every_end_of_an_answer(tmp_path: Path) -> None:
    """training.md c.17: the template's end of turn is no EOS of this config, and is named."""
    project = project_with_base(tmp_path, eos_token_ids=(PAD_ID,))
    config = json.loads((tmp_path / "tiny" / "tokenizer_config.json").read_text("utf-8"))
    config |= {"eos_token": "<|pad|>", "chat_template": CHAT_TEMPLATE}
    (tmp_path / "tiny" / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    made = merge_student(project, make_lora(project), to=tmp_path / "merged")
    ends = json.loads((made.path / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert ends == [PAD_ID, END_ID]


def test_merge_leaves_what_exists_alone(tmp_path: Path) -> None:
    project = project_with_base(tmp_path)
    with pytest.raises(ArtefactError, match="tiny exists already"):
        merge_student(project, make_lora(project), to=tmp_path / "tiny")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtefactError, match="link exists already"):
        merge_student(project, make_lora(project), to=tmp_path / "link")


def test_nothing_is_written_among_artefacts(tmp_path: Path) -> None:
    """The folder of a student, or a base under a name that is not its id."""
    project = project_with_base(tmp_path)
    student = make_lora(project)
    home = project.kind_dir("student") / student
    before = sorted(path.name for path in home.iterdir())
    for target in (home / "in", project.kind_dir("base") / "mine", home / "a" / ".." / "in"):
        with pytest.raises(ArtefactError, match="is among the project's artefacts"):
            merge_student(project, student, to=target)
        with pytest.raises(ArtefactError, match="is among the project's artefacts"):
            export_peft(project, student, to=target)
    for adapter in (export_adapter_gguf, export_gguf):
        with pytest.raises(ArtefactError, match="is among the project's artefacts"):
            adapter(project, student, home / "adapter_model.safetensors")
    assert sorted(path.name for path in home.iterdir()) == before
