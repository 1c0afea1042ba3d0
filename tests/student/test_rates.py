"""Learning rates that nobody gave: the two rules, and what an objective makes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ownweights.model.transformer import Transformer
from ownweights.student.options import StudentOptions
from ownweights.student.rates import derive_rate, family_of
from tests.tiny import tiny_model


def model_of(width: int, family: str) -> Transformer:
    config = SimpleNamespace(hidden_size=width, family=SimpleNamespace(name=family))
    return cast("Transformer", SimpleNamespace(config=config))


@pytest.mark.parametrize(
    ("width", "family", "expected"),
    [(2048, "llama", 4.9e-4), (4096, "llama", 2.9e-4), (4096, "qwen3", 4.7e-4)],
)
def test_adamw_rate_is_the_published_one(width: int, family: str, expected: float) -> None:
    """Golden values of research/training.md §e9: Llama-3.2-1B, Llama-3.1-8B, Qwen3-8B."""
    options = StudentOptions(optimiser="adamw")
    rate, why = derive_rate(model_of(width, family), options)
    assert rate == pytest.approx(expected, rel=0.02)
    assert f"(2000 / {width})^" in why
    whole, _ = derive_rate(
        model_of(width, family), StudentOptions(optimiser="adamw", method="full")
    )
    assert whole == pytest.approx(rate / 10, rel=0.03)


@pytest.mark.parametrize(("objective", "share"), [("dpo", 30), ("on-policy", 3), ("text", 3)])
def test_rate_of_an_objective_is_a_share(objective: str, share: int) -> None:
    more: dict[str, Any] = {"teacher": "t"} if objective == "on-policy" else {}
    plain, _ = derive_rate(tiny_model(), StudentOptions())
    rate, why = derive_rate(tiny_model(), StudentOptions(objective=objective, **more))
    assert rate == pytest.approx(plain / share, rel=0.05)
    assert f"1/{share} of it for {objective}" in why


def test_rate_that_is_given_is_taken() -> None:
    assert derive_rate(tiny_model(), StudentOptions(learning_rate=0.5)) == (0.5, "as asked")


def test_family_of_a_plain_configuration_is_llama() -> None:
    assert family_of(tiny_model()) == "llama"
