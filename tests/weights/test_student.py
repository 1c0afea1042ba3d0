"""A student is loaded whole and on its own base, or the reason is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ownweights.core.artefact import draft_folder, seal
from ownweights.core.errors import ArtefactError, ArtefactMissing, ModelError
from ownweights.core.project import Project
from ownweights.model.transformer import Transformer
from ownweights.weights.base import base_id
from ownweights.weights.canary import save_canary
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from ownweights.weights.student import assemble, load_student
from tests.tiny import (
    END_ID,
    make_base,
    make_student,
    save_byte_tokenizer,
    tiny_model,
    with_adapter,
)

ROUNDING = 1e-5


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def logits(model: Transformer) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model(torch.arange(7, 17)[None]))


def test_load_student_folds_its_adapter_in(project: Project) -> None:
    student = load_student(project, make_student(project, seed=4))
    expected = logits(with_adapter(load_model(project.root / "tiny"), 4))
    assert (logits(student.model) - expected).abs().max() <= ROUNDING * expected.abs().max()
    assert not any("lora" in name for name in student.model.state_dict())


def test_load_student_knows_its_words_and_ends(project: Project) -> None:
    student = load_student(project, make_student(project))
    assert student.end_ids == {END_ID}
    assert student.tokenizer is student.template.tokenizer
    assert student.id == make_student(project)


def test_load_student_takes_full_weights(project: Project) -> None:
    base = make_base(project.root / "tiny")
    trained = tiny_model(seed=9)
    identity = {"base": base_id(base), "base_name": "tiny", "method": "full"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_model(trained, draft, tokenizer_from=base)
        student_id = seal(draft, "student", identity=identity).id
    assert torch.equal(logits(load_student(project, student_id).model), logits(trained))


def test_load_student_refuses_another_base(project: Project) -> None:
    student_id = make_student(project)
    make_base(project.root / "tiny", seed=8)
    with pytest.raises(ModelError, match=r"was trained on base .* but 'tiny' is now") as refusal:
        load_student(project, student_id)
    assert "put the old base back" in (refusal.value.hint or "")


def test_load_student_refuses_a_changed_file(project: Project) -> None:
    student_id = make_student(project)
    path = project.kind_dir("student") / student_id / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtefactError, match=r"'adapter_model.safetensors' is not what its card"):
        load_student(project, student_id)


def test_load_student_refuses_wrong_canaries(project: Project) -> None:
    base = make_base(project.root / "tiny")
    identity = {"base": base_id(base), "base_name": "tiny", "method": "full"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_model(tiny_model(seed=1), draft, tokenizer_from=base)
        save_canary(tiny_model(seed=2), draft)
        student_id = seal(draft, "student", identity=identity).id
    with pytest.raises(ModelError, match="do not answer as they did"):
        load_student(project, student_id)


def test_load_student_says_that_there_is_none(project: Project) -> None:
    make_student(project)
    with pytest.raises(ArtefactMissing, match="student 'beef' does not exist"):
        load_student(project, "beef")


def test_load_student_says_that_its_base_is_gone(project: Project) -> None:
    student_id = make_student(project)
    (project.root / "tiny").rename(project.root / "moved")
    with pytest.raises(ArtefactMissing, match="base 'tiny' was not found"):
        load_student(project, student_id)


def test_assemble_refuses_words_that_the_model_has_no_rows_for(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="ids up to 262, the model only 200 rows"):
        assemble("small", tiny_model(vocab_size=200), tmp_path)
