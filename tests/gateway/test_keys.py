"""Keys of the gateway's own: who is let through, how far, and what becomes of their spend."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.keys import Key, KeyStore, Limits, Spent, new_key
from ownweights.gateway.keys.tally import nano_of
from ownweights.teacher.kinds import Kind
from tests.gateway.harness import (
    WAIT_S,
    WHOLE,
    Engines,
    Running,
    chunk,
    error_code,
    gateway,
    reason_of,
    sure,
)
from tests.route.samples import body_of, follow
from tests.teacher.servers import (
    Talk,
    asked,
    completion,
    free_port,
    json_answer,
    sse_answer,
    talking,
)

UNKNOWN = "own-" + "A" * 43
ANSWER = completion(
    usage={
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 40},
    }
)
GOOD = json_answer(json.dumps(ANSWER).encode())
COST_USD = (60 * 10.0 + 40 * 5.0 + 10 * 100.0) / 1e6


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(autouse=True)
def _operators_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENT_KEY", "sk-operator")


def rented(talk: Talk, **fields: Any) -> dict[str, Any]:
    """Settings with one teacher on the operator's account, at known prices."""
    prices = {"usd_per_mtok_in": 10.0, "usd_per_mtok_out": 100.0, "usd_per_mtok_cached": 5.0}
    if "kind" in fields:
        fields["kind"] = Kind(fields["kind"])
    known: dict[str, Any] = {"key_env": "RENT_KEY", **prices, **fields}
    upstream = Upstream("main", talk.base_url, **known)
    return {"teachers": {"main": upstream}, "default_teacher": "main"}


def holder(project: Project, **limits: Any) -> tuple[str, Key]:
    """A new key's secret and the key."""
    secret, key = new_key("alice", Limits(**limits))
    with KeyStore.open(project) as store:
        store.add(key)
    return secret, key


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def spent(project: Project) -> Spent:
    with KeyStore.open(project) as store:
        return sum((row[2] for row in store.read_spend()), Spent())


def until(is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def test_gateway_key_holder_asks_on_the_operators_account(project: Project) -> None:
    secret, key = holder(project)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        answer = one.post(asked("hello"), **bearer(secret))
        assert (answer.status_code, answer.json()) == (200, ANSWER)
        assert talk.head()["authorization"] == "Bearer sk-operator"
        record = one.kept.wait()
        assert (record.key_id, record.upstream) == (key.id, "main")
        assert record.cost_usd == pytest.approx(COST_USD)
    assert spent(project) == Spent(1, 0, 110, nano_of(COST_USD))


@pytest.mark.parametrize("name", ["authorization", "x_api_key", "api_key"])
@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "completions"])
def test_gateway_virtual_key_never_leaves(project: Project, name: str, path: str) -> None:
    secret, _ = holder(project)
    shown = {name.replace("_", "-"): secret, "x-other": f"key {secret}", "x-kept": "own-ship"}
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        answer = httpx.post(f"{one.base_url}/{path}", json=asked("a"), headers=shown)
        assert answer.status_code == 200
        assert talk.head()["x-kept"] == "own-ship"
        assert secret not in str(talk.head()) and secret.encode() not in talk.body()


def test_gateway_virtual_key_asks_anthropic_with_x_api_key(project: Project) -> None:
    secret, _ = holder(project)
    message = {
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100},
    }
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    script = json_answer(json.dumps(message).encode())
    with (
        talking(script) as talk,
        gateway(project, None, **rented(talk, kind="anthropic")) as one,
    ):
        answer = httpx.post(f"{one.base_url}/messages", json=body, headers={"x-api-key": secret})
        assert answer.json() == message
        assert talk.head()["x-api-key"] == "sk-operator"
        cost_usd = (10 * 10 + 100 * 5 + 5 * 100) / 1e6
        assert one.kept.wait().cost_usd == pytest.approx(cost_usd)


def test_gateway_virtual_key_needs_a_teacher_on_the_operators_account(project: Project) -> None:
    secret, _ = holder(project)
    with talking(GOOD) as talk, gateway(project, talk.base_url) as one:
        answer = one.post(asked("hello"), **bearer(secret))
        assert error_code(answer) == "401 invalid_api_key"
        assert "key_env" in answer.json()["error"]["message"]
        models = httpx.get(f"{one.base_url}/models", headers=bearer(secret))
        assert error_code(models) == "401 invalid_api_key"
        assert one.post(asked("hello"), authorization="Bearer sk-mine").status_code == 200
        assert talk.head()["authorization"] == "Bearer sk-mine"


@pytest.mark.parametrize("shown", [UNKNOWN, "own-", "own-nonsense", UNKNOWN[:-1] + "é"])
def test_gateway_refuses_an_unknown_key(project: Project, shown: str) -> None:
    holder(project)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        headers = {b"authorization": b"Bearer " + shown.encode("latin-1")}
        for path in ("/chat/completions", "/models"):
            method = "GET" if path == "/models" else "POST"
            answer = httpx.request(method, one.base_url + path, headers=headers, json=asked("a"))
            assert error_code(answer) == "401 invalid_api_key"
            assert shown not in answer.text
        assert talk.requests == []


def test_gateway_without_a_database_refuses_every_virtual_key(project: Project) -> None:
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert error_code(one.post(asked("a"), **bearer(UNKNOWN))) == "401 invalid_api_key"
        secret, _ = holder(project)  # made while the gateway runs: known at once
        assert one.post(asked("a"), **bearer(secret)).status_code == 200


def test_gateway_says_when_keys_cannot_be_read(project: Project) -> None:
    project.store_dir.mkdir()
    project.database_path.write_bytes(b"this is no database at all" * 100)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert error_code(one.post(asked("a"), **bearer(UNKNOWN))) == "503 keys_unavailable"
        assert one.post(asked("a")).status_code == 200  # whoever shows none is not affected


def test_gateway_refuses_a_key_soon_after_it_is_revoked(project: Project) -> None:
    secret, key = holder(project)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        with KeyStore.open(project) as store:
            store.revoke(key.id)
        until(lambda: one.post(asked("a"), **bearer(secret)).status_code == 401)
        assert "revoked" in one.post(asked("a"), **bearer(secret)).json()["error"]["message"]


def test_gateway_refuses_an_expired_key(project: Project) -> None:
    secret, _ = holder(project, expires_at=time.time() - 1)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        answer = one.post(asked("a"), **bearer(secret))
        assert error_code(answer) == "401 invalid_api_key"
        assert "expired" in answer.json()["error"]["message"]


def test_gateway_key_asks_for_its_workloads_alone(project: Project) -> None:
    secret, _ = holder(project, workloads=("tickets",))
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        allowed = one.post(asked("a"), **bearer(secret), x_own_workload="tickets")
        assert allowed.status_code == 200
        for named in ({"x_own_workload": "mail"}, {}):
            answer = one.post(asked("a"), **bearer(secret), **named)
            assert error_code(answer) == "403 workload_not_allowed"
        assert len(talk.requests) == 1
        assert one.post(asked("a")).status_code == 200
        assert one.kept.records[0].workload == "tickets"
        assert one.kept.wait(2).key_id is None  # refusals are not recorded


def test_gateway_refuses_a_key_over_its_budget(project: Project) -> None:
    secret, _ = holder(project, budget_usd=1.5 * COST_USD, budget_per="total")
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        answer = one.post(asked("a"), **bearer(secret))
        assert error_code(answer) == "429 insufficient_quota"
        assert answer.headers["x-should-retry"] == "false"
        assert len(talk.requests) == 2
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert error_code(one.post(asked("a"), **bearer(secret))) == "429 insufficient_quota"


def test_gateway_budgets_add_up_over_gateways(project: Project) -> None:
    secret, _ = holder(project, budget_usd=1.5 * COST_USD)
    with (
        talking(GOOD) as talk,
        gateway(project, None, **rented(talk)) as one,
        gateway(project, None, **rented(talk)) as other,
    ):
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        assert other.post(asked("a"), **bearer(secret)).status_code == 200
        for each in (one, other):
            until(lambda each=each: each.post(asked("a"), **bearer(secret)).status_code == 429)
    assert spent(project).nano_usd >= round(2 * COST_USD * 1e9)


def test_gateway_openai_client_sees_rate_limit_errors(project: Project) -> None:
    secret, _ = holder(project, requests_per_min=1)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        client = openai.OpenAI(base_url=one.base_url, api_key=secret, max_retries=0)
        message: Any = {"role": "user", "content": "hello"}
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[message])
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=[message])
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        other = openai.OpenAI(base_url=one.base_url, api_key=UNKNOWN, max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            other.models.list()


def test_gateway_openai_client_does_not_repeat_over_the_budget(project: Project) -> None:
    secret, _ = holder(project, budget_usd=0.0)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        client = openai.OpenAI(base_url=one.base_url, api_key=secret, max_retries=5)
        with pytest.raises(openai.RateLimitError, match="budget of the month is spent: 0 USD"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        assert talk.requests == []


def test_gateway_counts_tokens_against_their_rate(project: Project) -> None:
    secret, _ = holder(project, tokens_per_min=120)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        first = one.post(asked("a"), **bearer(secret))
        assert first.headers["x-ratelimit-limit-tokens"] == "120"
        assert one.post(asked("word " * 400), **bearer(secret)).status_code == 429
        answer = one.post(asked("word " * 40), **bearer(secret))
        assert error_code(answer) == "429 rate_limit_exceeded"
        assert answer.json()["error"]["type"] == "tokens"


def test_gateway_hides_the_operators_account_from_key_holders(project: Project) -> None:
    secret, _ = holder(project)
    extra = "x-ratelimit-remaining-requests: 7\r\nopenai-organization: acme\r\nx-seen: 1\r\n"
    script = json_answer(json.dumps(ANSWER).encode(), extra=extra)
    with talking(script) as talk, gateway(project, None, **rented(talk)) as one:
        headers = one.post(asked("a"), **bearer(secret)).headers
        assert headers["x-seen"] == "1"
        assert "openai-organization" not in headers
        assert "x-ratelimit-remaining-requests" not in headers
        assert one.post(asked("a")).headers["openai-organization"] == "acme"


def test_gateway_does_not_record_for_a_key_that_says_so(project: Project) -> None:
    secret, _ = holder(project, is_recorded=False)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        assert one.post(asked("b")).status_code == 200
        assert one.kept.wait().request["messages"][0]["content"] == "b"
        assert len(one.kept.records) == 1
    assert spent(project).requests == 1 and spent(project).nano_usd > 0


@pytest.mark.parametrize("may", [True, False])
def test_gateway_students_answer_a_key_that_may(project: Project, may: bool) -> None:
    secret, key = holder(project, may_ask_students=may)
    follow(project)
    with talking(GOOD) as talk:
        settings = {**rented(talk), "host": "0.0.0.0"}  # a stranger's address: the key decides
        with gateway(project, None, engines=Engines(sure("mine")), **settings) as one:
            while not one.engines.started:  # beyond loopback, /ready tells no details
                httpx.get(f"{one.url}/ready")
            answer = one.post(body_of("sure"), **bearer(secret), x_own_workload="tickets")
            wanted = ("student", "served") if may else ("teacher", "ineligible:key")
            assert reason_of(answer) == wanted
            record = one.kept.wait()
            assert record.key_id == key.id
            assert record.cost_usd == (0.0 if may else pytest.approx(COST_USD))
    assert (spent(project).nano_usd == 0) is may


def test_gateway_estimates_what_a_stream_does_not_say(project: Project) -> None:
    secret, _ = holder(project)
    words = (chunk("word " * 100), chunk("", "stop"), b"data: [DONE]\n\n")
    with talking(sse_answer(*words)) as talk, gateway(project, None, **rented(talk)) as one:
        one.post(asked("word " * 400, stream=True), **bearer(secret))
        record = one.kept.wait()
        assert (record.usage.total_tokens, record.cost_usd, record.status) == (0, None, "ok")
    found = spent(project)
    assert found.estimated_nano_usd == found.nano_usd
    assert found.usd == pytest.approx((500 * 10 + 125 * 100) / 1e6, rel=0.2)
    assert found.tokens == pytest.approx(625, rel=0.2)


def test_gateway_counts_what_a_stream_says(project: Project) -> None:
    secret, _ = holder(project)
    told = {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    usage = b"data: " + json.dumps(told).encode() + b"\n\n"
    script = sse_answer(*WHOLE[:-1], usage, WHOLE[-1])
    with talking(script) as talk, gateway(project, None, **rented(talk)) as one:
        one.post(asked("a", stream=True, stream_options={"include_usage": True}), **bearer(secret))
        assert one.kept.wait().cost_usd == pytest.approx(2000 / 1e6)
    assert spent(project) == Spent(1, 0, 110, 2_000_000)


def test_gateway_estimates_what_a_stream_that_broke_off_cost(project: Project) -> None:
    secret, _ = holder(project)
    script = sse_answer(chunk("word " * 100), ends=False)
    with talking(script) as talk, gateway(project, None, **rented(talk)) as one:
        one.post(asked("a", stream=True), **bearer(secret))
        assert one.kept.wait().status == "partial"
    assert spent(project).estimated_nano_usd == spent(project).nano_usd > 10**6


@pytest.mark.parametrize("status", ["400 No", "429 Busy", "500 Broken"])
def test_gateway_counts_nothing_for_a_refusal(project: Project, status: str) -> None:
    secret, _ = holder(project)
    script = json_answer(b'{"error": {}}', status)
    with talking(script) as talk, gateway(project, None, **rented(talk)) as one:
        assert one.post(asked("a"), **bearer(secret)).status_code == int(status[:3])
        assert one.kept.wait().cost_usd is None
    assert spent(project) == Spent(requests=1)


def test_gateway_counts_nothing_for_a_teacher_that_is_down(project: Project) -> None:
    secret, _ = holder(project)
    teacher = Upstream("main", f"http://127.0.0.1:{free_port()}/v1", key_env="RENT_KEY")
    settings = {"teachers": {"main": teacher}, "default_teacher": "main"}
    with gateway(project, None, **settings) as one:
        assert error_code(one.post(asked("a"), **bearer(secret))) == "502 teacher_unreachable"
    assert spent(project) == Spent(requests=1)


def test_gateway_cost_is_unknown_without_prices(project: Project) -> None:
    secret, _ = holder(project)
    unknown = {"usd_per_mtok_in": None, "usd_per_mtok_out": None}
    with talking(GOOD) as talk, gateway(project, None, **rented(talk, **unknown)) as one:
        assert one.post(asked("a"), **bearer(secret)).status_code == 200
        assert one.kept.wait().cost_usd is None
    assert spent(project) == Spent(1, unpriced=1, tokens=110)


def test_gateway_refuses_a_budget_that_could_not_be_kept(project: Project) -> None:
    secret, _ = holder(project, budget_usd=100.0)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk, usd_per_mtok_in=None)) as one:
        answer = one.post(asked("a"), **bearer(secret))
        assert error_code(answer) == "403 price_unknown"
        assert "usd_per_mtok_in" in answer.json()["error"]["message"]
        assert talk.requests == [] and one.kept.records == []


KEYS_IN_URLS = ("api_key=x", "key=own-abc", "a=1&API-KEY=x", "access_token=t", f"q={UNKNOWN}",
                "%6bey=x")  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/health", "/nowhere"])
def test_gateway_refuses_a_key_in_the_url(
    project: Project, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        talking(GOOD) as talk,
        gateway(project, talk.base_url) as one,
    ):
        for query in KEYS_IN_URLS:
            answer = httpx.post(f"{one.url}{path}?{query}", json=asked("a"))
            assert error_code(answer) == "400 key_in_url"
        assert error_code(httpx.post(f"{one.url}/{UNKNOWN}{path}")) == "400 key_in_url"
        assert one.kept.records == [] and talk.requests == []
    ours = [line.getMessage() for line in caplog.records if line.name.startswith("ownweights")]
    assert set(ours) == {"refused 400 key_in_url"}


@pytest.mark.parametrize("query", ["", "a=1&workload=key", "keys=1", "%", "&&"])
def test_gateway_takes_urls_without_keys(project: Project, query: str) -> None:
    with talking(GOOD) as talk, gateway(project, talk.base_url) as one:
        assert httpx.post(f"{one.chat_url}?{query}", json=asked("a")).status_code == 200


def test_gateway_logs_and_records_no_virtual_key(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    secret, _ = holder(project, requests_per_min=1)
    with (
        caplog.at_level(logging.DEBUG, "ownweights"),
        talking(GOOD) as talk,
        gateway(project, None, **rented(talk)) as one,
    ):
        one.post(asked("a"), **bearer(secret))
        refused = one.post(asked("a"), **bearer(secret))
        assert refused.status_code == 429 and secret not in refused.text
        assert secret not in repr(one.kept.records) and secret not in str(one.status())
    assert secret not in caplog.text


def test_gateway_key_opens_with_any_header_that_carries_keys(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's own key of the gateway works beside virtual keys, and may look like one."""
    monkeypatch.setenv("DOOR_KEY", UNKNOWN)
    secret, _ = holder(project)
    with (
        talking(GOOD) as talk,
        gateway(project, None, key_env="DOOR_KEY", **rented(talk)) as one,
    ):
        assert error_code(one.post(asked("a"))) == "401 invalid_api_key"
        shown = ({"x-api-key": UNKNOWN}, {"api-key": UNKNOWN}, bearer(UNKNOWN), bearer(secret))
        for headers in shown:
            answer = httpx.post(one.chat_url, json=asked("a"), headers=headers)
            assert answer.status_code == 200
        assert UNKNOWN not in str([talk.head(index) for index in range(4)])


def test_failover_spends_the_operators_key_only_for_who_may(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in on another account is asked for those alone who may spend it."""
    monkeypatch.setenv("DOOR_KEY", "open")
    with talking(json_answer(b"no", "503 No")) as bad, talking(GOOD) as good:
        free = Upstream("free", bad.base_url, fallback=("rented",))
        paid = Upstream("rented", good.base_url, key_env="RENT_KEY", fallback=("free",))
        teachers = {"free": free, "rented": paid}
        settings: dict[str, Any] = {"teachers": teachers, "key_env": "DOOR_KEY"}
        with gateway(project, None, default_teacher="free", **settings) as one:
            assert one.post(asked("a"), authorization="Bearer sk-mine").status_code == 503
            assert one.post(asked("a"), authorization="Bearer open").status_code == 200
            assert len(good.requests) == 1


def test_gateway_its_own_key_never_leaves(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher without a key of its operator gets the provider's key beside it, or none."""
    monkeypatch.setenv("DOOR_KEY", "open")
    with talking(GOOD) as talk, gateway(project, talk.base_url, key_env="DOOR_KEY") as one:
        assert one.post(asked("a"), authorization="Bearer open").status_code == 200
        mine = {"authorization": "Bearer sk-mine", "x_api_key": "open"}
        assert one.post(asked("a"), **mine).status_code == 200
        assert httpx.get(f"{one.base_url}/models", headers=bearer("open")).status_code == 200
        assert b"open" not in b"".join(talk.requests)
        assert "authorization" not in talk.head(0)
        assert talk.head(1)["authorization"] == "Bearer sk-mine"


def test_failover_never_takes_a_virtual_key_to_a_teacher_without_one(project: Project) -> None:
    secret, _ = holder(project)
    with talking(json_answer(b"no", "503 No")) as bad, talking(GOOD) as good:
        free = Upstream("free", good.base_url)
        paid = Upstream("main", bad.base_url, key_env="RENT_KEY", fallback=("free",))
        teachers = {"free": free, "main": paid}
        with gateway(project, None, teachers=teachers, default_teacher="main") as one:
            assert one.post(asked("a"), **bearer(secret)).status_code == 503
            assert good.requests == []


def test_gateway_ready_tells_no_keys(project: Project) -> None:
    _, key = holder(project)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk)) as one:
        told: Running = one
        assert key.hash not in str(told.status()) and "alice" not in str(told.status())
