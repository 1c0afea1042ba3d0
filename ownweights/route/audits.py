"""The audits of a route on disk, in the order in which they were written.

In: audits from any process that serves, and tallies of answers that were served and not audited.
Out: the audits, in one order for all, from which the evidence is folded; a tally is added to the
`quiet` of the next audit, so that a process that ends between two audits changes nothing
(test_audit_log_tallies_are_as_if_one_process_had_counted). In the table a tally is a row that names
no request. Invariant: what is read is what was written, in that order
(test_audit_log_gives_back_what_was_written); two processes lose nothing of each other's
(test_audit_log_is_shared); which audits are of a unit seen before, it knows from the rows alone
(test_audit_log_knows_units_seen_before), also where the clock jumped
(test_audit_log_knows_a_unit_seen_today_although_the_clock_jumped).
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from ownweights.core.chat import Usage
from ownweights.core.database import Database, has_database, open_database
from ownweights.core.project import Project
from ownweights.route.evidence import MISSED, Audit

_COLUMNS = (
    "request_id, at, stage, share, kind, outcome, harm, chance, quiet,"
    " asked_in, asked_out, judge_in, judge_out, unit, unsure"
)
# when the unit was judged before (of a failure: when it failed), by the rows that came first: on
# the same day if it was, whatever the clock said in between
_SEEN_AT = """(SELECT coalesce(
 max(CASE WHEN CAST(b.at / 86400 AS INTEGER) = CAST(a.at / 86400 AS INTEGER) THEN b.at END),
 max(b.at)) FROM audit b WHERE b.route = a.route AND b.unit = a.unit
 AND b.unit != '' AND b.seq < a.seq AND b.seq > ?
 AND b.outcome != 'missed' AND (b.kind = 'failure') = (a.kind = 'failure'))"""


class AuditLog:
    """Appends and reads audits; every call opens the database, for they are rare."""

    def __init__(self, project: Project, route_id: str, *, begin: int = 0) -> None:
        self._address = project.database
        self._route_id = route_id
        self._begin = begin  # audits up to this number are left out

    def append(self, audit: Audit) -> None:
        """Write one audit down, for good."""
        with open_database(self._address) as database:
            database.execute(
                f"INSERT INTO audit (route, {_COLUMNS})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self._route_id, *_row(audit)),
            )

    def tally(self, quiet: int, unsure: int = 0) -> None:
        """Write down how many answers were served unaudited, or kept back, since the last row."""
        nothing = Audit("", time.time(), "served", "audit", MISSED, quiet=quiet, unsure=unsure)
        self.append(nothing)

    def since(self, seq: int = 0) -> tuple[list[Audit], int]:
        """The audits after number `seq`, and the number of the last; tallies behind it wait."""
        with open_database(self._address) as database:
            return _read(database, self._route_id, max(seq, self._begin), self._begin)

    def last(self) -> int:
        """The number of the last audit; 0 where there is none."""
        if not has_database(self._address):
            return 0
        with open_database(self._address) as database:
            sql = "SELECT max(seq) FROM audit WHERE route = ?"
            return int(database.query(sql, (self._route_id,))[0][0] or 0)


def _read(database: Database, route_id: str, seq: int, begin: int) -> tuple[list[Audit], int]:
    sql = (
        f"SELECT seq, {_COLUMNS}, {_SEEN_AT} FROM audit a WHERE route = ? AND seq > ? ORDER BY seq"
    )
    audits, quiet, unsure = list[Audit](), 0, 0
    for number, *row in database.query(sql, (begin, route_id, seq)):
        audit = _audit(*row)
        quiet, unsure = quiet + audit.quiet, unsure + audit.unsure
        if audit.request_id:
            audits.append(dataclasses.replace(audit, quiet=quiet, unsure=unsure))
            seq, quiet, unsure = int(number), 0, 0
    return audits, seq


def _row(audit: Audit) -> tuple[object, ...]:
    outcome, harm = "judged", audit.harm
    if not audit.is_judged:
        outcome, harm = "missed", None
    elif harm is None:
        outcome = "unjudged"
    return (
        audit.request_id, audit.at, audit.stage, audit.share, audit.kind, outcome, harm,
        audit.chance, audit.quiet, audit.asked.prompt_tokens, audit.asked.completion_tokens,
        audit.judge.prompt_tokens, audit.judge.completion_tokens, audit.unit,
        audit.unsure,
    )  # fmt: skip


def _audit(*row: Any) -> Audit:
    request_id, at, stage, share, kind, outcome, harm, chance, quiet, *rest = row
    *tokens, unit, unsure, seen_at = rest
    found = {"judged": harm, "unjudged": None, "missed": MISSED}[str(outcome)]
    assert found is None or isinstance(found, float), f"harm is a number, got {found!r}"
    assert found is None or math.isnan(found) or 0.0 <= found <= 1.0, "harm lies in [0, 1]"
    return Audit(
        request_id, at, stage, kind, found, chance=chance, quiet=quiet, share=share,
        asked=Usage(*tokens[:2]), judge=Usage(*tokens[2:]),
        unit=unit, unsure=unsure, seen_at=seen_at,
    )  # fmt: skip
