"""The benches' mock and load generator, against each other: what is counted is what happened."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("linux") or not (shutil.which("gcc") or shutil.which("cc")):
    pytest.skip("the load generator needs Linux and a C compiler", allow_module_level=True)

from bench.gateway_crash import ANSWERS
from bench.load.gateways import write_body
from bench.load.programs import Door, ask, mock

SECONDS = ("--seconds", 0.4)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with mock(delay_ms=1, gap_ms=0.2, chunks=20) as port:
        yield Door(port)


def fetched(door: Door, body: Path) -> tuple[int, bytes]:
    url = f"http://127.0.0.1:{door.port}{door.path}"
    with urllib.request.urlopen(urllib.request.Request(url, body.read_bytes())) as answer:
        return answer.status, answer.read()


def test_mock_answers_are_what_the_crash_bench_looks_for(door: Door, tmp_path: Path) -> None:
    status, whole = fetched(door, write_body(tmp_path, "json"))
    assert (status, json.loads(whole)["choices"][0]["message"]["content"]) == (200, ANSWERS[0])
    _, stream = fetched(door, write_body(tmp_path, "sse"))
    *events, done, rest = stream.decode().split("\n\n")
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == ANSWERS[1]
    assert (done, rest) == ("data: [DONE]", "")


@pytest.mark.parametrize(("kind", "least_bytes"), [("json", 400), ("sse 100kB", 100_000)])
def test_load_reads_every_answer_whole(
    door: Door, tmp_path: Path, kind: str, least_bytes: int
) -> None:
    log = tmp_path / "log"
    report = ask(door, [write_body(tmp_path, kind)], *SECONDS, "--rate", 100, "--log", log)
    assert report.issued == report.done == report.answers == len(log.read_text().splitlines()) == 40
    assert report.errors == report.left == report.unanswered == 0
    assert report.read_bytes / report.answers > least_bytes


def test_load_in_a_closed_loop_keeps_asking(door: Door, tmp_path: Path) -> None:
    report = ask(door, [write_body(tmp_path, "json")], *SECONDS, "--conns", 3)
    assert report.issued == report.done > 3
    assert report.errors == 0


@pytest.mark.parametrize(
    ("model", "non_200"), [("mock-error", 40), ("mock-limit", 40), ("mock-reset", 0)]
)
@pytest.mark.parametrize("kind", ["json", "sse"])
def test_load_counts_what_goes_wrong(
    door: Door, tmp_path: Path, kind: str, model: str, non_200: int
) -> None:
    body = write_body(tmp_path, kind, model=model)
    report = ask(door, [body], *SECONDS, "--rate", 100)
    assert (report.done, report.errors, report.non_200) == (0, 40, non_200)


def test_load_counts_those_that_it_left_and_reads_in_sips(door: Door, tmp_path: Path) -> None:
    bodies = [write_body(tmp_path, "sse")]
    report = ask(door, bodies, *SECONDS, "--rate", 100, "--leave", 0.5, "--slow", 0.2)
    assert report.left > 0
    assert report.left + report.done == 40


def test_load_counts_a_server_that_is_not_there(tmp_path: Path) -> None:
    with mock() as port:
        pass
    report = ask(Door(port), [write_body(tmp_path, "json")], *SECONDS, "--rate", 100)
    assert (report.done, report.errors) == (0, 40)
