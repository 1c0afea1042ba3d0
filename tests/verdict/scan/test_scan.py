"""A scan beside the dataset that would be built, brute force, and made-up truth."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import InputError, UsageError
from ownweights.core.project import Project
from ownweights.dataset import DatasetOptions, build_dataset
from ownweights.route import unanswerable
from ownweights.traffic import Record, TrafficStore, import_file
from ownweights.verdict import Claim
from ownweights.verdict.scan import Plan, Prices, WorkloadScan, scan_records
from ownweights.verdict.scan.measure import (
    CHARS_PER_TOKEN,
)
from ownweights.verdict.statistics import (
    Limits,
    attempt_delta,
    units_needed,
)
from tests.dataset.records import (
    answer,
    body,
    in_messages,
    many,
    phrase,
    real_records,
    record,
)

CHEAP = Prices(2.0, 8.0)


def scanned(records: Sequence[Record] | Iterator[Record], **plan: Any) -> WorkloadScan:
    (found,) = scan_records(records, lambda _: Plan(**plan), ineligible=unanswerable)
    return found


def spent(tokens_in: int, tokens_out: int, number: int, **known: Any) -> Record:
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    response = {**answer(f"reply {number}", model="big"), "usage": usage}
    return record(phrase(number), response=response, role="teacher", **known)


# volume and time


def test_scan_looks_at_messages_in_their_chat_form() -> None:
    records = many(60, role="teacher", model="big")
    other = record("odd", protocol="embeddings", role="teacher")
    plain, spoken = scanned(records), scanned([*map(in_messages, records), other])
    assert spoken.records == plain.records + 1
    assert spoken.coverage.kept_back == {**plain.coverage.kept_back, "other_protocol": 1}
    assert (spoken.units, spoken.agreement) == (plain.units, plain.agreement)


def test_scan_counts_records_and_days() -> None:
    day = 86_400.0
    records = [
        record(phrase(i), f"r{i}", role="teacher", model="big", at=day * (10 + i / 20))
        for i in range(41)
    ]
    found = scanned(records)
    assert (found.workload, found.records, found.models) == ("w", 41, ("big",))
    assert found.period.first_at == 10 * day
    assert found.period.days == pytest.approx(2.0)
    assert found.period.per_day == pytest.approx(20.5)


def test_scan_knows_no_time_where_an_import_knew_none(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "request": body(phrase(i)), "response": answer(f"a{i}")})
             for i in range(20)]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with TrafficStore.open(Project(tmp_path)) as store:
        import_file(tmp_path / "t.jsonl", store, workload="w")
        found = scanned(store.records("w"))
        timed = {"created": 1_700_000_000, **answer("late")}
        store.add([record("late", response=timed, role="teacher", at=1_700_000_000.0)])
        mixed = scanned(store.records("w"))
    assert dataclasses.astuple(found.period) == (0, None, None, None, None)
    assert [need.days for need in found.needs] == [None] * 4
    assert (mixed.period.num_timed, mixed.period.first_at) == (1, 1_700_000_000.0)
    assert mixed.period.per_day is None  # one record makes no rate


def test_scan_of_too_short_a_time_makes_no_rate() -> None:
    records = [record(phrase(i), role="teacher", at=1e9 + 60 * i) for i in range(30)]
    assert scanned(records).period.per_day is None


def test_scan_sorts_workloads_by_size_and_plans_each() -> None:
    records = [*many(3, workload="few"), *many(9, workload="most"), *many(3, workload="alike")]
    asked: list[str] = []

    def plan_of(name: str) -> Plan:
        asked.append(name)
        return Plan()

    found = scan_records(records, plan_of)
    assert [(one.workload, one.records) for one in found] == [("most", 9), ("alike", 3), ("few", 3)]
    assert sorted(asked) == ["alike", "few", "most"]


def test_scan_of_nothing_is_empty() -> None:
    assert scan_records([], lambda _: Plan()) == []


def test_scan_of_records_without_one_to_study() -> None:
    lost = record("x", response=None, status="error", role="teacher", model="big")
    found = scanned([lost], prices=CHEAP)
    assert (found.records, found.errors, found.units.num, found.units.certify) == (1, 1, 0, 0)
    assert found.coverage.coverable_frac == 0.0
    assert found.coverage.kept_back == {"error": 1}
    assert found.cost is not None
    assert found.cost.usd == found.cost.saving_usd == 0.0
    assert [need.units for need in found.needs] == [None] * 4


# repeats


def test_scan_counts_repeats_as_brute_force_does() -> None:
    asks = ["play it", "Play it!", "play it", "stop 1", "stop 2", phrase(1), phrase(1) + " now"]
    found = scanned([record(ask, f"a{i}") for i, ask in enumerate(asks)])
    assert found.repeats.distinct == 6
    assert found.repeats.repeat_frac == pytest.approx(1 / 7)
    assert found.repeats.questions == 4
    assert found.repeats.near == 2


def test_scan_looks_for_near_ones_among_few_questions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.verdict.scan.gather.MAX_NEAR", 5)
    assert scanned(many(5)).repeats.near == 0
    assert scanned([*many(5), record(phrase(4), "again")]).repeats.near == 0
    assert scanned(many(6)).repeats.near is None
    monkeypatch.setattr("ownweights.verdict.scan.gather.MAX_NEAR_CHARS", 5 * len(phrase(0)) - 1)
    assert scanned(many(5)).repeats.near is None


def test_scan_tells_requests_of_another_form_apart() -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    records = [
        record("q"),
        record("q", request=body("q", **tools)),
        record("q", request=body("q", seed=1)),
    ]
    assert scanned(records).repeats.distinct == 2


# units


@pytest.mark.parametrize("name", ["assistant", "describe", "airline-gpt4o", "sql-gpt4"])
def test_scan_units_match_the_dataset_built(test_data: Path, tmp_path: Path, name: str) -> None:
    records = real_records(test_data, name)[:3000]
    workload = records[0].workload
    options = DatasetOptions(allow_teachers=("gpt-4o", "gpt-4"))
    try:
        built = build_dataset(records, Project(tmp_path), workload=workload, options=options)
    except InputError:  # a few tasks of the airline may leave nothing to study
        pytest.skip("nothing of this file can be studied")
    found = scanned(records, dataset=options)
    assert found.units.certify == built.card["facts"]["units"]["certify"]
    assert found.units.split_by == built.card["identity"]["split_by"]
    assert found.units.reason == built.card["facts"]["split_by_reason"]


@pytest.mark.parametrize(
    ("fields", "split_by"),
    [({}, "prompt"), ({"session": "s"}, "session"), ({"metadata": {"task_id": 3}}, "meta:task_id")],
)
def test_scan_splits_as_auto_does(fields: dict[str, Any], split_by: str) -> None:
    records = many(9, **fields)
    assert scanned(records).units.split_by == split_by
    # one record without it, last: a task_id gathered before is of no use, a session is
    assert scanned([*records, record("another")]).units == scanned(
        [record("another"), *records]
    ).units  # fmt: skip
    mixed = scanned([*records, record("another")]).units
    assert (mixed.num, mixed.split_by) == {
        "prompt": (10, "prompt"), "session": (2, "session-or-prompt"),
        "meta:task_id": (10, "prompt"),
    }[split_by]  # fmt: skip


@pytest.mark.parametrize("every", [2, 3, 1000])
def test_scan_units_of_mixed_traffic_match_the_dataset_built(tmp_path: Path, every: int) -> None:
    """Sessions where there are some, prompts elsewhere; all and none of them are cases, too."""
    records = [
        record(phrase(k), f"answer {k}", session="" if k % every == 0 else f"s{k // 4}")
        for k in range(1, 400)
    ]
    built = build_dataset(records, Project(tmp_path), workload="w")
    found = scanned(records)
    assert found.units.split_by == built.split_by
    assert built.split_by == ("session" if every == 1000 else "session-or-prompt")
    assert found.units.certify == built.card["facts"]["units"]["certify"]
    sessions = {one.session for one in records} - {""}
    assert found.units.num == len(sessions) + sum(not one.session for one in records)


def test_scan_splits_as_asked_or_says_what_is_missing() -> None:
    records = many(6, metadata={"who": "ann"})
    assert scanned(records, dataset=DatasetOptions(split_by="who")).units.num == 1
    with pytest.raises(InputError, match="the record has no metadata 'who'"):
        scanned(many(2), dataset=DatasetOptions(split_by="who"))


# tokens and cost


def test_scan_takes_tokens_as_recorded() -> None:
    found = scanned([spent(100 + i, 10, i) for i in range(10)], prices=CHEAP)
    assert (found.tokens.tokens_in, found.tokens.tokens_out) == (1045, 100)
    assert found.tokens.recorded_frac == 1.0
    assert found.cost is not None
    assert found.cost.usd == pytest.approx((2 * 1045 + 8 * 100) / 1e6)
    assert found.cost.usd_per_month is None  # nobody knows how many a month


def test_scan_estimates_tokens_from_characters() -> None:
    found = scanned([record("x" * 80, "y" * 40, request=body("x" * 80, system=None))]).tokens
    assert (found.tokens_in, found.tokens_out, found.recorded_frac) == (20, 10, 0)
    assert found.chars_per_token == CHARS_PER_TOKEN


def test_scan_estimates_the_rest_by_what_was_recorded() -> None:
    asks = body("x" * 90, system=None)
    known = {**answer("y" * 10), "usage": {"prompt_tokens": 40, "completion_tokens": 10}}
    records = [
        record(request=asks, response=known, id="a"),
        record("x", "y" * 10, request=asks, id="b"),
    ]
    found = scanned(records).tokens
    assert found.chars_per_token == 2.0
    assert (found.tokens_in, found.tokens_out, found.recorded_frac) == (40 + 45, 10 + 5, 0.5)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "7"}, {"prompt_tokens": 0}, [3]])
def test_scan_takes_no_tokens_from_a_usage_that_says_none(usage: Any) -> None:
    one = record(
        "x" * 40, request=body("x" * 40, system=None), response={**answer("y"), "usage": usage}
    )
    assert scanned([one]).tokens.recorded_frac == 0
    assert scanned([one]).tokens.tokens_in == 10


def test_scan_counts_tools_among_the_characters() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    plain, offered = (
        scanned([record("q", request=body("q", **f))]) for f in ({}, {"tools": tools})
    )
    more = offered.tokens.tokens_in - plain.tokens.tokens_in
    assert more == pytest.approx(len(json.dumps(tools)) / CHARS_PER_TOKEN)


def test_scan_cost_is_the_teachers_alone() -> None:
    mine = dataclasses.replace(spent(10**6, 10**6, 1), role="student")
    failed = record("x", response=None, status="error", role="teacher")
    cut = dataclasses.replace(spent(500, 0, 2), status="partial")
    found = scanned([mine, failed, cut, spent(500, 0, 3)], prices=CHEAP)
    assert found.by_student == 1
    assert found.cost is not None
    assert found.cost.usd == pytest.approx(2 * 1000 / 1e6)
    assert found.cost.saving_usd == pytest.approx(2 * 500 / 1e6)  # what was cut off, nobody saves


def test_scan_cost_of_a_month() -> None:
    records = [spent(1000, 100, i, at=86_400.0 * (20 + i / 10)) for i in range(51)]
    cost = scanned(records, prices=CHEAP).cost
    assert cost is not None
    each = (2 * 1000 + 8 * 100) / 1e6
    assert cost.usd == pytest.approx(51 * each)
    assert cost.usd_per_month == pytest.approx(30 * 10.2 * each)
    assert cost.saving_usd == pytest.approx(cost.usd)
    assert cost.saving_usd_per_month == pytest.approx(cost.usd_per_month)


def test_scan_without_a_price_knows_no_cost() -> None:
    assert scanned(many(3)).cost is None


@pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
def test_prices_are_numbers_from_zero_on(price: float) -> None:
    with pytest.raises(UsageError, match=r"usd_per_mtok_out is .*, expected a price from 0 on"):
        Prices(1.0, price)


# what a certificate would need


def test_scan_needs_what_a_refusal_would_ask_for() -> None:
    claim = Claim(paired=("D",))
    records = [
        record(phrase(i), f"r{i}", role="teacher", at=86_400.0 * (1 + i / 100)) for i in range(301)
    ]
    found = scanned(records, claim=claim)
    limits = Limits(claim.alpha, claim.beta, attempt_delta(claim.delta, 1) / 2)
    for need in found.needs:
        expected = units_needed(need.harm_frac, 1.0, 0.0, limits)
        assert (need.units, need.reason) == (expected.units, expected.reason)
        if need.units is not None:
            assert need.records is not None
            brings = found.units.certify / found.records
            assert need.records * brings >= need.units > (need.records - 1) * brings
            assert need.days == pytest.approx(need.records / found.period.per_day)
    assert [need.harm_frac for need in found.needs] == [0.0, 0.01, 0.02, 0.05]
    assert found.needs[-1].units is None


# invariants


def test_scan_does_not_depend_on_the_order() -> None:
    rng = random.Random(9)
    records = [
        record(phrase(rng.randrange(40)), rng.choice("ab"), id=f"r{i}", session=rng.choice("xyz"))
        for i in range(200)
    ]  # fmt: skip
    first = scanned(records, prices=CHEAP)
    assert first.agreement.units == 3
    for _ in range(3):
        rng.shuffle(records)
        assert scanned(records, prices=CHEAP) == first


def test_scan_keeps_no_bodies() -> None:
    """Six thousand records of 20 kB are 120 MB of text; what is kept of each is a few hashes."""

    def stream() -> Iterator[Record]:
        for i in range(6000):
            yield record(f"{phrase(i % 50)}", f"{i} " + "x" * 20_000, id=f"r{i}")

    scanned(itertools.islice(stream(), 50))  # what is loaded once
    tracemalloc.start()
    found = scanned(stream())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.records == 6000
    assert peak < 8 * 2**20


def test_scan_tells_its_progress() -> None:
    told: list[tuple[float, float | None, str]] = []
    scan_records(many(2500), lambda _: Plan(), on_progress=lambda *what: told.append(what))
    assert told == [(1000, None, "reading"), (2000, None, "reading"), (2500, 2500, "measuring w")]


# real files


def test_scan_of_descriptions_finds_how_seldom_people_use_the_same_words(test_data: Path) -> None:
    found = scanned(real_records(test_data, "describe"))
    assert (found.records, found.repeats.distinct, found.units.num) == (4672, 547, 481)
    assert found.units.certify == 44
    assert found.agreement.units == 481
    assert (found.agreement.frac or 1) < 0.05
    assert found.agreement.once_frac == 0.0


def test_scan_of_airline_talks_finds_that_most_stay_with_the_teacher(test_data: Path) -> None:
    found = scanned(real_records(test_data, "airline-gpt4o"), prices=CHEAP)
    assert found.models == ("gpt-4o",)
    assert 0.1 < found.coverage.coverable_frac < 0.3
    assert found.coverage.kept_back["ineligible:messages.tool_calls"] > 1000
    assert found.cost is not None
    assert found.cost.saving_usd < 0.2 * found.cost.usd
