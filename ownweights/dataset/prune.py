"""Whether the student sees the system prompt: a static one may be left out, a changing one never.

A small student that answers one workload learns its instruction from the examples; reading the same
system prompt with every request would cost time and context for nothing. The rule is found when the
dataset is built, stored on its card, and applied by the same function when serving
(test_apply_prune_keeps_another_system_prompt).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ownweights.core.artefact import hash_json
from ownweights.dataset.prompt import SYSTEM_ROLES
from ownweights.traffic.workload import content_text


@dataclass(frozen=True, slots=True)
class PruneRule:
    """The system message of a workload by hash, and whether the student goes without it."""

    system_hash: str
    drops_system: bool

    def to_json(self) -> dict[str, Any]:
        """The rule as it stands on a card or in a route."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PruneRule:
        """The rule that `to_json` wrote."""
        return cls(str(value["system_hash"]), bool(value["drops_system"]))


def find_prune(
    conversations: Sequence[Sequence[Mapping[str, Any]]], wanted: bool
) -> PruneRule | None:
    """The rule for a workload: None unless every conversation opens with one and the same system
    message."""
    hashes = {system_hash(messages) for messages in conversations}
    if len(hashes) != 1:
        return None
    found = hashes.pop()
    return None if found is None else PruneRule(found, drops_system=wanted)


def system_hash(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The hash of the system message that opens a conversation; None where none does.

    Text counts as text, whether it is spelled as a string or as a list of one part.
    """
    if not messages or messages[0].get("role") not in SYSTEM_ROLES:
        return None
    return hash_json([messages[0]["role"], content_text(messages[0].get("content"))])


def apply_prune(
    rule: PruneRule | None, messages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The messages as the student sees them: without the very system message the rule drops."""
    drops = rule is not None and rule.drops_system and system_hash(messages) == rule.system_hash
    return [dict(message) for message in (messages[1:] if drops else messages)]
