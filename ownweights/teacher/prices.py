"""What rented answers cost: prices, what of an answer is billed, and the makers' public lists.

In: prices from own.toml, or the address and model asked; the `usage` that an answer carries. Out:
dollars, or None where a price or a count is not known, never zero in its place
(test_cost_is_unknown_without_prices). Tokens read from a cache have a price of their own; without
one they cost what others do. Writing one costs a factor more, where the answer counts it. A list
price holds at its maker's own address alone, for the standard tier; own.toml goes before it
(test_upstream_prices_of_own_toml_go_before_the_list).
Sources: developers.openai.com/api/docs/pricing and platform.claude.com/docs, "Pricing", both as of
`LIST_DATE`; the names of the counts from both makers' API references.
Checked: test_cost_matches_the_makers_own_sums.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from ownweights.core.errors import UsageError

LIST_DATE = "2026-11-05"
OWN_TOML = "own.toml"
CACHE_WRITE_FACTORS = (1.25, 2.0)  # of the price of a token read: kept for 5 minutes, for an hour
CHARS_PER_TOKEN = 4.0  # of English text in the tokenizers in use, roughly
_STANDARD = (None, "auto", "default", "standard")
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_MOST = 2**31


@dataclass(frozen=True, slots=True)
class Billed:
    """The tokens of one answer by what they cost: read anew, from a cache, into one; written."""

    fresh: int = 0
    cached: int = 0
    kept_short: int = 0
    kept_long: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.fresh + self.cached + self.kept_short + self.kept_long + self.written


@dataclass(frozen=True, slots=True)
class Prices:
    """What a teacher takes, in US dollars for a million tokens; `source` says who says so."""

    usd_per_mtok_in: float
    usd_per_mtok_out: float
    usd_per_mtok_cached: float | None = None
    source: str = field(default=OWN_TOML, compare=False)

    def __post_init__(self) -> None:
        for name in ("usd_per_mtok_in", "usd_per_mtok_out", "usd_per_mtok_cached"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < float("inf"):
                raise UsageError(f"{name} is {price!r}, expected a price from 0 on")

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        """The price of so many tokens, none of them from a cache."""
        return (self.usd_per_mtok_in * tokens_in + self.usd_per_mtok_out * tokens_out) / 1e6

    def cost(self, billed: Billed) -> float:
        """The price of one answer."""
        cached = self.usd_per_mtok_cached
        short, long = CACHE_WRITE_FACTORS
        read = billed.fresh + short * billed.kept_short + long * billed.kept_long
        from_cache = billed.cached * (self.usd_per_mtok_in if cached is None else cached)
        return self.usd(read, billed.written) + from_cache / 1e6


def billed_of(response: Mapping[str, Any] | None) -> Billed | None:
    """What an answer says it took; None where it does not say.

    OpenAI counts cached tokens among those read, Anthropic beside them.
    """
    said = _table(response, "usage")
    counts = [_count(said, one) for one in ("prompt_tokens", "input_tokens")]
    if not said or counts == [None, None]:
        return None
    read = next(count for count in counts if count is not None)
    details = [_table(said, one) for one in ("prompt_tokens_details", "input_tokens_details")]
    among = sum(_count(one, "cached_tokens") or 0 for one in details)
    kept = _table(said, "cache_creation")
    long = _count(kept, "ephemeral_1h_input_tokens") or 0
    return Billed(
        fresh=max(0, read - among),
        cached=min(among, read) + (_count(said, "cache_read_input_tokens") or 0),
        kept_short=max(0, (_count(said, "cache_creation_input_tokens") or 0) - long),
        kept_long=long,
        written=_count(said, "completion_tokens") or _count(said, "output_tokens") or 0,
    )


def is_standard_tier(response: Mapping[str, Any] | None) -> bool:
    """Whether an answer was given at the standard tier, for all it says."""
    tiers = [(response or {}).get("service_tier"), _table(response, "usage").get("service_tier")]
    return all(tier in _STANDARD for tier in tiers)


@functools.lru_cache(1024)
def list_prices(base_url: str, model: str) -> Prices | None:
    """The public price of a model at its maker's own address; None where it is not listed.

    A dated name (`gpt-4o-2024-08-06`) costs what the name costs, unless it has a price of its own.
    """
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return None
    listed = _LISTS.get(host, {})
    found = listed.get(model) or listed.get(_DATED.sub("", model))
    return found and Prices(*found, source=f"list price of {host}, {LIST_DATE}")


def _table(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _count(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST
    return value if is_count else None


# in, out, cached; models whose price hangs on the prompt's length are left out
_LISTS: Mapping[str, Mapping[str, tuple[float, float, float | None]]] = {
    "api.openai.com": {
        "gpt-5.1": (1.25, 10.0, 0.125),
        "gpt-5": (1.25, 10.0, 0.125),
        "gpt-5-mini": (0.25, 2.0, 0.025),
        "gpt-5-nano": (0.05, 0.4, 0.005),
        "gpt-4.1": (2.0, 8.0, 0.5),
        "gpt-4.1-mini": (0.4, 1.6, 0.1),
        "gpt-4.1-nano": (0.1, 0.4, 0.025),
        "gpt-4o": (2.5, 10.0, 1.25),
        "gpt-4o-2024-05-13": (5.0, 15.0, None),
        "gpt-4o-mini": (0.15, 0.6, 0.075),
        "o3": (2.0, 8.0, 0.5),
        "o4-mini": (1.1, 4.4, 0.275),
        "text-embedding-3-small": (0.02, 0.0, None),
        "text-embedding-3-large": (0.13, 0.0, None),
    },
    "api.anthropic.com": {
        "claude-fable-5-1": (10.0, 50.0, 0.25),
        "claude-fable-5": (10.0, 50.0, 1.0),
        "claude-opus-5-5": (4.0, 20.0, 0.2),
        "claude-opus-5": (5.0, 25.0, 0.5),
        "claude-opus-4-8": (5.0, 25.0, 0.5),
        "claude-opus-4-7": (5.0, 25.0, 0.5),
        "claude-opus-4-6": (5.0, 25.0, 0.5),
        "claude-opus-4-5": (5.0, 25.0, 0.5),
        "claude-sonnet-5-5": (2.0, 10.0, 0.1),
        "claude-sonnet-5": (2.0, 10.0, 0.2),
        "claude-sonnet-4-6": (3.0, 15.0, 0.3),
        "claude-haiku-4-5": (1.0, 5.0, 0.1),
    },
}
