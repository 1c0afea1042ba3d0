"""Slices: how the traffic is cut, and where the student fails."""

from __future__ import annotations

import json

import pytest
from scipy import stats

from ownweights.verdict.judged import ANSWERED, FAILED, Judged
from ownweights.verdict.slices import slice_keys, slice_table
from tests.verdict.worlds import FakeExample, example


def many(count: int, **fields) -> list[FakeExample]:
    found = []
    for i in range(count):
        target = json.dumps({key: value(i) for key, value in fields.items()})
        found.append(example(i, "certify", target))
    return found


def test_slice_keys_take_fields_of_the_target_with_few_values() -> None:
    keys = slice_keys(many(60, intent=lambda i: f"i{i % 3}", name=lambda i: f"name {i}"))
    assert keys[4]["target.intent"] == "i1"
    assert all("target.name" not in found for found in keys)


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        (lambda i: "same", False),  # one value cuts nothing
        (lambda i: f"v{i % 15}", True),
        (lambda i: f"v{i % 16}", False),  # fewer than four to a value
        (lambda i: bool(i % 2), True),
        (lambda i: [i % 2], False),
        (lambda i: "x" * 81 + str(i % 2), False),
    ],
    ids=["constant", "four_each", "too_many", "boolean", "list", "long"],
)
def test_slice_keys_keep_useful_fields_alone(value, is_kept: bool) -> None:
    keys = slice_keys(many(60, field=value))
    assert any("target.field" in found for found in keys) is is_kept


def test_slice_keys_take_metadata() -> None:
    known = [
        FakeExample(
            f"e{i}", f"u{i}", {}, [{"role": "user", "content": "x"}], "plain", ("plain",),
            metadata={"channel": ["mail", "chat"][i % 2], "gold": f"query {i}", "deep": {"a": 1}},
        )
        for i in range(40)
    ]  # fmt: skip
    keys = slice_keys(known)
    assert keys[0]["metadata.channel"] == "mail"
    assert set(keys[0]) == {"metadata.channel", "request"}


def test_slice_keys_cut_the_length_in_quarters() -> None:
    known = [
        FakeExample(f"e{i}", f"u{i}", {}, [{"role": "user", "content": "x" * i}], "", ("",))
        for i in range(100)
    ]
    names = [found["request"] for found in slice_keys(known)]
    assert names[0] == "length 1st quarter"
    assert names[-1] == "length 4th quarter"
    assert all(names.count(name) == pytest.approx(25, abs=1) for name in set(names))


def test_slice_keys_of_nothing() -> None:
    assert slice_keys([]) == []


def rows(value: str, n: int, harms: int) -> list[Judged]:
    return [
        Judged(f"{value}{i}", f"{value}{i}", "certify", ANSWERED, 1.0, float(i < harms),
               {"intent": value})
        for i in range(n)
    ]  # fmt: skip


def test_slice_table_counts_and_bounds() -> None:
    (found,) = slice_table(rows("a", 40, 10), beta=0.1)
    assert (found.key, found.value, found.n, found.harms) == ("intent", "a", 40, 10)
    interval = stats.binomtest(10, 40).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-8)
    assert found.is_failing


def test_slice_table_puts_most_harm_first() -> None:
    table = slice_table([*rows("small", 4, 4), *rows("big", 100, 40), *rows("good", 50, 0)], 0.1)
    assert [one.value for one in table] == ["big", "small", "good"]
    assert [one.is_failing for one in table] == [True, True, False]


def test_slice_table_counts_unjudged_as_harm_and_leaves_out_failures() -> None:
    unjudged = Judged("x", "x", "certify", ANSWERED, 1.0, None, {"intent": "a"})
    failed = Judged("y", "y", "certify", FAILED, slices={"intent": "a"})
    (found,) = slice_table([unjudged, failed], 0.1)
    assert (found.n, found.harms) == (1, 1)


def test_slice_table_has_an_end() -> None:
    known = [row for i in range(60) for row in rows(f"v{i}", 4, i % 4)]
    assert len(slice_table(known, 0.1)) == 40
    assert len(slice_table(known, 0.1, max_rows=3)) == 3
