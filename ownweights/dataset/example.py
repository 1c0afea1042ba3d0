"""One request with the answer to learn: what the student sees, and what may count as right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownweights.dataset.logprobs import TokenLogprobs
from ownweights.dataset.prune import PruneRule, apply_prune


@dataclass(frozen=True, slots=True)
class Example:
    """One example. `request` is as it was asked, `messages` what the student sees of it.

    `references` are all distinct answers recorded for the same request in the split, target first;
    `id` is the record's own (the file's id where it had one). An example of certify or test that no
    answer can be compared with (the teacher called a tool, or was cut off) has the target "" and no
    references, so that whatever the student says cannot be judged right. `logprobs`: of train and
    develop, what the response told of each token's alternatives, if it did (dataset/logprobs.py).
    """

    id: str
    unit: str
    request: dict[str, Any]
    messages: list[dict[str, Any]]
    target: str
    references: tuple[str, ...]
    model: str
    metadata: dict[str, Any]
    logprobs: tuple[TokenLogprobs, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The example as a line of its split's file; the messages follow from the prune rule."""
        told = {"logprobs": [one.to_json() for one in self.logprobs]} if self.logprobs else {}
        return {
            "id": self.id, "unit": self.unit, "request": self.request, "target": self.target,
            "references": list(self.references), "model": self.model, "metadata": self.metadata,
            **told,
        }  # fmt: skip

    @classmethod
    def from_json(cls, line: Mapping[str, Any], rule: PruneRule | None) -> Example:
        """The example that `to_json` wrote, pruned by the dataset's rule."""
        return cls(
            id=line["id"], unit=line["unit"], request=line["request"],
            messages=apply_prune(rule, line["request"]["messages"]), target=line["target"],
            references=tuple(line["references"]), model=line["model"], metadata=line["metadata"],
            logprobs=tuple(map(TokenLogprobs.from_json, line.get("logprobs", ()))),
        )  # fmt: skip
