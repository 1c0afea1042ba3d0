"""What may be chosen when a dataset is built; every choice is part of the dataset's identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ownweights.core.errors import UsageError
from ownweights.dataset.normalise import NEAR_JACCARD
from ownweights.dataset.select import MAX_MESSAGE_BYTES
from ownweights.dataset.split import SPLIT_FRACTIONS, SPLIT_SALT, SPLITS


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """How a workload's records become a dataset.

    `split_by`: auto, session, prompt, session-or-prompt, or a metadata key. `fractions`: of train,
    develop, certify, test. `prune_system`: leave a static system prompt out of what is studied.
    `allow_teachers`: models to learn from although their terms deny it, by exact name.
    `declared_terms`: model name → id of the terms that hold for it, where its name does not tell.
    `data_licence`: of text that people wrote. `near_dup_jaccard`: from where questions are near.
    `canaries`: how many made-up secrets are planted in train (dataset/canary.py).
    """

    split_by: str = "auto"
    fractions: tuple[float, float, float, float] = SPLIT_FRACTIONS
    salt: str = SPLIT_SALT
    prune_system: bool = True
    allow_teachers: tuple[str, ...] = ()
    declared_terms: Mapping[str, str] = field(default_factory=dict[str, str])
    data_licence: str | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    near_dup_jaccard: float = NEAR_JACCARD
    canaries: int = 0

    def __post_init__(self) -> None:
        if len(self.fractions) != len(SPLITS) or min(self.fractions) < 0:
            raise UsageError(f"fractions needs four numbers ≥ 0 ({', '.join(SPLITS)})")
        if abs(sum(self.fractions) - 1) > 1e-9:
            raise UsageError(f"fractions add up to {sum(self.fractions):g}, expected 1")
        if not 0 < self.near_dup_jaccard <= 1:
            raise UsageError(f"near_dup_jaccard is {self.near_dup_jaccard:g}, expected (0, 1]")
        if not self.split_by:
            raise UsageError(
                "split_by is empty",
                hint="it is auto, session, prompt, session-or-prompt, or a metadata key",
            )
        if self.max_message_bytes < 1:
            raise UsageError(f"max_message_bytes is {self.max_message_bytes}, expected ≥ 1")
        if self.canaries < 0:
            raise UsageError(f"canaries is {self.canaries}, expected ≥ 0")

    def to_json(self) -> dict[str, Any]:
        """The options as they name the dataset; what is a set is ordered."""
        return {
            "split_by": self.split_by,
            "fractions": list(self.fractions),
            "salt": self.salt,
            "prune_system": self.prune_system,
            "allow_teachers": sorted(set(self.allow_teachers)),
            "declared_terms": dict(self.declared_terms),
            "data_licence": self.data_licence,
            "max_message_bytes": self.max_message_bytes,
            "near_dup_jaccard": self.near_dup_jaccard,
            **({"canaries": self.canaries} if self.canaries else {}),  # older ids stay
        }
