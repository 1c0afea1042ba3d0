"""What a route has saved: what the teacher would have cost for the requests the student answered.

In: the recorded requests of a workload, the audits of its route, prices. Out: Savings, net of what
audits cost, with a 95 % interval.

  saved   for each answer of the student, the teacher's price of that request: its tokens where an
          audit asked the teacher, else the characters of request and answer at the tokens that a
          character of the teacher's own requests and answers has here
  costs   what the teacher took for each audit, and the judge for each that it judged
  varies  which sessions came (a request without one: all that ask the same). The interval is that
          of verdict/statistics/clusters.py, for as many requests like these

Not counted: what the student's machine costs, and what was kept out of the records. Unknown prices
leave dollars None, never zero. Invariants: equal to a sum by hand
(test_savings_match_a_sum_by_hand); an audited answer saves nothing
(test_savings_of_an_audited_answer_are_nothing).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ownweights.core.chat import Usage
from ownweights.core.database import has_database
from ownweights.core.jsonl import read_jsonl
from ownweights.core.project import Project
from ownweights.dataset.unit import unit_of
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import Audit
from ownweights.route.route import Route, history_path
from ownweights.teacher.prices import CHARS_PER_TOKEN, Prices
from ownweights.traffic.record import Record
from ownweights.traffic.store import TrafficStore
from ownweights.verdict.scan.gather import token_counts
from ownweights.verdict.statistics.clusters import ratio_interval

SLACK_S = 3600.0  # records are stored in about the order they passed


@dataclass(frozen=True, slots=True)
class Savings:
    """Since the route was first followed. Dollars are None where a price is not known."""

    requests: int  # recorded under the route, whoever answered
    served: int  # of them by the student
    audits: int  # that the teacher was asked for
    units: int  # sessions, or questions where there are none: what the interval varies
    estimated_frac: float  # of the answers served: the teacher's tokens are estimated
    usd_before_audits: float | None = None
    usd_audits: float | None = None
    usd: float | None = None
    usd_low: float | None = None  # None also where a single unit shows no spread
    usd_high: float | None = None


@dataclass(slots=True)
class _Rate:
    """How many tokens a character has, as seen in the teacher's own answers."""

    tokens: int = 0
    chars: int = 0

    def add(self, tokens: int, chars: int) -> None:
        self.tokens += tokens
        self.chars += chars

    @property
    def tokens_per_char(self) -> float:
        return self.tokens / self.chars if self.tokens and self.chars else 1 / CHARS_PER_TOKEN


@dataclass(slots=True)
class _Unit:
    """Sums over one unit: what the teacher was spared, and what it was asked all the same."""

    num: int = 0
    chars_in: int = 0
    chars_out: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])  # spared, as known from audits
    audited: list[int] = field(default_factory=lambda: [0, 0])
    audited_chars: list[int] = field(default_factory=lambda: [0, 0])
    judged: list[int] = field(default_factory=lambda: [0, 0])


class Saved:
    """Adds up the requests of one route."""

    def __init__(self, route_id: str, audits: Iterable[Audit]) -> None:
        self._route_id = route_id
        self._audits: Mapping[str, Audit] = {one.request_id: one for one in audits}
        self._units: defaultdict[str, _Unit] = defaultdict(_Unit)
        self._in, self._out = _Rate(), _Rate()
        self._served = self._known = self._num_audits = 0

    def add(self, record: Record) -> None:
        """Take one recorded request of the workload, whichever route it had."""
        usage, chars_in, chars_out = token_counts(record)
        if record.role != "student" and record.status == "ok" and usage is not None:
            self._in.add(usage.prompt_tokens, chars_in)
            self._out.add(usage.completion_tokens, chars_out)
        own = record.metadata.get("own")
        if not isinstance(own, dict) or own.get("route") != self._route_id:
            return
        unit = self._units[unit_of(record, "session" if record.named_session else "prompt")]
        unit.num += 1
        audit = self._audits.get(record.id)
        if audit is not None:
            _add(unit.judged, audit.judge)
        if record.role != "student" or own.get("error") not in (None, "client_gone"):
            return  # an answer that broke off has spared nobody anything
        self._served += 1
        is_audited = audit is not None and audit.kind == "audit" and _is_asked(audit)
        self._num_audits += is_audited
        if audit is not None and is_audited and audit.asked.total_tokens:
            self._known += 1
            _add(unit.tokens, audit.asked)
            _add(unit.audited, audit.asked)
            self._in.add(audit.asked.prompt_tokens, chars_in)
            return
        unit.chars_in += chars_in
        unit.chars_out += chars_out
        if is_audited:  # the teacher answered, and did not say at how many tokens
            unit.audited_chars[0] += chars_in
            unit.audited_chars[1] += chars_out

    def total(self, prices: Prices | None, judge_prices: Prices | None) -> Savings:
        """What all of it comes to."""
        units = list(self._units.values())
        requests = sum(one.num for one in units)
        estimated = 1.0 - self._known / self._served if self._served else 0.0
        found = Savings(requests, self._served, self._num_audits, len(units), estimated)
        is_judged = any(any(one.judged) for one in units)
        if prices is None or (is_judged and judge_prices is None) or not units:
            return found
        saved = [self._usd(prices, one.tokens, (one.chars_in, one.chars_out)) for one in units]
        spent = [self._usd(prices, one.audited, one.audited_chars) for one in units]
        if judge_prices is not None:
            judged = (judge_prices.usd(*one.judged) for one in units)
            spent = [a + b for a, b in zip(spent, judged, strict=True)]
        net = [a - b for a, b in zip(saved, spent, strict=True)]
        _, low, high = ratio_interval(net, [one.num for one in units])
        return replace(
            found, usd_before_audits=sum(saved), usd_audits=sum(spent), usd=sum(net),
            usd_low=None if low is None else low * requests,
            usd_high=None if high is None else high * requests,
        )  # fmt: skip

    def _usd(self, prices: Prices, tokens: Sequence[int], chars: Sequence[int]) -> float:
        rates = self._in.tokens_per_char, self._out.tokens_per_char
        return prices.usd(tokens[0] + chars[0] * rates[0], tokens[1] + chars[1] * rates[1])


def savings_of(
    project: Project, route: Route, prices: Prices | None, judge_prices: Prices | None = None
) -> Savings:
    """What a route has saved since it was first followed, by the records on disk."""
    audits, _ = AuditLog(project, route.id).since()
    saved, since = Saved(route.id, audits), followed_since(project, route.id)
    if since is not None and has_database(project.database):
        with TrafficStore.open(project, create=False) as store:
            for record in store.records(route.workload, is_newest_first=True):
                is_live = record.source_id is None  # a file's lines are in no order of time
                if is_live and record.role != "imported" and record.at < since - SLACK_S:
                    break
                saved.add(record)
    return saved.total(prices, judge_prices)


def followed_since(project: Project, route_id: str) -> float | None:
    """When a route was first followed, in unix seconds; None where it never was."""
    path = history_path(project)
    lines = read_jsonl(path) if path.exists() else ()
    rows = (line.value for line in lines if line.value is not None)
    times = (row.get("at") for row in rows if row.get("to") == route_id)
    known = (at for at in times if isinstance(at, int | float) and not isinstance(at, bool))
    return next(map(float, known), None)


def _is_asked(audit: Audit) -> bool:
    """Whether the teacher answered: it may have, and the check not."""
    return audit.is_judged or audit.asked.total_tokens > 0


def _add(sums: list[int], usage: Usage) -> None:
    sums[0] += usage.prompt_tokens
    sums[1] += usage.completion_tokens
