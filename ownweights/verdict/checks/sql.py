"""Harm by what a query returns: it is run on a given SQLite file, and its rows are compared.

    sql database=shop.sqlite

The rows are compared as a collection, in which multiplicity counts; in their order when the
reference has an ORDER BY of its own (not only inside a subquery). Names of columns do not matter,
1 equals 1.0, and real numbers may differ by `tolerance` times the larger one.

A query may read tables and call functions. Writing, PRAGMA, ATTACH, loading and random() are
refused by SQLite's authorizer; the file is opened read-only and immutable. A query that takes more
than `max_steps` instructions of SQLite's machine, returns more than `max_rows` rows or 50 megabytes
in all or one in a value is not answered: harm for the answer, "could not judge" for the reference.
Steps, not seconds, so that judging again says the same; `timeout_s` is the net below.
Invariants: nothing that a query does changes the file (test_sql_refuses_what_is_not_reading).
Source: Zhong, Yu and Klein, EMNLP 2020 (execution accuracy), and what it can miss: two queries may
agree by chance on one database.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from ownweights.core.errors import SettingsError
from ownweights.core.strict import setting
from ownweights.verdict.checks.fence import unfenced
from ownweights.verdict.checks.named import NamedCheck, PinnedFile

MAGIC = b"SQLite format 3\x00"
MAX_VALUE_BYTES, MAX_RESULT_BYTES = 1_000_000, 50_000_000
STEPS_PER_CALL = 10_000
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
_REFUSED = ("random", "randomblob", "load_extension")
_SKIPPED = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]""", re.S
)
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SqlCheck(NamedCheck):
    """The rows of a query."""

    word: ClassVar[str] = "sql"
    database: str = setting(pattern=r".+", pattern_says="the path of a SQLite file")
    sha256: str = setting("", pattern=r"[0-9a-f]{64}|", pattern_says="64 hexadecimal digits")
    tolerance: float = setting(1e-9, at_least=0, at_most=1)
    fence: bool = setting(False)
    max_rows: int = setting(10_000, at_least=1)
    max_steps: int = setting(100_000_000, at_least=STEPS_PER_CALL)
    timeout_s: float = setting(30.0, at_least=0, at_most=3600, is_open=True)
    file: PinnedFile | None = field(default=None, compare=False, repr=False)

    def sealed(self, folder: Path) -> Self:
        path = folder / self.database
        file = PinnedFile.of(path, self.sha256)
        with path.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise SettingsError(f"{path} is not a SQLite database")
        journal = Path(f"{path}-wal")
        if journal.exists() and journal.stat().st_size:
            raise SettingsError(
                f"{path} has changes that are not yet in the file itself ({journal.name})",
                hint=f"write them in: sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'",
            )
        return replace(self, sha256=file.sha256, file=file)

    def harm(self, answer: str | None, references: Sequence[str]) -> float | None:
        assert self.file is not None, "a check is made by check_named, which pins its file"
        is_certain = True
        said: list[Row] | None = None
        for reference in dict.fromkeys(references):
            rows = self.rows(reference)
            if rows is None:
                is_certain = False
                continue
            said = said if said is not None else self.rows(answer or "")
            if said is None:
                return 1.0
            if self._is_same(said, rows, is_ordered=has_outer_order(reference)):
                return 0.0
        return 1.0 if is_certain and said is not None else None

    def rows(self, query: str) -> list[Row] | None:
        """What a query returns; None for one that may not, cannot, or takes too long to be run."""
        assert self.file is not None, "a check is made by check_named, which pins its file"
        text = unfenced(query) if self.fence else query
        if not text.strip():
            return None
        uri = f"{self.file.unchanged().resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            self._confine(connection)
            return self._fetch(connection.execute(text))
        # a Warning is what Python 3.11 raises for several statements
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError, OverflowError):
            return None
        finally:
            connection.close()

    def _fetch(self, cursor: sqlite3.Cursor) -> list[Row] | None:
        if cursor.description is None:
            return None
        found: list[Row] = []
        num_bytes = 0
        for row in cursor:
            found.append(row)
            num_bytes += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(found) > self.max_rows or num_bytes > MAX_RESULT_BYTES:
                return None
        return found

    def _confine(self, connection: sqlite3.Connection) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.set_authorizer(_authorize)
        calls_left = self.max_steps // STEPS_PER_CALL
        until = time.monotonic() + self.timeout_s

        def is_over() -> bool:
            nonlocal calls_left
            calls_left -= 1
            return calls_left <= 0 or time.monotonic() > until

        connection.set_progress_handler(is_over, STEPS_PER_CALL)

    def _is_same(self, left: list[Row], right: list[Row], *, is_ordered: bool) -> bool:
        if len(left) != len(right):
            return False
        if is_ordered:
            return all(self._same_row(*pair) for pair in zip(left, right, strict=True))
        if Counter(map(_tagged, left)) == Counter(map(_tagged, right)):
            return True
        # rounding sorts near numbers apart: pair the rows that agree in all but their reals
        ours, theirs = _by_other_columns(left), _by_other_columns(right)
        return ours.keys() == theirs.keys() and all(
            len(ours[key]) == len(theirs[key])
            and all(map(self._same_row, sorted(ours[key]), sorted(theirs[key])))
            for key in ours
        )

    def _same_row(self, left: Row, right: Row) -> bool:
        return len(left) == len(right) and all(map(self._same_value, left, right))

    def _same_value(self, left: Any, right: Any) -> bool:
        if isinstance(left, float) or isinstance(right, float):
            is_number = isinstance(left, int | float) and isinstance(right, int | float)
            return is_number and (left == right or self._is_near(left, right))
        return type(left) is type(right) and left == right

    def _is_near(self, left: float, right: float) -> bool:
        return math.isclose(left, right, rel_tol=self.tolerance) if self.tolerance else False


def has_outer_order(query: str) -> bool:
    """Whether a query orders its own rows: an ORDER BY outside all brackets."""
    depth, outside = 0, ""
    for mark in _SKIPPED.sub(" ", query):
        depth += (mark == "(") - (mark == ")")
        outside += mark if depth == 0 else " "
    return re.search(r"\bORDER\s+BY\b", outside, re.I) is not None


def _authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        is_allowed = (second or "").lower() not in _REFUSED
    else:
        is_allowed = action in _ALLOWED
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def _tagged(row: Row) -> Row:
    """Hashable, with 1 equal to 1.0 but not to the text '1', and NULL equal to NULL."""
    return tuple((isinstance(value, int | float), value) for value in row)


def _by_other_columns(rows: list[Row]) -> dict[Row, list[Row]]:
    groups: defaultdict[Row, list[Row]] = defaultdict(list)
    for row in rows:
        is_number = [isinstance(value, int | float) for value in row]
        key = tuple(None if n else (type(v), v) for n, v in zip(is_number, row, strict=True))
        groups[key].append(tuple(v for n, v in zip(is_number, row, strict=True) if n))
    return dict(groups)
