"""Bodies in, bodies out, whatever is in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.traffic.encode import MIN_PART_BYTES, content_hash, decode_bodies, encode_bodies
from tests.traffic.samples import SYSTEM, answer, ask

TEXT = st.text(st.characters(codec=None), max_size=120)  # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": JSON}
    )
    | JSON,
    max_size=4,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "messages": MESSAGES | JSON, "tools": JSON, "response_format": JSON, "v": JSON, "p": JSON
    },
)  # fmt: skip


@given(request=REQUESTS, response=st.none() | st.dictionaries(TEXT, JSON, max_size=3))
def test_encode_bodies_always_round_trips(
    request: dict[str, Any], response: dict[str, Any] | None
) -> None:
    encoded = encode_bodies(request, response)
    assert decode_bodies(encoded.item, encoded.parts.__getitem__) == (request, response)
    assert content_hash(*decode_bodies(encoded.item, encoded.parts.__getitem__)) == (
        encoded.content_hash
    )


def test_encode_bodies_leaves_its_arguments_alone() -> None:
    request, again = ask(tools=[{"x": "y" * 99}]), ask(tools=[{"x": "y" * 99}])
    encode_bodies(request, answer())
    assert request == again


def test_encode_bodies_takes_out_what_requests_share() -> None:
    encoded = encode_bodies(ask("hello", tools=[{"name": "n" * 80}]), answer())
    assert SYSTEM.encode() not in encoded.item
    assert b"nnn" not in encoded.item
    assert b"hello" in encoded.item
    assert sorted(map(len, encoded.parts.values())) == sorted([len(SYSTEM) + 2, 93])
    other = encode_bodies(ask("bye"), answer())
    assert set(other.parts) < set(encoded.parts)


@pytest.mark.parametrize(("extra", "parts"), [(-1, 0), (0, 1)])
def test_encode_bodies_leaves_short_texts_in_place(extra: int, parts: int) -> None:
    text = "x" * (MIN_PART_BYTES - 2 + extra)  # two quotes make up the rest
    request = {"messages": [{"role": "system", "content": text}]}
    assert len(encode_bodies(request, None).parts) == parts


def test_content_hash_ignores_the_order_of_keys_alone() -> None:
    base = content_hash({"a": 1, "b": [1, 2]}, {"c": None})
    assert content_hash({"b": [1, 2], "a": 1}, {"c": None}) == base
    for request, response in [
        ({"a": 1, "b": [2, 1]}, {"c": None}),
        ({"a": 2, "b": [1, 2]}, {"c": None}),
        ({"a": 1, "b": [1, 2]}, {}),
        ({"a": 1, "b": [1, 2]}, None),
    ]:
        assert content_hash(request, response) != base


def test_encode_bodies_stores_what_json_cannot_say_as_null() -> None:
    encoded = encode_bodies({"temperature": math.nan}, None)
    assert decode_bodies(encoded.item, encoded.parts.__getitem__) == ({"temperature": None}, None)


def test_encode_bodies_refuses_what_is_not_json() -> None:
    with pytest.raises(TypeError, match="unsupported"):
        encode_bodies({"a": object()}, None)
