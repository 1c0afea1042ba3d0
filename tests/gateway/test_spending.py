"""What an exchange spent: guessed by its characters, counted where the answer says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import CompleterError
from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.callers import Caller
from ownweights.gateway.exchange import Exchange
from ownweights.gateway.keys import KeyStore, Limits, Spent, new_key
from ownweights.gateway.keys.account import Accounts
from ownweights.gateway.keys.tally import Tally, nano_of
from ownweights.gateway.spending import Spending, may_go, spent_of, text_chars
from ownweights.teacher.asgi import HttpError
from tests.gateway.harness import WAIT_S, Engines, chunk, error_code, gateway, reason_of
from tests.gateway.test_keys import COST_USD, GOOD, bearer, holder, rented
from tests.gateway.test_keys import spent as spent_in
from tests.route.samples import body_of, follow
from tests.teacher.servers import HANG, asked, sse_answer, talking

PRICED = Upstream("main", "http://x/v1", key_env="K", usd_per_mtok_in=10, usd_per_mtok_out=100)
COUNTED = {"usage": {"prompt_tokens": 1000, "completion_tokens": 10}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


def chars_of(value: Any) -> int:
    """The same by recursion, without files."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value)
    if isinstance(value, dict):
        return sum(len(name) + chars_of(held) for name, held in value.items())
    return sum(map(chars_of, value)) if isinstance(value, list) else 0


@given(JSON)
def test_text_chars_matches_a_recursion(value: Any) -> None:
    assert text_chars(value) == chars_of(value)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}},
        {"type": "image", "source": {"media_type": "image/png", "data": "A" * 10_000}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "A" * 10_000}},
    ],
)
def test_text_chars_of_files_are_none(part: dict[str, Any]) -> None:
    assert text_chars([part]) < 100


def test_text_chars_takes_any_depth() -> None:
    deep: Any = "abc"
    for _ in range(100_000):
        deep = [deep]
    assert text_chars(deep) == 3


def exchange(body: dict[str, Any] | None = None, **fields: Any) -> Exchange:
    one = Exchange(b"", body or {"model": "m"}, "h", "w", None, True, False)
    for name, value in {"asked": PRICED, "http_status": 200, **fields}.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    ("fields", "spent"),
    [
        ({"response": COUNTED}, Spent(1, 0, 1010, 11_000_000)),
        ({"response": COUNTED, "served_by": "student"}, Spent(1, 0, 1010)),
        ({"asked": None}, Spent(1)),
        ({"error": "teacher_refused", "http_status": 400}, Spent(1)),
        ({"error": "teacher_refused", "http_status": 503}, Spent(1)),
        ({"error": "client_gone", "http_status": 503}, Spent(1)),
        ({"error": "unsupported_field", "http_status": 400}, Spent(1)),
        ({"error": "teacher_unreachable", "http_status": 502}, Spent(1)),
        ({"error": "teacher_timeout", "http_status": 504}, Spent(1, 0, 2, 20_000, 20_000)),
        ({"error": "teacher_garbled", "http_status": 502}, Spent(1, 0, 2, 20_000, 20_000)),
        ({"error": "client_gone", "http_status": 0}, Spent(1, 0, 2, 20_000, 20_000)),
        ({"response": COUNTED, "error": "student_timeout"}, Spent(1, 0, 1010, 11_000_000)),
        ({"response": COUNTED, "error": "client_gone"}, Spent(1, 0, 1010, 11_000_000)),
        ({"response": COUNTED, "asked": Upstream("x", "http://x/v1")}, Spent(1, 1, 1010)),
        ({"response": {}, "asked": Upstream("x", "http://x/v1")}, Spent(1, 1, 2)),
    ],
)
def test_spent_of_every_end(fields: dict[str, Any], spent: Spent) -> None:
    assert spent_of(exchange(**fields)) == spent


def test_spent_of_an_answer_that_broke_off_is_the_larger_of_count_and_guess() -> None:
    """Anthropic counts the prompt at the beginning of a stream, and the answer at its end."""
    began = {"content": [{"text": "word " * 400}], "usage": {"input_tokens": 5, "output_tokens": 1}}
    found = spent_of(exchange(response=began, error="client_gone"))
    assert found.nano_usd > 40_000_000
    assert found.nano_usd - found.estimated_nano_usd == 150_000


@pytest.mark.parametrize(
    ("limits", "upstream", "may"),
    [
        (Limits(), PRICED, True),
        (Limits(), Upstream("x", "http://x/v1"), False),
        (Limits(), Upstream("x", "http://x/v1", key_env="K"), True),
        (Limits(budget_usd=1.0), Upstream("x", "http://x/v1", key_env="K"), False),
        (Limits(budget_usd=1.0), PRICED, True),
        (None, Upstream("x", "http://x/v1"), True),
        (None, PRICED, False),
    ],
)
def test_may_go_asks_for_account_and_price(
    limits: Limits | None, upstream: Upstream, may: bool
) -> None:
    key = None if limits is None else new_key("a", limits)[1]
    assert may_go(exchange(caller=Caller(key=key)), upstream) is may


@pytest.mark.parametrize(
    "asked_for", [{"max_tokens": 10_000}, {"n": 10, "max_tokens": 1000}, {"best_of": 10}]
)
def test_spending_holds_back_what_all_answers_may_cost(asked_for: dict[str, int]) -> None:
    """Half a dollar is spent while one answer of a dollar is under way."""
    spending = Spending(Accounts(Tally()))
    caller = Caller(key=new_key("a", Limits(budget_usd=0.5))[1])
    body = {"model": "m", "max_tokens": 1000, **asked_for}
    first, second = (exchange(body, caller=caller) for _ in range(2))
    spending.admit(first)
    spending.check(first, PRICED)
    with pytest.raises(HttpError, match="budget"):
        spending.admit(second)


def test_spent_of_a_stream_whose_caller_leaves_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K", "sk-operator")
    project = Project(tmp_path)
    secret, key = new_key("alice", Limits())
    with KeyStore.open(project) as store:
        store.add(key)
    script = [*sse_answer(chunk("word " * 100), ends=False), HANG]
    with talking(script) as talk:
        prices = {"usd_per_mtok_in": 10.0, "usd_per_mtok_out": 100.0}
        teacher = Upstream("main", talk.base_url, key_env="K", **prices)  # type: ignore[arg-type]
        settings: dict[str, Any] = {"teachers": {"main": teacher}, "default_teacher": "main"}
        with gateway(project, None, **settings) as one:
            headers = {"authorization": f"Bearer {secret}"}
            body = asked("hello", stream=True)
            with httpx.stream("POST", one.chat_url, json=body, headers=headers) as answer:
                next(answer.iter_bytes())
            give_up_s = time.monotonic() + WAIT_S
            while not one.kept.records:
                assert time.monotonic() < give_up_s
                time.sleep(0.01)
            assert one.kept.records[0].status == "partial"
    with KeyStore.open(project) as store:
        ((_, _, spent),) = store.read_spend()
    assert spent.estimated_nano_usd == spent.nano_usd > 12_000_000


def test_gateway_counts_nothing_for_what_the_teacher_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENT_KEY", "sk-operator")
    project = Project(tmp_path)
    secret, _ = holder(project)
    with talking(GOOD) as talk, gateway(project, None, **rented(talk, kind="anthropic")) as one:
        answer = one.post(asked("a", max_tokens=5, seed=1), **bearer(secret))
        assert error_code(answer) == "400 unsupported_field"
        assert talk.requests == []
    assert spent_in(project) == Spent(requests=1)


def test_gateway_counts_what_the_teacher_says_after_a_student_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENT_KEY", "sk-operator")
    project = Project(tmp_path)
    secret, _ = holder(project)
    follow(project)

    def broken(request: object) -> str:
        raise CompleterError("it fell over")

    with (
        talking(GOOD) as talk,
        gateway(project, None, engines=Engines(broken), **rented(talk)) as one,
    ):
        one.until("ready")
        answer = one.post(body_of("word " * 400), **bearer(secret), x_own_workload="tickets")
        assert reason_of(answer) == ("teacher", "student_error")
        assert one.kept.wait().cost_usd == pytest.approx(COST_USD)
    assert spent_in(project) == Spent(1, 0, 110, nano_of(COST_USD))
