"""The texts of JSON: collected in an order, and put back in the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.traffic.redact.body import OtherTexts, Texts, is_data, with_texts

TEXTS_OF_ITS_OWN = ('{"a": [1234567, "b"]}', "[1.50, 2]", "data:x;base64,AAAA")
LEAVES = st.one_of(
    st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.sampled_from(TEXTS_OF_ITS_OWN)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "id", "url", "metadata", "é"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_with_texts_always_gives_back_what_it_got(value: Any, is_free: bool) -> None:
    found = Texts()
    assert with_texts(value, found, is_free=is_free) == value
    others = OtherTexts(found.texts, found.data)
    assert with_texts(value, others, is_free=is_free) == value
    for visit in (others.text, others.blob):
        with pytest.raises(StopIteration):
            visit("")


def test_with_texts_puts_each_text_in_its_place() -> None:
    value = {
        "role": "user",
        "content": "a",
        "metadata": {"k": 1234567, "n": 7},
        "x": ['{"b": "c"}'],
    }
    found = Texts()
    with_texts(value, found)
    assert found.texts == ["a", "k", "1234567", "n", "b", "c"]
    assert [found.texts[place] for place in sorted(found.keys)] == ["k", "n", "b"]
    made = with_texts(value, OtherTexts(list("ABCDEF"), ()))
    assert made == {"role": "user", "content": "A", "metadata": {"B": "C", "D": 7},
                    "x": ['{"E": "F"}']}  # fmt: skip


def test_is_data_tells_base64_from_text() -> None:
    assert is_data("data:image/png;base64,iVBORw0KGgo=") and is_data("QUJD" * 100)
    assert not is_data("data: see below") and not is_data("https://example.org/" + "a" * 300)
    assert not is_data(json.dumps(["word"] * 100))
