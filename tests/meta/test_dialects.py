"""The page of the dialects says what the code does."""

from __future__ import annotations

from tests.teacher.dialect.tables import BEGIN, END, PAGE, page_tables


def test_page_holds_the_tables_of_the_code() -> None:
    shown = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0]
    assert shown == page_tables(), "run `python -m tests.teacher.dialect.tables`"
