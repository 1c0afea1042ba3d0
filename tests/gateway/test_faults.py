"""What happens around the gateway: teachers that break, callers that attack, a machine run dry."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ownweights.core.database import plain_text
from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.traffic import Recorder, TrafficStore
from ownweights.traffic.bodies.segment import SegmentWriter
from ownweights.traffic.redact import Privacy, PrivacyRules
from tests.gateway.harness import WAIT_S, Engines, Running, chunk, error_code, gateway
from tests.teacher.servers import asked, completion, json_answer, running, sse_answer, talking

ANSWER = json_answer(json.dumps(completion()).encode())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    project = Project(tmp_path_factory.mktemp("faults"))
    with talking(ANSWER) as talk, gateway(project, talk.base_url) as one:
        yield one


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [], "temperature": NaN}', b'{"messages": [], "x": Infinity}',
        b'{"messages": [], "x": -Infinity}', b'{"messages": [1e999]}', b"\xef\xbb\xbf{}",
        b'{"messages": []}{}', b'{"messages": [],}', b"{'messages': []}", b'{"a": "\x01"}',
        b'{"messages": "\\ud800"}',
        b'{"a":' * 5_000, b"null", b"1", b'"x"', b"\x00", b"\xff\xfe{\x00",
    ],
)  # fmt: skip
def test_gateway_odd_json_is_400(door: Running, body: bytes) -> None:
    assert error_code(door.post(body)).startswith("400 invalid_")


def test_gateway_duplicate_keys_pass_as_they_came(project: Project) -> None:
    """The teacher reads them; the record has the last one, as most readers do."""
    body = b'{"messages": [], "model": "a", "model": "b", "__proto__": {"x": 1}, "constructor": 1}'
    with talking(ANSWER) as talk, gateway(project, talk.base_url) as one:
        assert one.post(body).status_code == 200
        assert talk.body() == body
        assert one.kept.wait().request["model"] == "b"


HOSTILE = ["'; DROP TABLE record; --", '" OR 1=1 --', "../../etc/passwd", "a\x00b", "a\r\nx: y",
           "\x1b[31m", "\u202e", "${jndi:x}", "%s%n", "__proto__", "x" * 5_000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_gateway_hostile_text_in_every_field_is_only_text(
    project: Project, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SQL, paths and control characters: stored as they are, never in a header or the log."""
    caplog.set_level(logging.DEBUG, "ownweights")
    body = asked(text, user=text, model=text, metadata={"session": text[:200], text: text})
    as_is = Privacy(project, PrivacyRules(redact=("none",)))  # what a key named passwd holds is one
    recorder = Recorder(project, privacy=as_is)
    with talking(ANSWER) as talk:
        settings = GatewaySettings(
            teachers={"main": Upstream("main", talk.base_url)}, default_teacher="main"
        )
        app = Gateway(project, settings, start_engine=Engines(), recorder=recorder)
        with running(app) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=body)
            assert answer.status_code == 200
            for value in (text, {"a": text}):
                named = asked("x", metadata={"workload": value})
                refused = httpx.post(f"{url}/v1/chat/completions", json=named)
                if refused.status_code != 200:  # some are names
                    assert error_code(refused) == "400 invalid_workload"
    assert not any(letter in line for line in caplog.messages for letter in "\r\n\x00\x1b\u202e")
    with TrafficStore.open(project) as store:
        record = store.get(answer.headers["x-own-request-id"])
        assert record is not None and record.request["messages"][0]["content"] == text
        spelled = plain_text(text)  # in columns, NUL is spelled out
        assert record.end_user == spelled and record.session == plain_text(text[:200])
        assert store.get(text) is None and store.find_ids(text) == []
        assert store.count(session=text[:200], workload=text) == 0
        assert store.verify().is_sound


@pytest.mark.parametrize(
    ("status", "extra"),
    [
        ("200 OK", "X-Bad: a\rb\r\n"), ("200 OK", "X-Bad: a\x00b\r\n"),
        ("200 OK", "X-Bad: a\x01b\r\n"), ("200 OK", "X-Bad: a\x7f\r\n"),
        ("200 OK", "Bad Name: x\r\n"), ("200 OK", "X@Bad: a\r\n"),
        ("999 Denied", ""), ("600 Odd", ""), ("000 None", ""),
    ],
)  # fmt: skip
def test_gateway_teachers_headers_break_nothing(project: Project, status: str, extra: str) -> None:
    """What our server cannot say to a caller is an error of the teacher's."""
    body = json.dumps(completion()).encode()
    script = json_answer(body, status, extra + "Connection: close\r\n")
    with talking(script) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("x"))
        assert error_code(answer) == "502 teacher_garbled"
        assert one.kept.wait().status == "error"
        assert httpx.get(f"{one.url}/health").status_code == 200


SILENT = [
    [b""],
    [b"HTTP/1.1 200 OK\r\nContent-"],
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
]


@pytest.mark.parametrize("script", SILENT, ids=["no head", "half a head", "no body"])
def test_gateway_teacher_that_resets_is_502(project: Project, script: list[bytes]) -> None:
    closing = [piece.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) for piece in script]
    with talking(closing if script[0] else []) as talk, gateway(project, talk.base_url) as one:
        assert error_code(one.post(asked("x"))) == "502 teacher_garbled"
        assert one.kept.wait().status == "error"


def test_gateway_teacher_that_answers_before_it_reads_is_passed_on(project: Project) -> None:
    """It says 413 at the head, and closes while the body is on its way."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, gateway(project, f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as one:
        raw = json_answer(b'{"error": {}}', "413 Too Large", "Connection: close\r\n")[0]
        with httpx.Client(timeout=WAIT_S) as caller:

            def answer_early() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(raw)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(2**16):
                        pass

            thread = threading.Thread(target=answer_early)
            thread.start()
            answer = caller.post(one.chat_url, json=asked("x" * 2**22))
            thread.join(WAIT_S)
        assert answer.status_code in (413, 502)


def test_gateway_full_disk_keeps_answering_and_records_later(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full = [True]
    append = SegmentWriter.append

    def may_fail(self: SegmentWriter, items: Any) -> Any:
        if is_full[0]:
            raise StoreError("bodies cannot grow") from OSError(errno.ENOSPC, "No space left")
        return append(self, items)

    monkeypatch.setattr(SegmentWriter, "append", may_fail)
    recorder = Recorder(project, retry_s=0.01)
    with talking(ANSWER) as talk:
        settings = GatewaySettings(
            teachers={"main": Upstream("main", talk.base_url)}, default_teacher="main"
        )
        app = Gateway(project, settings, start_engine=Engines(), recorder=recorder)
        with running(app) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=asked("x"))
            assert answer.status_code == 200
            while not recorder.counts().failures:
                continue
            is_full[0] = False
            assert recorder.flush(timeout_s=WAIT_S)
    with TrafficStore.open(project) as store:
        assert [record.id for record in store.records()] == [answer.headers["x-own-request-id"]]


def test_gateway_clock_that_jumps_breaks_nothing(
    door: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(door.kept.records)
    real = time.time
    for jump_s in (0.0, -1e9, 1e9, -5e9):
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)  # noqa: B023
        assert door.post(asked("x")).status_code == 200
    door.kept.wait(before + 4)
    ids = [record.id for record in door.kept.records[before:]]
    assert len(set(ids)) == 4


OUT_OF_FILES = """
import asyncio, resource, sys
from ownweights.teacher.asgi import run_lifespan, send_json
from ownweights.teacher.serving import bind, serve

async def nothing(): pass
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, nothing, nothing)
    else:
        await send_json(send, 200, {})

listener = bind("127.0.0.1", 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
serve(app, listener, lambda url: print(url, flush=True))
"""


def test_gateway_out_of_file_descriptors_goes_on_afterwards() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OUT_OF_FILES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        parts = urlsplit(url)
        address = (str(parts.hostname), parts.port or 0)
        try:
            with contextlib.ExitStack() as idle:
                for _ in range(80):
                    idle.enter_context(socket.create_connection(address, WAIT_S))
            assert httpx.get(url, timeout=WAIT_S).status_code == 200
            assert process.poll() is None
        finally:
            process.terminate()


def test_gateway_stream_without_end_stops_with_its_caller(project: Project) -> None:
    endless = sse_answer(*[chunk("x")] * 20_000, ends=False)
    with talking(endless) as talk, gateway(project, talk.base_url) as one:
        with httpx.stream("POST", one.chat_url, json=asked("x", stream=True)) as answer:
            next(answer.iter_raw())
        assert one.kept.wait().status == "partial"
        assert httpx.get(f"{one.url}/health").status_code == 200


def test_gateway_idle_connections_cost_others_nothing(door: Running) -> None:
    parts = urlsplit(door.url)
    address = (str(parts.hostname), parts.port or 0)
    with contextlib.ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(socket.create_connection(address, WAIT_S))
        assert door.post(asked("x")).status_code == 200
