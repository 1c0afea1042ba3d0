"""The tables of `.own/own.db`, as numbered steps; the database applies those it lacks, in order.

They are written for SQLite, and core/dialect.py says them for Postgres.

A step that has been released is never changed: what is wrong in it is mended by a new one at the
end. Every package's tables stand here, so that one file shows the whole schema.

    record   one request with its answer, as it passed (body: segment, offset, item in `bodies/`)
    segment  the body files, one writer process each
    part     system prompts and tool schemas, stored once by hash
    attempt  the error budget: attempt k on a workload and the delta it may spend
    event    what happened, append-only
    feedback what callers said of answers they got
    tally    records in sums, by day and by everything that lists are filtered by
    key_tally  the same by key, for records that came with one
    seen     how often each fixed prompt and session was seen in a workload
    workload_tally  how many distinct ones there are
    audit    what live requests showed of a route, in order; its evidence is recomputed from these,
             with tallies of what was served and not audited between them
    key      the gateway's own keys, by their hash: whose, what they may do, how much they may spend
    spend    what each key spent on each day (UTC); every gateway process counts in rows of its own
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

_SUMS = """\
  first_at  REAL NOT NULL,
  last_at   REAL NOT NULL,
  records   BIGINT NOT NULL,
  pruned    BIGINT NOT NULL,
  body_bytes        BIGINT NOT NULL,
  prompt_tokens     BIGINT NOT NULL,
  completion_tokens BIGINT NOT NULL,
  priced     BIGINT NOT NULL,
  cost_nusd  BIGINT NOT NULL,
  timed      BIGINT NOT NULL,
  latency_us BIGINT NOT NULL,
  lat_0  INTEGER NOT NULL,
  lat_1  INTEGER NOT NULL,
  lat_2  INTEGER NOT NULL,
  lat_3  INTEGER NOT NULL,
  lat_4  INTEGER NOT NULL,
  lat_5  INTEGER NOT NULL,
  lat_6  INTEGER NOT NULL,
  lat_7  INTEGER NOT NULL,
  lat_8  INTEGER NOT NULL,
  lat_9  INTEGER NOT NULL,
  lat_10  INTEGER NOT NULL,
  lat_11  INTEGER NOT NULL,
  lat_12  INTEGER NOT NULL,
  lat_13  INTEGER NOT NULL,
  lat_14  INTEGER NOT NULL,
  lat_15  INTEGER NOT NULL,
"""

_COUNTED = """\
  sum(completion_tokens), count(cost_usd),
  coalesce(sum(CAST(cost_usd * 1000000000 + 0.5 AS BIGINT)), 0), count(latency_ms),
  coalesce(sum(CAST(latency_ms * 1000 + 0.5 AS BIGINT)), 0),
  count(*) FILTER (WHERE latency_ms < 10),
  count(*) FILTER (WHERE latency_ms >= 10 AND latency_ms < 20),
  count(*) FILTER (WHERE latency_ms >= 20 AND latency_ms < 40),
  count(*) FILTER (WHERE latency_ms >= 40 AND latency_ms < 80),
  count(*) FILTER (WHERE latency_ms >= 80 AND latency_ms < 160),
  count(*) FILTER (WHERE latency_ms >= 160 AND latency_ms < 320),
  count(*) FILTER (WHERE latency_ms >= 320 AND latency_ms < 640),
  count(*) FILTER (WHERE latency_ms >= 640 AND latency_ms < 1280),
  count(*) FILTER (WHERE latency_ms >= 1280 AND latency_ms < 2560),
  count(*) FILTER (WHERE latency_ms >= 2560 AND latency_ms < 5120),
  count(*) FILTER (WHERE latency_ms >= 5120 AND latency_ms < 10240),
  count(*) FILTER (WHERE latency_ms >= 10240 AND latency_ms < 20480),
  count(*) FILTER (WHERE latency_ms >= 20480 AND latency_ms < 40960),
  count(*) FILTER (WHERE latency_ms >= 40960 AND latency_ms < 81920),
  count(*) FILTER (WHERE latency_ms >= 81920 AND latency_ms < 163840),
  count(*) FILTER (WHERE latency_ms >= 163840)
"""

_TALLIES = f"""
CREATE TABLE tally (
  id        INTEGER PRIMARY KEY,
  day       INTEGER NOT NULL,
  workload  TEXT NOT NULL,
  status    TEXT NOT NULL,
  role      TEXT NOT NULL,
  model     TEXT NOT NULL,
  upstream  TEXT NOT NULL,
  protocol  TEXT NOT NULL,
{_SUMS}  UNIQUE (day, workload, status, role, model, upstream, protocol)
);
CREATE TABLE key_tally (
  tally_id  INTEGER NOT NULL REFERENCES tally (id),
  key_id    TEXT NOT NULL,
{_SUMS}  PRIMARY KEY (key_id, tally_id)
) WITHOUT ROWID;
CREATE TABLE seen (
  workload TEXT NOT NULL,
  kind     TEXT NOT NULL CHECK (kind IN ('prompt', 'session')),
  name     TEXT NOT NULL,
  records  BIGINT NOT NULL,
  PRIMARY KEY (workload, kind, name)
) WITHOUT ROWID;
CREATE TABLE workload_tally (
  workload TEXT PRIMARY KEY,
  prompts  BIGINT NOT NULL,
  sessions BIGINT NOT NULL
);
ALTER TABLE record ADD COLUMN tally_id INTEGER;
ALTER TABLE record ADD COLUMN pruned_at REAL;
ALTER TABLE part ADD COLUMN uses INTEGER;
ALTER TABLE segment ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;
INSERT INTO tally (day, workload, status, role, model, upstream, protocol, first_at,
  last_at, records, pruned, body_bytes, prompt_tokens, completion_tokens, priced, cost_nusd, timed,
  latency_us, lat_0, lat_1, lat_2, lat_3, lat_4, lat_5, lat_6, lat_7, lat_8, lat_9, lat_10, lat_11,
  lat_12, lat_13, lat_14, lat_15)
SELECT CAST(at / 86400 AS INTEGER), workload, status, role, model, upstream, protocol,
  min(at), max(at), count(*), 0, sum(body_bytes), sum(prompt_tokens),
{_COUNTED}FROM record
GROUP BY CAST(at / 86400 AS INTEGER), workload, status, role, model, upstream, protocol;
UPDATE record SET tally_id = (
  SELECT tally.id FROM tally
  WHERE tally.day = CAST(record.at / 86400 AS INTEGER) AND tally.workload = record.workload
    AND tally.status = record.status AND tally.role = record.role AND tally.model = record.model
    AND tally.upstream = record.upstream AND tally.protocol = record.protocol);
INSERT INTO key_tally (tally_id, key_id, first_at,
  last_at, records, pruned, body_bytes, prompt_tokens, completion_tokens, priced, cost_nusd, timed,
  latency_us, lat_0, lat_1, lat_2, lat_3, lat_4, lat_5, lat_6, lat_7, lat_8, lat_9, lat_10, lat_11,
  lat_12, lat_13, lat_14, lat_15)
SELECT tally_id, key_id, min(at), max(at), count(*), 0, sum(body_bytes), sum(prompt_tokens),
{_COUNTED}FROM record WHERE key_id IS NOT NULL GROUP BY tally_id, key_id;
INSERT INTO seen (workload, kind, name, records)
SELECT workload, 'prompt', prompt_hash, count(*) FROM record GROUP BY workload, prompt_hash;
INSERT INTO seen (workload, kind, name, records)
SELECT workload, 'session', session, count(*) FROM record WHERE session IS NOT NULL
GROUP BY workload, session;
INSERT INTO workload_tally (workload, prompts, sessions)
SELECT workload, count(*) FILTER (WHERE kind = 'prompt'), count(*) FILTER (WHERE kind = 'session')
FROM seen GROUP BY workload;
CREATE INDEX record_by_tally ON record (tally_id, seq);
CREATE INDEX record_by_key ON record (key_id, tally_id, seq) WHERE key_id IS NOT NULL;
CREATE INDEX key_tally_records ON key_tally (key_id, records);
CREATE INDEX record_by_segment ON record (segment);
CREATE INDEX part_by_segment ON part (segment);
"""

_FEEDBACK = """
CREATE TABLE feedback (
  id         TEXT PRIMARY KEY,
  at         DOUBLE PRECISION NOT NULL,
  request_id TEXT,
  session    TEXT,
  name       TEXT NOT NULL,
  kind       TEXT NOT NULL CHECK (kind IN ('boolean', 'number', 'comment', 'demonstration')),
  value      TEXT NOT NULL,
  CHECK ((request_id IS NULL) <> (session IS NULL))
);
CREATE INDEX feedback_by_request ON feedback (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX feedback_by_session ON feedback (session) WHERE session IS NOT NULL;
"""

_KEYS = """
CREATE TABLE key (
  id               TEXT PRIMARY KEY,
  name             TEXT NOT NULL,
  hash             TEXT NOT NULL UNIQUE,
  made_at          DOUBLE PRECISION NOT NULL,
  workloads        TEXT NOT NULL,
  budget_usd       DOUBLE PRECISION CHECK (budget_usd >= 0),
  budget_per       TEXT NOT NULL CHECK (budget_per IN ('day', 'month', 'total')),
  requests_per_min BIGINT CHECK (requests_per_min > 0),
  tokens_per_min   BIGINT CHECK (tokens_per_min > 0),
  recorded         INTEGER NOT NULL CHECK (recorded IN (0, 1)),
  students         INTEGER NOT NULL CHECK (students IN (0, 1)),
  expires_at       DOUBLE PRECISION,
  revoked_at       DOUBLE PRECISION,
  version          BIGINT NOT NULL
);
CREATE UNIQUE INDEX key_by_name ON key (name) WHERE revoked_at IS NULL;
CREATE TABLE spend (
  key_id            TEXT NOT NULL REFERENCES key (id),
  day               TEXT NOT NULL,
  writer            TEXT NOT NULL,
  requests          BIGINT NOT NULL,
  unpriced          BIGINT NOT NULL,
  tokens            BIGINT NOT NULL,
  nano_usd          BIGINT NOT NULL,
  estimated_nano_usd BIGINT NOT NULL,
  PRIMARY KEY (day, key_id, writer)
);
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first tables", _FIRST_TABLES),
    Migration(2, "find workloads by their prompt", _PROMPT_INDEX),
    Migration(3, "audits of routes", _AUDITS),
    Migration(4, "tokens that audits cost", _AUDIT_COSTS),
    Migration(5, "units that audits belong to, and answers not sent", _AUDIT_UNITS),
    Migration(6, "whose a record is, and what it cost", _RECORD_FACTS),
    Migration(7, "tallies, and bodies that went", _TALLIES),
    Migration(8, "keys of the gateway's own, and what they spend", _KEYS),
    Migration(9, "feedback on answers", _FEEDBACK),
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
