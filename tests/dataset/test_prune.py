"""A static system prompt may be left out, one that changes never, and serving does the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.prune import PruneRule, apply_prune, find_prune, system_hash

USER = {"role": "user", "content": "hello"}


def opening(content: Any, role: str = "system") -> list[dict[str, Any]]:
    return [{"role": role, "content": content}, USER]


def rule_for(content: str) -> PruneRule:
    rule = find_prune([opening(content)], wanted=True)
    assert rule is not None
    return rule


def test_find_prune_drops_a_prompt_that_all_have() -> None:
    rule = find_prune([opening("be brief"), opening("be brief")], wanted=True)
    assert rule == PruneRule(str(system_hash(opening("be brief"))), drops_system=True)


def test_find_prune_keeps_it_when_asked_to() -> None:
    rule = find_prune([opening("be brief")], wanted=False)
    assert rule is not None
    assert not rule.drops_system
    assert apply_prune(rule, opening("be brief")) == opening("be brief")


@pytest.mark.parametrize(
    "conversations",
    [
        [opening("for Ann"), opening("for Bob")],
        [opening("be brief"), [USER]],
        [opening("be brief"), opening("be brief", "developer")],
        [[USER]],
        [[USER, *opening("late")]],
        [],
    ],
)
def test_find_prune_has_no_rule_for_a_prompt_that_changes(conversations: Any) -> None:
    assert find_prune(conversations, wanted=True) is None


def test_apply_prune_leaves_out_the_very_prompt() -> None:
    assert apply_prune(rule_for("be brief"), opening("be brief")) == [USER]


def test_apply_prune_keeps_another_system_prompt() -> None:
    assert apply_prune(rule_for("be brief"), opening("be long")) == opening("be long")
    assert apply_prune(rule_for("be brief"), [USER]) == [USER]


def test_apply_prune_keeps_a_second_system_message() -> None:
    talk = [*opening("be brief"), {"role": "system", "content": "now in French"}, USER]
    assert apply_prune(rule_for("be brief"), talk) == talk[1:]


def test_apply_prune_without_a_rule_copies() -> None:
    talk = opening("be brief")
    seen = apply_prune(None, talk)
    assert seen == talk
    seen[0]["content"] = "changed"
    assert talk[0]["content"] == "be brief"


def test_system_hash_reads_text_however_it_is_spelled() -> None:
    parts = [{"type": "text", "text": "be brief"}]
    assert system_hash(opening(parts)) == system_hash(opening("be brief"))


def test_system_hash_of_no_messages_is_none() -> None:
    assert system_hash([]) is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_apply_prune_always_drops_only_its_own_prompt(ours: str, theirs: str) -> None:
    is_dropped = apply_prune(rule_for(ours), opening(theirs)) == [USER]
    assert is_dropped == (ours == theirs)


@pytest.mark.parametrize("drops", [True, False])
def test_prune_rule_survives_json(drops: bool) -> None:
    rule = PruneRule("ab12", drops)
    assert PruneRule.from_json(rule.to_json()) == rule
