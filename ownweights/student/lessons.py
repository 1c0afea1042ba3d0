"""Which maker belongs to which objective; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ownweights.student.study import Lesson, Study

_MAKERS = {
    "sft": ("sft", "sft_lesson"),
    "dpo": ("preference", "dpo_lesson"),
    "distil": ("distil", "distil_lesson"),
    "logprobs": ("logprobs", "logprobs_lesson"),
    "on-policy": ("on_policy", "on_policy_lesson"),
    "text": ("text", "text_lesson"),
}


def make_lesson(study: Study) -> Lesson:
    """What the study's objective makes of its dataset.

    Raises: InputError when there is nothing to learn from; ModelError for an unfit teacher
    """
    module, name = _MAKERS[study.options.objective]
    maker: Callable[[Study], Lesson] = getattr(
        import_module(f"ownweights.student.objective.{module}"), name
    )
    return maker(study)
