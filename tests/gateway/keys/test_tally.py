"""Spend: counted here, written behind, added up over gateways; nothing lost, nothing twice."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.gateway.keys import KeyStore, Limits, Spent, new_key
from ownweights.gateway.keys.tally import NANO, Tally, nano_of

DAYS = ("2026-01-30", "2026-01-31", "2026-02-01")
Step = tuple[Literal["spend", "write", "fail", "unsure", "race", "read", "restart"], int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spend", "spend", "write", "fail", "unsure", "race", "read", "restart"]),
        st.integers(0, 1),  # which gateway
        st.integers(0, 2),  # which day
        st.integers(1, 5 * NANO),
    ),
    max_size=40,
)


class Lost(Exception):
    """The database says that a commit failed."""


class Process:
    """A gateway process, as far as its spend goes."""

    starts = 0

    def __init__(self, store: KeyStore) -> None:
        Process.starts += 1
        self.store, self.tally, self.writer = store, Tally(), f"w{Process.starts}"

    def write(self, what: str, key_id: str) -> None:
        rows = self.tally.unwritten()
        if what == "race":  # an answer ends while the rows are on their way
            self.tally.add(key_id, DAYS[0], Spent(requests=1, nano_usd=7))
        if what != "fail":
            self.store.write_spend(self.writer, rows)
        if what in ("write", "race"):
            self.tally.wrote(rows)

    def read(self) -> None:
        self.tally.learn(self.store.read_spend(but=self.writer))


@settings(max_examples=40)
@given(STEPS)
def test_spend_is_never_lost_or_doubled(steps: list[Step]) -> None:
    """Writes that fail, that came through unsaid, that cross an answer; restarts; two gateways."""
    with tempfile.TemporaryDirectory() as folder, KeyStore.open(Project(Path(folder))) as store:
        _, key = new_key("a", Limits())
        store.add(key)
        gateways = [Process(store), Process(store)]
        told = dict.fromkeys(DAYS, 0)
        for what, who, day, nano in steps:
            one = gateways[who]
            if what == "spend":
                one.tally.add(key.id, DAYS[day], Spent(requests=1, nano_usd=nano))
                told[DAYS[day]] += nano
            elif what == "read":
                one.read()
            elif what == "restart":  # in good order: what is left is written first
                one.write("write", key.id)
                gateways[who] = Process(store)
            else:
                one.write(what, key.id)
                told[DAYS[0]] += 7 if what == "race" else 0
            assert one.tally.nano_usd_since(key.id, "") <= sum(told.values())
        for one in gateways:
            one.write("write", key.id)
            assert one.tally.unwritten() == {}
        for one in [*gateways, Process(store)]:
            one.read()
            for day in DAYS:
                wanted = sum(nano for at, nano in told.items() if at >= day)
                assert one.tally.nano_usd_since(key.id, day) == wanted
        rows = {day: spent.nano_usd for _, day, spent in store.read_spend()}
        assert rows == {day: nano for day, nano in told.items() if nano}


def test_tally_counts_a_key_from_a_day_on() -> None:
    tally = Tally()
    tally.add("a", "2026-01-31", Spent(nano_usd=5))
    tally.add("a", "2026-02-01", Spent(nano_usd=7))
    tally.add("b", "2026-02-01", Spent(nano_usd=100))
    tally.learn([("a", "2026-02-01", Spent(nano_usd=1000))])
    assert tally.nano_usd_since("a", "2026-02-01") == 1007
    assert tally.nano_usd_since("a", "") == 1012
    assert tally.nano_usd_since("nobody", "") == 0


@given(st.floats(0, 1e6, allow_nan=False))
def test_nano_of_never_rounds_down(usd: float) -> None:
    """But for a thousandth of a billionth, which may be an error of the sum it comes from."""
    assert usd * NANO - 1e-3 <= nano_of(usd) < usd * NANO + 1 + 1e-3


@given(st.integers(0, 10**12))
def test_nano_of_keeps_whole_billionths(nano: int) -> None:
    assert nano_of(nano / NANO) == nano


def test_spent_tells_dollars_and_what_of_them_is_estimated() -> None:
    spent = Spent(1, 0, 10, 4 * NANO, NANO) + Spent(2, 1, 5)
    assert (spent.requests, spent.unpriced, spent.tokens) == (3, 1, 15)
    assert (spent.usd, spent.estimated_frac) == (4.0, 0.25)
    assert Spent().estimated_frac == 0.0
