"""The tables of `.own/own.db`, as numbered steps; the database applies those it lacks, in order.

They are written for SQLite, and core/dialect.py says them for Postgres.

A step that has been released is never changed: what is wrong in it is mended by a new one at the
end. Every package's tables stand here, so that one file shows the whole schema.

    record   one request with its answer, as it passed (body: segment, offset, item in `bodies/`)
    segment  the body files, one writer process each
    part     system prompts and tool schemas, stored once by hash
    attempt  the error budget: attempt k on a workload and the delta it may spend
    event    what happened, append-only
    audit    what live requests showed of a route, in order; its evidence is recomputed from these,
             with tallies of what was served and not audited between them
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step: SQL statements that run in one transaction."""

    number: int
    name: str
    sql: str


_FIRST_TABLES = """
CREATE TABLE segment (
  id        INTEGER PRIMARY KEY,
  name      TEXT NOT NULL UNIQUE,
  opened_at REAL NOT NULL
);
CREATE TABLE part (
  hash      TEXT PRIMARY KEY,
  segment   INTEGER NOT NULL REFERENCES segment (id),
  offset_bytes INTEGER NOT NULL,
  item      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE record (
  seq           INTEGER PRIMARY KEY,
  id            TEXT NOT NULL UNIQUE,
  at            REAL NOT NULL,
  workload      TEXT NOT NULL,
  session       TEXT,
  source_id     TEXT,
  origin        TEXT NOT NULL,
  prompt_hash   TEXT NOT NULL,
  role          TEXT NOT NULL CHECK (role IN ('teacher', 'student', 'imported')),
  status        TEXT NOT NULL CHECK (status IN ('ok', 'partial', 'error')),
  model         TEXT NOT NULL,
  finish_reason TEXT,
  metadata      TEXT NOT NULL,
  content_hash  TEXT NOT NULL,
  body_bytes    INTEGER NOT NULL,
  segment       INTEGER NOT NULL REFERENCES segment (id),
  offset_bytes  INTEGER NOT NULL,
  item          INTEGER NOT NULL,
  UNIQUE (origin, workload)
);
CREATE INDEX record_by_workload ON record (workload, seq);
CREATE INDEX record_by_session ON record (session) WHERE session IS NOT NULL;
CREATE TABLE attempt (
  workload   TEXT NOT NULL,
  k          INTEGER NOT NULL CHECK (k >= 1),
  delta      REAL NOT NULL CHECK (delta > 0 AND delta < 1),
  claim      TEXT NOT NULL,
  at         REAL NOT NULL,
  data_hash  TEXT NOT NULL,
  verdict_id TEXT,
  PRIMARY KEY (workload, k)
) WITHOUT ROWID;
CREATE TABLE event (
  id     INTEGER PRIMARY KEY,
  at     REAL NOT NULL,
  kind   TEXT NOT NULL,
  ref    TEXT NOT NULL,
  detail TEXT NOT NULL
);
CREATE INDEX event_by_ref ON event (ref, id);
CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
BEGIN
  SELECT RAISE (ABORT, 'the event log is append-only');
END;
CREATE TRIGGER event_is_never_removed BEFORE DELETE ON event
BEGIN
  SELECT RAISE (ABORT, 'the event log is append-only');
END;
"""

_PROMPT_INDEX = """
CREATE INDEX record_by_prompt ON record (prompt_hash, workload);
"""

_AUDITS = """
CREATE TABLE audit (
  seq        INTEGER PRIMARY KEY,
  route      TEXT NOT NULL,
  request_id TEXT NOT NULL,
  at         REAL NOT NULL,
  stage      TEXT NOT NULL CHECK (stage IN ('shadow', 'canary', 'served')),
  share      REAL NOT NULL,
  kind       TEXT NOT NULL CHECK (kind IN ('audit', 'failure', 'shadow')),
  outcome    TEXT NOT NULL CHECK (outcome IN ('judged', 'unjudged', 'missed')),
  harm       REAL CHECK ((harm IS NOT NULL) = (outcome = 'judged')),
  chance     REAL NOT NULL CHECK (chance > 0 AND chance <= 1),
  quiet      INTEGER NOT NULL CHECK (quiet >= 0)
);
CREATE INDEX audit_by_route ON audit (route, seq);
"""

_AUDIT_COSTS = """
ALTER TABLE audit ADD COLUMN asked_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN asked_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN judge_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN judge_out INTEGER NOT NULL DEFAULT 0;
"""

_AUDIT_UNITS = """
ALTER TABLE audit ADD COLUMN unit TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;
CREATE INDEX audit_by_unit ON audit (route, unit, seq);
"""

_RECORD_FACTS = """
ALTER TABLE record ADD COLUMN protocol TEXT NOT NULL DEFAULT 'chat'
  CHECK (protocol IN ('chat', 'completions', 'embeddings', 'responses', 'messages'));
ALTER TABLE record ADD COLUMN end_user TEXT;
ALTER TABLE record ADD COLUMN key_id TEXT;
ALTER TABLE record ADD COLUMN upstream TEXT NOT NULL DEFAULT '';
ALTER TABLE record ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE record ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE record ADD COLUMN cost_usd REAL;
ALTER TABLE record ADD COLUMN latency_ms REAL;
CREATE INDEX record_by_end_user ON record (end_user) WHERE end_user IS NOT NULL;
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first tables", _FIRST_TABLES),
    Migration(2, "find workloads by their prompt", _PROMPT_INDEX),
    Migration(3, "audits of routes", _AUDITS),
    Migration(4, "tokens that audits cost", _AUDIT_COSTS),
    Migration(5, "units that audits belong to, and answers not sent", _AUDIT_UNITS),
    Migration(6, "whose a record is, and what it cost", _RECORD_FACTS),
)


def statements_of(sql: str) -> Iterator[str]:
    """The statements of a script, one by one (a trigger's body holds semicolons of its own)."""
    pending = ""
    for piece in sql.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n;"):
                yield pending.strip()
            pending = ""
