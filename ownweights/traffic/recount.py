"""Do the tallies say what the rows say? Found in single statements, so that writers may go on.

In: the database. Out: what differs, in words; `recount` makes all tallies anew from the rows. Money
and time are compared to within the rounding of one unit a record.
"""

from __future__ import annotations

from ownweights.core.database import Database
from ownweights.traffic.query import counted_sql
from ownweights.traffic.tally import DAY_S, FACT_COLUMNS, SUMS, TALLIED, Facts, add_tallies

_PAGE_ROWS = 5000
_ROUNDED = ("cost_nusd", "latency_us")
_SIGNED = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
_SAME_KEY = " AND ".join(f"tally.{name} = record.{name}" for name in TALLIED[1:])


def tally_faults(database: Database) -> list[str]:
    """What is wrong with the tallies; empty when they are what counting gives."""
    wrong = [f"tally {name}: {what}" for name, what in _wrong_sums(database, "tally", "id")]
    wrong += [
        f"tally {name} by key: {what}"
        for name, what in _wrong_sums(database, "key_tally", "tally_id, key_id")
    ]
    ((strays,),) = database.query(
        "SELECT count(*) FROM record LEFT JOIN tally ON tally.id = record.tally_id"
        f" WHERE tally.id IS NULL OR NOT ({_SAME_KEY})"
        f" OR record.at < tally.day * {DAY_S}.0 OR record.at >= (tally.day + 1) * {DAY_S}.0"
    )
    if strays:
        wrong.append(f"tallies: {strays} records are counted in none, or in another's")
    ((names,),) = database.query(
        "SELECT count(*) FROM (SELECT workload, kind, name FROM ("
        "SELECT workload, kind, name, records FROM seen"
        " UNION ALL SELECT workload, 'prompt', prompt_hash, -1 FROM record"
        " UNION ALL SELECT workload, 'session', session, -1 FROM record WHERE session IS NOT NULL"
        ") AS both_sides GROUP BY workload, kind, name HAVING sum(records) <> 0) AS wrong"
    )
    if names:
        wrong.append(f"tallies: {names} prompts or sessions are counted wrongly")
    ((workloads,),) = database.query(
        "SELECT count(*) FROM (SELECT workload FROM ("
        "SELECT workload, prompts, sessions FROM workload_tally UNION ALL"
        " SELECT workload, CASE WHEN kind = 'prompt' THEN -1 ELSE 0 END,"
        " CASE WHEN kind = 'session' THEN -1 ELSE 0 END FROM seen) AS both_sides"
        " GROUP BY workload HAVING sum(prompts) <> 0 OR sum(sessions) <> 0) AS wrong"
    )
    if workloads:
        wrong.append(f"tallies: distinct names of {workloads} workloads are counted wrongly")
    return wrong


def recount(database: Database) -> None:
    """Make all tallies anew from the rows, in one transaction."""
    with database.transaction():
        for table in ("key_tally", "tally", "seen", "workload_tally"):
            database.execute(f"DELETE FROM {table}")
        last = 0
        while rows := database.query(
            f"SELECT seq, {FACT_COLUMNS} FROM record WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, _PAGE_ROWS),
        ):
            ids = add_tallies(database, [Facts(*row[1:]) for row in rows])
            database.execute_many(
                "UPDATE record SET tally_id = ? WHERE seq = ?",
                [(tally_id, row[0]) for tally_id, row in zip(ids, rows, strict=True)],
            )
            last = rows[-1][0]


def _wrong_sums(database: Database, table: str, key: str) -> list[tuple[str, str]]:
    """(tally, what is off) of each row whose sums are not those of its records."""
    rows_key = "tally_id" if table == "tally" else "tally_id, key_id"
    in_a_row = " AND ".join(f"{name} IS NOT NULL" for name in rows_key.split(", "))
    counted = ", ".join(f"-({counted_sql(name)})" for name in SUMS)
    exact = [f"sum({name}) <> 0" for name in SUMS if name not in _ROUNDED]
    rounded = [f"abs(sum({name})) > max(weight) + 1" for name in _ROUNDED]
    rows = database.query(
        f"SELECT {key}, {_SIGNED} FROM (SELECT {key}, records AS weight, {', '.join(SUMS)}"
        f" FROM {table} UNION ALL SELECT {rows_key}, 0, {counted} FROM record WHERE {in_a_row}"
        f" GROUP BY {rows_key}) AS both_sides GROUP BY {key}"
        f" HAVING {' OR '.join(exact + rounded)} ORDER BY {key}"
    )
    start = 1 + key.count(",")
    return [
        (
            str(row[0]),
            ", ".join(f"{n} off by {v:g}" for n, v in zip(SUMS, row[start:], strict=True) if v),
        )
        for row in rows
    ]
