"""An open model at hand that tells the student its whole distribution: a base or a student.

It reads the student's ids as they are, so each id must be the same text in both tokenizers; where
one is not, the teacher is refused with the first that differs (training.md c.52;
test_teacher_of_another_tokenizer_is_refused). Only then may its network have more or fewer rows
than the student's (c.53). It is never trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownweights.core.errors import ArtefactMissing, ModelError
from ownweights.core.project import Project
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer
from ownweights.student.study import Base, load_base
from ownweights.weights.hub import PREFIX as HUB_PREFIX
from ownweights.weights.student import load_student


@dataclass(frozen=True, slots=True)
class LocalTeacher:
    """A model with the student's tokenizer, of `num_ids` ids. `kind` is base or student."""

    name: str
    id: str
    kind: str
    model: Transformer
    num_ids: int

    @property
    def window(self) -> int:
        """Positions that it reads at most."""
        return self.model.config.max_position_embeddings

    @property
    def settings(self) -> Mapping[str, Any]:
        """As it stands on the student's card."""
        return {"teacher": self.id, "teacher_name": self.name}

    @property
    def parents(self) -> Mapping[str, str]:
        """As the student's lineage names it."""
        return {f"teacher_{self.kind}": self.id}


def load_teacher(project: Project, name: str, base: Base) -> LocalTeacher:
    """The student or base of that name, fit to teach what starts from `base`.

    Raises: ArtefactMissing, ArtefactError, ModelError
    """
    try:
        found = load_student(project, name)
        kind, teacher_id, model, tokenizer = "student", found.id, found.model, found.tokenizer
    except ArtefactMissing:
        other = _base(project, name)
        kind, teacher_id, model, tokenizer = "base", other.id, other.model, other.tokenizer
    num_ids = check_same_words(base.tokenizer, tokenizer, name)
    model.requires_grad_(False)
    return LocalTeacher(name, teacher_id, kind, model, num_ids)


def _base(project: Project, name: str) -> Base:
    try:
        return load_base(project, name)
    except ArtefactMissing as error:
        if name.startswith(HUB_PREFIX):
            raise
        raise ArtefactMissing(
            f"the teacher {name!r} is neither a student nor a base",
            hint=f"own student show lists the students; for a base, {error.hint}",
        ) from None


def check_same_words(ours: Tokenizer, theirs: Tokenizer, name: str) -> int:
    """How many ids both tokenizers have, each the same text in both.

    Raises: ModelError naming the first id that is not
    """
    num_ids = max(ours.vocab_size, theirs.vocab_size)
    for token_id in range(num_ids):
        mine, other = ours.token_text(token_id), theirs.token_text(token_id)
        if mine != other:
            raise ModelError(
                f"teacher {name!r} has another tokenizer: id {token_id} is {_shown(other)},"
                f" the student's is {_shown(mine)}",
                hint="take a teacher of the same family, or learn from its answers as text (sft)",
            )
    return num_ids


def _shown(text: str) -> str:
    return f"{text!r:.60}" if text else "none"
