"""The gateway in numbers: what is counted, and that labels stay few."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.gateway.admin.app import Admin
from ownweights.gateway.exchange import Exchange, open_exchange
from ownweights.gateway.watch.metrics import Metrics, WorkloadLabels, reason_class
from ownweights.gateway.watch.watch import Watch
from tests.gateway.harness import WAIT_S, WHOLE, Engines, KeptRecords
from tests.teacher.servers import (
    PAUSE,
    PAUSE_S,
    asked,
    completion,
    json_answer,
    running,
    sse_answer,
    talking,
)

SECRET = "sk-secret and a prompt"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
GOOD = json_answer(json.dumps(completion("fine", usage=USAGE)).encode())
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """(name, labels) → value, read by Prometheus's own parser."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over all samples that have these labels."""
    return sum(
        value
        for (known, given), value in found.items()
        if known == name and labels.items() <= dict(given).items()
    )


MAIN = Upstream("main", "http://x/v1", usd_per_mtok_in=1.0, usd_per_mtok_out=2.0)


def exchange_of(workload: str | None = None, **fields: Any) -> Exchange:
    named = [] if workload is None else [(b"x-own-workload", workload.encode())]
    exchange = open_exchange({"headers": named}, b"", asked(SECRET))
    exchange.http_status, exchange.asked = 200, MAIN
    for name, value in fields.items():
        setattr(exchange, name, value)
    return exchange


def test_metrics_labels_stay_few() -> None:
    metrics = Metrics()
    metrics.workloads.allow(["certified"])
    for number in range(300):
        reason = f"ineligible:field_{number}"
        metrics.answered(exchange_of(f"made-up-{number}", reason=reason), cost_usd=None)
        metrics.answered(exchange_of(f"auto-{number}"), cost_usd=None)
    metrics.answered(exchange_of("certified"), cost_usd=None)
    found = samples(metrics.text().decode())
    labels = {
        dict(given)["workload"] for name, given in found if name == "own_gateway_requests_total"
    }
    assert {"certified", "auto", "other", "made-up-0"} <= labels
    assert len(labels) == 102
    assert of(found, "own_gateway_requests_total", workload="other") == 201
    assert of(found, "own_gateway_requests_total", reason="ineligible") == 300


def test_workload_labels_name_what_is_allowed_however_late() -> None:
    labels = WorkloadLabels(most=1)
    assert [labels.of(name) for name in ("a", "b", None)] == ["a", "other", "none"]
    labels.allow(["b"])
    assert labels.of("b") == "b"


@pytest.mark.parametrize(
    ("reason", "found"),
    [("served", "served"), ("ineligible:x\r\ny", "ineligible"), ("brand new", "other")],
)
def test_reason_class_is_one_of_few(reason: str, found: str) -> None:
    assert reason_class(reason) == found


def test_metrics_split_the_time_of_a_request() -> None:
    metrics = Metrics()
    exchange = exchange_of("a")
    exchange.started_s -= 10.0
    exchange.waited_s, exchange.held_s = 7.0, 2.5
    metrics.answered(exchange, cost_usd=None)
    found = samples(metrics.text().decode())
    assert of(found, "own_gateway_upstream_seconds_sum") == 7.0
    assert of(found, "own_gateway_overhead_seconds_sum") == pytest.approx(0.5, abs=0.4)
    assert of(found, "own_gateway_first_token_seconds_count") == 0


@pytest.mark.parametrize(
    ("status", "label"), [(200, "2xx"), (429, "4xx"), (0, "gone"), (599, "5xx"), (999, "5xx")]
)
def test_metrics_class_statuses(status: int, label: str) -> None:
    metrics = Metrics()
    metrics.answered(exchange_of("a", http_status=status), cost_usd=None)
    found = samples(metrics.text().decode())
    assert of(found, "own_gateway_requests_total", status=label) == 1


def test_metrics_tell_tokens_and_cost_by_teacher() -> None:
    watch = Watch(GatewaySettings(teachers={"main": MAIN}))
    for _ in range(3):
        watch.ended(exchange_of("a", response=completion("x", usage=USAGE)), {})
    student = exchange_of("a", response=completion("x", usage=USAGE), served_by="student")
    watch.ended(student, {})
    found = samples(watch.metrics.text().decode())
    assert of(found, "own_gateway_tokens_total", teacher="main", kind="read") == 21
    assert of(found, "own_gateway_tokens_total", teacher="student", kind="written") == 3
    assert of(found, "own_gateway_cost_usd_total") == pytest.approx(3 * (7 + 2 * 3) / 1e6)


def served(project: Project, talk_url: str, **settings: Any) -> tuple[Gateway, Admin]:
    teachers = {"main": Upstream("main", talk_url, fallback=("spare",)),
                "spare": Upstream("spare", talk_url)}  # fmt: skip
    known = GatewaySettings(teachers=teachers, default_teacher="main", **settings)
    app = Gateway(project, known, start_engine=Engines(), recorder=KeptRecords())
    return app, Admin(app, "127.0.0.1")


def test_metrics_count_what_is_refused(tmp_path: Path) -> None:
    app, _ = served(Project(tmp_path), "http://127.0.0.1:9")
    with running(app) as url:
        httpx.post(f"{url}/v1/chat/completions", content=b"{", timeout=WAIT_S)
        httpx.get(f"{url}/nowhere", timeout=WAIT_S)
    found = samples(app.watch.metrics.text().decode())
    assert of(found, "own_gateway_refused_total", status="4xx") == 2
    assert of(found, "own_gateway_requests_total") == 0


def test_metrics_hold_no_content(tmp_path: Path) -> None:
    with talking(GOOD) as talk:
        app, admin = served(Project(tmp_path), talk.base_url)
        with running(app) as url, running_admin(admin) as admin_url:
            httpx.post(f"{url}/v1/chat/completions", json=asked(SECRET, model=SECRET),
                       headers={"authorization": SECRET}, timeout=WAIT_S)  # fmt: skip
            text = httpx.get(f"{admin_url}/metrics").text
    assert "own_gateway_requests_total{" in text
    assert not re.search("secret|prompt", re.sub("(?m)^#.*$", "", text))


def test_metrics_tell_how_the_gateway_stands(tmp_path: Path) -> None:
    busy = json_answer(b'{"error": {"message": "busy"}}', "429 Too Many Requests")
    with talking(lambda index: busy if index == 0 else GOOD) as talk:
        app, admin = served(Project(tmp_path), talk.base_url)
        with running(app) as url, running_admin(admin) as admin_url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=asked("a"), timeout=WAIT_S)
            found = samples(httpx.get(f"{admin_url}/metrics").text)
            again = samples(httpx.get(f"{admin_url}/metrics").text)
    assert answer.status_code == 200
    assert of(found, "own_gateway_failovers_total", teacher="spare") == 1
    assert of(found, "own_gateway_retries_total") == 0
    assert of(found, "own_gateway_teacher_rest_seconds", teacher="main") > 0
    assert of(found, "own_gateway_engine_state", state="off") == 1
    assert of(found, "own_gateway_records_stored_total") == 1
    assert of(found, "own_gateway_requests_total") == of(again, "own_gateway_requests_total") == 1


def test_metrics_count_open_requests(tmp_path: Path) -> None:
    is_asked, go = threading.Event(), threading.Event()

    def script(index: int) -> list[bytes]:
        is_asked.set()
        assert go.wait(WAIT_S)
        return sse_answer(*WHOLE)

    with talking(script) as talk:
        app, admin = served(Project(tmp_path), talk.base_url)
        with running(app) as url, running_admin(admin) as admin_url:
            body = asked("a", stream=True)
            asking = threading.Thread(
                target=httpx.post, args=(f"{url}/v1/chat/completions",),
                kwargs={"json": body, "timeout": WAIT_S},
            )  # fmt: skip
            asking.start()
            assert is_asked.wait(WAIT_S)
            found = samples(httpx.get(f"{admin_url}/metrics").text)
            assert of(found, "own_gateway_in_flight") == 1
            go.set()
            asking.join(WAIT_S)
        metrics = samples(app.watch.metrics.text().decode())
    assert app.watch.num_open == 0
    assert of(metrics, "own_gateway_first_token_seconds_count", served_by="teacher") == 1


def test_metrics_of_a_stream_leave_its_waits_out_of_the_overhead(tmp_path: Path) -> None:
    def script(index: int) -> list[bytes]:
        return [one for piece in sse_answer(*WHOLE) for one in (*[PAUSE] * 5, piece)]

    with talking(script) as talk:
        app, _ = served(Project(tmp_path), talk.base_url)
        with running(app) as url:
            body = asked("a", stream=True)
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=WAIT_S)
    found = samples(app.watch.metrics.text().decode())
    waited_s = of(found, "own_gateway_upstream_seconds_sum")
    assert waited_s >= 4 * 5 * PAUSE_S
    assert of(found, "own_gateway_overhead_seconds_sum") < waited_s


def running_admin(admin: Admin) -> Any:
    """The admin app served by itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await admin(scope, receive, send)

    return running(app)
