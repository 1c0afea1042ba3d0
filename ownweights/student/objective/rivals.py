"""What a student says to requests of its train split: answers to be told apart from the recorded.

In: a student (or a base) and examples. Out: one answer each, drawn at temperature 1 by seed and
place, so that the same call gives the same answers. Whoever judges them makes pairs of those that
are worse (`dataset.pairs.verdict_pairs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ownweights.core.errors import Ineligible
from ownweights.core.project import Project
from ownweights.dataset.example import Example
from ownweights.model.generate import NaiveSampler
from ownweights.student.study import load_base
from ownweights.weights.student import Student, assemble, load_student

_MORE_TOKENS = 16  # than twice the recorded answer's: longer ones are wrong anyway


def speaker(project: Project, base: str, start: str | None) -> Student:
    """Who is to be trained, as it answers now: the student to start from, or the bare base.

    Raises: ArtefactMissing, ArtefactError, ModelError
    """
    if start is not None:
        return load_student(project, start)
    found = load_base(project, base)
    return assemble(found.id, found.model, found.path)


def sample_answers(
    student: Student, examples: Sequence[Example], *, seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """An answer to each example that fits the window, as a verdict keeps answers."""
    sampler = NaiveSampler(student.model, student.end_ids)
    window = student.model.config.max_position_embeddings
    found: list[dict[str, Any]] = []
    for index, example in enumerate(examples):
        try:
            prompt = student.template.render_prompt(example.messages)
        except Ineligible:
            continue
        if len(prompt) >= window:
            continue
        room = 2 * len(student.tokenizer.encode(example.target)) + _MORE_TOKENS
        ((ids, _),) = sampler.sample(
            [np.array(prompt, np.int32)], max_tokens=room, temperature=1.0, seed=seed + index
        )
        said = [token_id for token_id in ids.tolist() if token_id not in student.end_ids]
        found.append({"id": example.id, "answer": student.tokenizer.decode(said)})
        if on_progress is not None:
            on_progress(index + 1, len(examples))
    return found
