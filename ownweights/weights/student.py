"""A student as it answers: the base with its adapter folded in, or full weights; words and numbers.

In: a project and a student's id. Out: a `Student` in memory. Invariants: a student runs on the very
base it was trained on (test_load_student_refuses_another_base), its files are those of its card
(test_load_student_refuses_a_changed_file), and its canary logits are reproduced where it has any
(test_load_student_refuses_wrong_canaries).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownweights.core.artefact import Artefact, open_artefact
from ownweights.core.errors import ModelError
from ownweights.core.project import Project
from ownweights.model.lora import merge_lora
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import attach_adapter, read_adapter
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.canary import check_canary
from ownweights.weights.load import load_model


@dataclass(frozen=True, slots=True)
class Student:
    """Weights in float32 with nothing left to fold in, the words they were taught, and the ends."""

    id: str
    model: Transformer
    template: ChatTemplate
    end_ids: frozenset[int]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer


def load_student(project: Project, student_id: str) -> Student:
    """The student, checked and ready to answer.

    Raises: ArtefactMissing, ArtefactError, ModelError
    """
    artefact = open_artefact(project.kind_dir("student"), student_id, "student", verify=True)
    base = _base_of(project, artefact)
    if artefact.card["identity"].get("method") == "full":
        model = load_model(artefact.path)
    else:
        model = load_model(base)
        adapter = read_adapter(artefact.path, base_id=artefact.card["identity"]["base"])
        attach_adapter(model, adapter, where=str(artefact.path))
        merge_lora(model)
    check_canary(model, artefact.path)
    return assemble(artefact.id, model, base)


def assemble(name: str, model: Transformer, words: Path) -> Student:
    """A model with the tokenizer and chat template of the folder `words`.

    Raises: ModelError when the vocabulary has ids that the model has no row for
    """
    tokenizer = Tokenizer.load(words)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ModelError(
            f"{words}: the tokenizer has ids up to {tokenizer.vocab_size - 1},"
            f" the model only {model.config.vocab_size} rows"
        )
    template = ChatTemplate.load(words, tokenizer)
    ends = {template.end_id, *model.config.eos_token_ids}
    if tokenizer.eos_id is not None:
        ends.add(tokenizer.eos_id)
    return Student(name, model, template, frozenset(ends))


def _base_of(project: Project, artefact: Artefact) -> Path:
    identity = artefact.card["identity"]
    path = resolve_base(project, str(identity.get("base_name")))
    found = base_id(path)
    if found != identity.get("base"):
        raise ModelError(
            f"student {artefact.id} was trained on base {identity.get('base')},"
            f" but {identity.get('base_name')!r} is now {found}",
            hint="put the old base back, or train the student again on this one",
        )
    return path
