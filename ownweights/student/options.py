"""What may be chosen when a student is trained; every choice is part of the student's identity.

An option that the objective has no use for is refused by name, never ignored
(test_student_options_refuse_what_an_objective_does_not_use).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ownweights.core.errors import SettingsError
from ownweights.core.tables import MAX_SEED, OBJECTIVES
from ownweights.student.precision import AUTO, derive_dtype

METHODS = ("lora", "qlora", "full")
PACKING, PACKINGS = "nf4", ("nf4", "int8")
OPTIMISERS = ("muon", "adamw")
TURNS = ("last", "all")
# option → the objectives that read it
_USED_BY = {
    "teacher": ("distil", "on-policy"), "divergence": ("distil", "on-policy"),
    "temperature": ("distil", "on-policy"), "ce_frac": ("distil", "logprobs"),
    "dpo_beta": ("dpo",), "pairs": ("dpo",), "text": ("text",),
    "max_answer_tokens": ("on-policy",),
}  # fmt: skip
_NEEDS = {"distil": "teacher", "on-policy": "teacher"}


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """How a student is trained; None means derived (and said on the card with its reason).

    `objective` is what is learned, `method` which weights learn it. `start` is a student whose
    adapter is trained on, `teacher` a base or student by name, `divergence` 0 for the forward KL, 1
    for the reverse and between them JSD, `ce_frac` the share of plain cross-entropy, `pairs` and
    `text` files, `packing` how qlora holds the base.
    """

    base: str = "seedling"
    method: str = "lora"
    rank: int = 128
    lora_alpha: float | None = None
    epochs: float | None = None
    learning_rate: float | None = None
    rows_per_step: int = 32
    hard_frac: float = 0.5
    swap: bool = True
    turns: str = "last"
    seed: int = 1
    compute_dtype: str = AUTO
    checkpoint_every_s: float = 30.0
    objective: str = "sft"
    optimiser: str = "muon"
    head: bool = False
    start: str | None = None
    teacher: str | None = None
    divergence: float | None = None
    temperature: float | None = None
    ce_frac: float | None = None
    dpo_beta: float | None = None
    pairs: str | None = None
    text: str | None = None
    max_answer_tokens: int | None = None
    packing: str | None = None

    @property
    def is_choosy(self) -> bool:
        """Whether later epochs visit what cost most, as `hard_frac` says."""
        return self.objective in ("sft", "distil", "logprobs")

    @property
    def can_swap(self) -> bool:
        """Whether examples may be made of several, as `swap` says."""
        return self.objective in ("sft", "distil")

    def __post_init__(self) -> None:
        self._check_words()
        derive_dtype(self.compute_dtype)
        for name in ("rank", "rows_per_step"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingsError(f"seed must be between 0 and {MAX_SEED}")
        if not 0 <= self.hard_frac <= 1:
            raise SettingsError(f"hard_frac must be in [0, 1], got {self.hard_frac}")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < math.inf:
            raise SettingsError(f"lora_alpha must be more than 0, got {self.lora_alpha}")
        if self.epochs is not None and not 0 < self.epochs <= 1000:
            raise SettingsError(f"epochs must be more than 0 and at most 1000, got {self.epochs}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise SettingsError(f"learning_rate must be in (0, 1), got {self.learning_rate}")
        self._check_numbers()
        self._check_use()

    def _check_words(self) -> None:
        choices = {
            "method": METHODS, "objective": OBJECTIVES, "optimiser": OPTIMISERS, "turns": TURNS,
        }  # fmt: skip
        for name, known in choices.items():
            if (given := getattr(self, name)) not in known:
                raise SettingsError(f"{name} {given!r} is not one of {', '.join(known)}")

    def _check_numbers(self) -> None:
        for name in ("divergence", "ce_frac"):
            given = getattr(self, name)
            if given is not None and not 0 <= given <= 1:
                raise SettingsError(f"{name} must be in [0, 1], got {given}")
        for name in ("temperature", "dpo_beta"):
            given = getattr(self, name)
            if given is not None and not 0 < given <= 100:
                raise SettingsError(f"{name} must be more than 0 and at most 100, got {given}")
        if self.max_answer_tokens is not None and self.max_answer_tokens < 1:
            raise SettingsError(
                f"max_answer_tokens must be at least 1, got {self.max_answer_tokens}"
            )

    def _check_use(self) -> None:
        """Refuse what is given and would be read by nothing, and what is needed and not given."""
        for name, users in _USED_BY.items():
            if getattr(self, name) is not None and self.objective not in users:
                raise SettingsError(
                    f"{name} is of no use to the objective {self.objective!r}",
                    hint=f"it belongs to {' and '.join(users)}; leave it out",
                )
        if self.turns != "last" and not self.can_swap:
            raise SettingsError(
                f"turns {self.turns!r} is of no use to the objective {self.objective!r}",
                hint="it belongs to sft and distil; leave it out",
            )
        needed = _NEEDS.get(self.objective)
        if needed is not None and getattr(self, needed) is None:
            raise SettingsError(
                f"the objective {self.objective!r} needs a {needed}",
                hint=f"--{needed} takes a base or a student by name",
            )
        if self.packing is not None and self.packing not in PACKINGS:
            raise SettingsError(f"packing {self.packing!r} is not one of {', '.join(PACKINGS)}")
        if self.packing is not None and self.method != "qlora":
            raise SettingsError(
                f"packing is of no use to the method {self.method!r}",
                hint="it belongs to the method qlora; leave it out",
            )
        if self.method == "full" and (self.head or self.start is not None):
            name = "head" if self.head else "start"
            raise SettingsError(
                f"{name} is about an adapter, and method 'full' trains none",
                hint="with method 'full' the head is trained anyway, and `base` may be a student"
                " that was trained so",
            )
