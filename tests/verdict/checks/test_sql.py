"""Queries compared by what they return, and kept from doing anything else."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from ownweights.core.errors import SettingsError
from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.sql import SqlCheck, has_outer_order

ROWS = [(n, f"name{n % 5}", n % 3, n / 7, None if n % 4 else n) for n in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("CREATE TABLE item (id INTEGER, name TEXT, kind INTEGER, price REAL, gone)")
    connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?)", ROWS)
    connection.execute('CREATE TABLE "order by" (x TEXT)')
    connection.commit()
    connection.close()
    return tmp_path


@pytest.fixture
def check(folder: Path) -> SqlCheck:
    found = check_named("sql database=shop.db", folder)
    assert isinstance(found, SqlCheck)
    return found


@pytest.mark.parametrize(
    ("answer", "reference", "harm"),
    [
        ("SELECT count(*) FROM item", "select COUNT(id) as n from item;", 0.0),
        ("SELECT 40", "SELECT count(*) FROM item", 0.0),
        ("SELECT 40.0", "SELECT count(*) FROM item", 0.0),
        ("SELECT '40'", "SELECT count(*) FROM item", 1.0),
        ("SELECT name FROM item", "SELECT DISTINCT name FROM item", 1.0),
        ("SELECT name FROM item ORDER BY id DESC", "SELECT name FROM item", 0.0),
        ("SELECT id FROM item ORDER BY id", "SELECT id FROM item ORDER BY id", 0.0),
        ("SELECT id FROM item ORDER BY id DESC", "SELECT id FROM item ORDER BY id", 1.0),
        ("SELECT id, name FROM item", "SELECT name, id FROM item", 1.0),
        ("SELECT sum(price) FROM item", "SELECT 0.0 + sum(price) + 1e-13 FROM item", 0.0),
        ("SELECT sum(price) FROM item", "SELECT sum(price) + 0.01 FROM item", 1.0),
        ("SELECT gone FROM item WHERE id = 1", "SELECT NULL", 0.0),
        ("SELECT 0", "SELECT NULL", 1.0),
        ("SELECT id FROM item WHERE id < 0", "SELECT id FROM item WHERE id > 99", 0.0),
        ("SELECT id, 1 FROM item WHERE 0", "SELECT id FROM item WHERE 0", 0.0),  # no rows at all
        ("SELECT nothing FROM item", "SELECT 1", 1.0),
        ("SELECT 1 FROM", "SELECT 1", 1.0),
        ("How many?", "SELECT 1", 1.0),
        ("-- only a comment", "SELECT 1", 1.0),
        ("SELECT 1; SELECT 1", "SELECT 1", 1.0),
        ("```sql\nSELECT 1\n```", "SELECT 1", 1.0),
        ("SELECT 1", "SELECT 1 FROM nowhere", None),
        ("nonsense", "more nonsense", None),
        ("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3) SELECT n FROM c",
         "VALUES (3), (2), (1)", 0.0),
        ("SELECT x'00ff'", "SELECT x'00FF'", 0.0),
        ("SELECT x'61'", "SELECT 'a'", 1.0),
    ],
)  # fmt: skip
def test_sql_compares_rows(check: SqlCheck, answer: str, reference: str, harm: float) -> None:
    assert check.harm(answer, [reference]) == harm


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM item", "INSERT INTO item (id) VALUES (1)", "UPDATE item SET id = 1",
        "DROP TABLE item", "CREATE TABLE t (x)", "CREATE TEMP TABLE t (x)", "VACUUM",
        "ATTACH 'other.db' AS o", "PRAGMA user_version = 7", "PRAGMA user_version",
        "SELECT * FROM pragma_table_info('item')", "BEGIN IMMEDIATE", "REINDEX", "ANALYZE",
        "SELECT load_extension('x')", "SELECT random()", "SELECT hex(randomblob(4))",
        "SELECT id FROM item ORDER BY Random()", "INSERT INTO item (id) VALUES (1) RETURNING id",
        "WITH t AS (SELECT 1) DELETE FROM item", "SELECT writefile('a', 'b')",
    ],
)  # fmt: skip
def test_sql_refuses_what_is_not_reading(folder: Path, check: SqlCheck, query: str) -> None:
    before = hashlib.sha256((folder / "shop.db").read_bytes()).hexdigest()
    assert check.rows(query) is None
    assert check.harm(query, ["SELECT 1"]) == 1.0
    assert hashlib.sha256((folder / "shop.db").read_bytes()).hexdigest() == before
    assert [path.name for path in folder.iterdir()] == ["shop.db"]


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS,
        "SELECT 1 FROM item a, item b, item c, item d, item e, item f WHERE a.id + f.id < 0",
        "SELECT a.id FROM item a, item b, item c",
        "SELECT zeroblob(2000000)",
        "SELECT replace(hex(zeroblob(400000)), '0', 'aa')",
        "SELECT group_concat(a.name) FROM item a, item b, item c, item d",
    ],
    ids=["endless", "product", "rows", "blob", "text", "concat"],
)
def test_sql_stops_what_takes_too_much(folder: Path, query: str) -> None:
    check = check_named("sql database=shop.db max_steps=3000000", folder)
    assert check.harm(query, ["SELECT 1"]) == 1.0
    assert check.harm("SELECT 1", [query]) is None


def test_sql_limits_all_rows_together(check: SqlCheck) -> None:
    values = "FROM item a, item b WHERE a.id < 3"
    assert check.rows(f"SELECT zeroblob(900000) {values}") is None
    assert len(check.rows(f"SELECT zeroblob(400000) {values}") or ()) == 120


def test_sql_steps_are_the_same_every_time(folder: Path) -> None:
    query = "SELECT count(*) FROM item a, item b, item c, item d WHERE a.id + d.id % 2"
    found = [
        check_named(f"sql database=shop.db max_steps={steps}", folder).harm(query, [query])
        for steps in (10_000, 1_000_000, 1_000_000, 100_000_000)
    ]
    assert found == [None, None, None, 0.0]


@pytest.mark.parametrize(
    ("query", "is_ordered"),
    [
        ("SELECT 1 ORDER BY 1", True),
        ("select 1 order\n by 1", True),
        ("SELECT 1 UNION SELECT 2 ORDER BY 1 LIMIT 1", True),
        ("SELECT 1", False),
        ("SELECT * FROM (SELECT 1 ORDER BY 1)", False),
        ("SELECT rank() OVER (ORDER BY x) FROM t", False),
        ("WITH a AS (SELECT 1 ORDER BY 1) SELECT * FROM a ORDER BY 1", True),
        ("SELECT 'order by'", False),
        ('SELECT x FROM "order by"', False),
        ("SELECT x FROM [order by]", False),
        ("SELECT x FROM `order by`", False),
        ("SELECT 1 -- ORDER BY 1", False),
        ("SELECT 1 /* ORDER BY */", False),
        ("SELECT 'it''s (' FROM t ORDER BY 1", True),
        ("SELECT ordered, bypass FROM t", False),
    ],
)
def test_has_outer_order_sees_only_the_outermost(query: str, is_ordered: bool) -> None:
    assert has_outer_order(query) is is_ordered


def test_has_outer_order_matches_stripping_on_real_queries(test_data: Path) -> None:
    with gzip.open(test_data / "traffic" / "sql-gpt4.jsonl.gz", "rt", encoding="utf-8") as opened:
        rows = [json.loads(line) for line in opened]
    queries = [row["metadata"]["gold"] for row in rows]
    queries += [row["response"]["choices"][0]["message"]["content"] for row in rows]
    found = [has_outer_order(query) for query in queries]
    assert found == [_ordered_by_stripping(query) for query in queries]
    assert (len(queries), sum(found[:1034])) == (2068, 231)


def _ordered_by_stripping(query: str) -> bool:
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "", query)
    while (inner := re.sub(r"\([^()]*\)", "", text)) != text:
        text = inner
    return "ORDERBY" in re.sub(r"\s", "", text).upper()


def test_sql_rows_match_brute_force(check: SqlCheck) -> None:
    """The comparison on rows shuffled, repeated and nudged, against counting by hand."""
    seeded = random.Random(5)
    for _ in range(300):
        rows = [(seeded.randint(0, 2), seeded.choice(["a", "b"])) for _ in range(4)]
        other = seeded.sample(rows, 4) if seeded.random() < 0.5 else rows[:3] + rows[:1]
        one, two = (", ".join(f"({n}, '{t}')" for n, t in r) for r in (rows, other))
        expected = float(Counter(rows) != Counter(other))
        assert check.harm(f"VALUES {one}", [f"VALUES {two}"]) == expected
        ordered = f"SELECT * FROM (VALUES {two}) ORDER BY 1 + 0 * column1"
        expected = float(rows != (check.rows(ordered) or []))
        assert check.harm(f"VALUES {one}", [ordered]) == expected


def test_sql_real_numbers_are_paired_by_what_else_is_in_the_row(check: SqlCheck) -> None:
    ours = "VALUES (0.1 + 0.2, 'a'), (0.3, 'b')"
    assert check.harm(ours, ["VALUES (0.3, 'a'), (0.1 + 0.2, 'b')"]) == 0.0
    assert check.harm(ours, ["VALUES (0.3, 'a'), (0.4, 'b')"]) == 1.0
    assert check.harm(ours, ["VALUES (0.3, 'a'), (0.3, 'a')"]) == 1.0
    exact = SqlCheck(check.database, check.sha256, tolerance=0.0, file=check.file)
    assert exact.harm(ours, ["VALUES (0.3, 'a'), (0.3, 'b')"]) == 1.0
    assert exact.harm(ours, [ours]) == 0.0


def test_sql_with_several_references(check: SqlCheck) -> None:
    assert check.harm("SELECT 1", ["SELECT 2", "SELECT 1"]) == 0.0
    assert check.harm("SELECT 1", ["SELECT 2", "nonsense"]) is None
    assert check.harm("SELECT 1", ["SELECT 2", "SELECT 3"]) == 1.0
    assert check.harm("nonsense", ["nonsense too", "SELECT 3"]) == 1.0


def test_sql_reads_a_fence_when_told(folder: Path) -> None:
    check = check_named("sql database=shop.db fence=true", folder)
    assert check.harm("```sql\nSELECT 1\n```", ["SELECT 1"]) == 0.0
    assert check.harm("SELECT 1", ["```\nSELECT 1\n```\n"]) == 0.0
    assert check.harm("Here:\n```sql\nSELECT 1\n```", ["SELECT 1"]) == 1.0


def test_sql_takes_a_database_alone(folder: Path) -> None:
    (folder / "text.db").write_text("hello")
    with pytest.raises(SettingsError, match="is not a SQLite database"):
        check_named("sql database=text.db", folder)


def test_sql_refuses_a_database_with_a_journal(folder: Path) -> None:
    connection = sqlite3.connect(folder / "shop.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM item")
    connection.commit()
    with pytest.raises(SettingsError, match=r"not yet in the file itself \(shop.db-wal\)") as info:
        check_named("sql database=shop.db", folder)
    assert "wal_checkpoint" in (info.value.hint or "")
    connection.close()
    assert check_named("sql database=shop.db", folder).harm(
        "SELECT 0", ["SELECT count(*) FROM item"]
    ) == 0.0  # fmt: skip


def test_sql_reads_text_that_is_not_utf8(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "odd.db")
    connection.execute("CREATE TABLE t (x TEXT)")
    connection.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
    connection.commit()
    connection.close()
    check = check_named("sql database=odd.db", tmp_path)
    assert check.harm("SELECT x FROM t", ["SELECT x FROM t"]) == 0.0
    assert check.harm("SELECT 'A'", ["SELECT x FROM t"]) == 1.0
