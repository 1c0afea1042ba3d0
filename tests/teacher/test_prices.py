"""Prices: what an answer cost, by whose price, and what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import UsageError
from ownweights.teacher.prices import (
    LIST_DATE,
    OWN_TOML,
    Billed,
    Prices,
    billed_of,
    is_standard_tier,
    list_prices,
)

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"


def usage(**counts: Any) -> dict[str, Any]:
    return {"usage": counts}


@pytest.mark.parametrize(
    ("said", "billed"),
    [
        (usage(prompt_tokens=10, completion_tokens=2), Billed(fresh=10, written=2)),
        (
            usage(
                prompt_tokens=10, completion_tokens=2, prompt_tokens_details={"cached_tokens": 4}
            ),
            Billed(fresh=6, cached=4, written=2),
        ),
        (
            usage(input_tokens=10, output_tokens=2, input_tokens_details={"cached_tokens": 10}),
            Billed(fresh=0, cached=10, written=2),
        ),
        (
            usage(
                input_tokens=10,
                output_tokens=2,
                cache_read_input_tokens=100,
                cache_creation_input_tokens=50,
                cache_creation={"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            ),
            Billed(fresh=10, cached=100, kept_short=20, kept_long=30, written=2),
        ),
        (
            usage(input_tokens=1, output_tokens=2, cache_creation_input_tokens=50),
            Billed(fresh=1, kept_short=50, written=2),
        ),
        (usage(prompt_tokens=8), Billed(fresh=8)),
        (usage(prompt_tokens=0, completion_tokens=0), Billed()),
        (usage(), None),
        (usage(completion_tokens=4), None),
        (usage(prompt_tokens="8", completion_tokens=1), None),
        (usage(prompt_tokens=-8), None),
        (usage(prompt_tokens=True), None),
        ({"usage": None}, None),
        ({"usage": [1]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_billed_of_reads_every_makers_counts(said: dict[str, Any], billed: Billed | None) -> None:
    assert billed_of(said) == billed


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from([
        "usage", "prompt_tokens", "input_tokens", "prompt_tokens_details", "cached_tokens",
        "cache_creation", "cache_read_input_tokens", "completion_tokens", "service_tier",
    ]), inner))))  # fmt: skip
def test_billed_of_takes_any_json(said: Any) -> None:
    found = billed_of({"usage": said})
    assert found is None or found.total >= 0
    assert is_standard_tier({"usage": said}) in (True, False)


def test_cost_matches_the_makers_own_sums() -> None:
    """The sums of Anthropic's page on caching for 1 M tokens each, and a cached OpenAI answer."""
    sonnet = list_prices(ANTHROPIC, "claude-sonnet-4-6")
    assert sonnet is not None
    million = 10**6
    assert sonnet.cost(Billed(fresh=million)) == pytest.approx(3.0)
    assert sonnet.cost(Billed(kept_short=million)) == pytest.approx(3.75)
    assert sonnet.cost(Billed(kept_long=million)) == pytest.approx(6.0)
    assert sonnet.cost(Billed(cached=million)) == pytest.approx(0.3)
    assert sonnet.cost(Billed(written=million)) == pytest.approx(15.0)
    mini = list_prices(OPENAI, "gpt-4o-mini")
    assert mini is not None
    assert mini.cost(Billed(fresh=1000, cached=1000, written=100)) == pytest.approx(
        (1000 * 0.15 + 1000 * 0.075 + 100 * 0.6) / 1e6
    )


def test_cost_of_a_cached_token_is_that_of_any_where_no_other_price_is_known() -> None:
    assert Prices(2.0, 8.0).cost(Billed(cached=10**6)) == 2.0
    assert Prices(2.0, 8.0, 0.0).cost(Billed(cached=10**6)) == 0.0


@pytest.mark.parametrize(
    ("url", "model", "per_mtok"),
    [
        (OPENAI, "gpt-4o", 2.5),
        (OPENAI, "gpt-4o-2024-08-06", 2.5),
        (OPENAI, "gpt-4o-2024-05-13", 5.0),
        (ANTHROPIC, "claude-haiku-4-5-20251001", 1.0),
        (OPENAI, "gpt-4o-mini-tts", None),
        (OPENAI, "claude-haiku-4-5", None),
        (OPENAI, "", None),
        ("http://127.0.0.1:8000/v1", "gpt-4o", None),
        ("https://api.openai.com.example.org/v1", "gpt-4o", None),
        ("https://[/v1", "gpt-4o", None),
    ],
)
def test_list_price_holds_at_its_makers_address_alone(
    url: str, model: str, per_mtok: float | None
) -> None:
    found = list_prices(url, model)
    assert (found and found.usd_per_mtok_in) == per_mtok
    assert found is None or (LIST_DATE in found.source and found.source != OWN_TOML)


@pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
def test_prices_refuse_what_can_be_none(price: float) -> None:
    with pytest.raises(UsageError, match="usd_per_mtok_cached is"):
        Prices(1.0, 1.0, price)


@pytest.mark.parametrize(
    ("said", "is_standard"),
    [
        ({}, True),
        ({"service_tier": "default"}, True),
        ({"service_tier": "priority"}, False),
        ({"usage": {"service_tier": "batch"}}, False),
        ({"usage": {"service_tier": "standard"}}, True),
    ],
)
def test_tier_is_read_where_it_is_told(said: dict[str, Any], is_standard: bool) -> None:
    assert is_standard_tier(said) is is_standard
