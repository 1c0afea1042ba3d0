"""The log: one line a record, in both forms, whatever is in it."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.gateway.exchange import open_exchange
from ownweights.gateway.run import logging_to_stderr
from ownweights.gateway.watch.logs import JsonLines, TextLines, formatter_of, one_line
from tests.teacher.servers import asked

FORMS = [TextLines(), JsonLines()]


def record_of(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("ownweights.gateway", logging.INFO, "", 1, message, args, None)


@given(st.text())
def test_logs_hostile_words_stay_in_their_line(text: str) -> None:
    for form in FORMS:
        line = form.format(record_of("route %s: %s", text, f"a\r\n2026-01-01 fake{text}"))
        assert len(line.splitlines()) == 1
        assert not any(ord(char) < 32 for char in line)
        line.encode()


@given(st.text(min_size=1))
def test_logs_hostile_reason_stays_in_its_line(text: str) -> None:
    exchange = open_exchange({"headers": []}, b"", asked("private"))
    exchange.reason = f"ineligible:{text}"
    for form in FORMS:
        assert len(form.format(record_of("%s", exchange.told())).splitlines()) == 1


def test_logs_json_says_what_text_says() -> None:
    exchange = open_exchange({"headers": [(b"x-own-workload", b"tickets")]}, b"", asked("private"))
    exchange.http_status, exchange.error = 502, "teacher_unreachable"
    record = record_of("%s", exchange.told())
    text, facts = TextLines().format(record), json.loads(JsonLines().format(record))
    for name in ("id", "workload", "status", "served_by", "reason", "error"):
        assert str(facts[name]) in text.split()
    assert (facts["event"], facts["level"], facts["logger"]) == (
        "request", "info", "ownweights.gateway",
    )  # fmt: skip
    assert facts["time"].endswith("Z")
    assert "private" not in text + json.dumps(facts)


def test_logs_json_names_an_exception_without_its_words() -> None:
    record = record_of("broke")
    record.exc_info = (ValueError, ValueError("private"), None)
    said = json.loads(JsonLines().format(record))
    assert (said["message"], said["error"]) == ("broke", "ValueError")
    assert "private" not in TextLines().format(record)


def test_one_line_keeps_a_hint_readable() -> None:
    assert one_line("it broke\nhint: mend it") == "it broke; hint: mend it"


@pytest.mark.parametrize(("form", "kind"), [("json", JsonLines), ("text", TextLines)])
def test_formatter_of_names_both_forms(form: str, kind: type) -> None:
    assert isinstance(formatter_of(form), kind)


@pytest.mark.parametrize("is_quiet", [True, False])
def test_logging_to_stderr_writes_in_the_form_asked_for(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    with logging_to_stderr(is_quiet=is_quiet, form="json"):
        logging.getLogger("ownweights.gateway").info("a request")
        logging.getLogger("some.library").warning("it warns")
    said = [json.loads(line)["message"] for line in stderr.getvalue().splitlines()]
    assert said == (["it warns"] if is_quiet else ["a request", "it warns"])
