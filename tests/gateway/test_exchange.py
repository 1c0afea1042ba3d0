"""One request's own bookkeeping: headers and the record."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.gateway.exchange import Exchange, open_exchange
from ownweights.teacher.asgi import HttpError
from ownweights.traffic import workload_hash
from tests.route.samples import body_of, route_of
from tests.teacher.servers import completion


def opened(body: dict[str, Any], **headers: str) -> Exchange:
    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return open_exchange({"headers": pairs}, json.dumps(body).encode(), body)


def headers_of(exchange: Exchange) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in exchange.headers()}


def test_open_exchange_reads_what_the_caller_says() -> None:
    body = body_of(stream=True, stream_options={"include_usage": True})
    one = opened(body, x_own_workload="tickets", x_own_session="s", x_own_no_store="1")
    assert (one.workload, one.session, one.is_stored, one.is_forced) == (
        "tickets",
        "s",
        False,
        False,
    )
    assert one.is_stream
    assert one.wants_usage
    assert one.prompt_hash == workload_hash(body)


def test_open_exchange_says_nothing_by_default() -> None:
    one = opened(body_of())
    assert (one.workload, one.is_stored, one.is_forced) == (None, True, False)
    assert one.record().named_session is None
    assert not one.is_stream
    assert not one.wants_usage


@pytest.mark.parametrize("metadata", [None, "text", [], {"workload": None, "session": 7}])
def test_open_exchange_odd_metadata_is_the_teachers_business(metadata: Any) -> None:
    one = opened(body_of(metadata=metadata))
    assert (one.workload, one.record().named_session) == (None, None)
    assert one.record().request["metadata"] == metadata


def test_open_exchange_knows_a_conversation_by_its_beginning() -> None:
    def session(*texts: str, **fields: Any) -> str | None:
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
        return opened({"messages": messages, **fields}).session

    first = session("hello")
    assert first is not None
    assert first.startswith("~")
    assert session("hello", "hi", "how are you?") == first
    assert session("bye") != first
    assert session("hello", user="b") != first
    assert session("hello", tools=[{"name": "f"}]) != first
    assert opened({"messages": []}).session is None


def test_open_exchange_refuses_a_name_that_looks_derived() -> None:
    with pytest.raises(HttpError, match="does not begin with '~'"):
        opened(body_of(), x_own_session="~abc")


@pytest.mark.parametrize("options", [None, "x", {"include_usage": False}, {}])
def test_exchange_usage_is_wanted_only_where_asked(options: Any) -> None:
    assert not opened(body_of(stream_options=options)).wants_usage


@given(st.text(st.sampled_from("aZ0._-/ \n\u00e9"), max_size=70))
def test_open_exchange_workload_name_is_a_file_name_or_refused(name: str) -> None:
    body = body_of(metadata={"workload": name})
    if re.fullmatch(r"[aZ0][aZ0._-]{0,63}", name):
        assert opened(body).workload == name
        return
    with pytest.raises(HttpError) as caught:
        opened(body)
    assert (caught.value.status, caught.value.param) == (400, "metadata.workload")


def test_exchange_ids_sort_by_time() -> None:
    ids = [opened(body_of()).id for _ in range(3)]
    assert len(set(ids)) == 3
    assert [one[:8] for one in ids] == sorted(one[:8] for one in ids)


def test_exchange_headers_name_the_proof_only_with_a_route() -> None:
    one = opened(body_of())
    assert set(headers_of(one)) == {
        "x-own-request-id", "x-own-served-by", "x-own-reason", "x-own-overhead-ms"
    }  # fmt: skip
    one.route = route_of()
    assert headers_of(one)["x-own-certificate"] == "fedcbafedcba"


def test_exchange_overhead_is_time_without_the_wait() -> None:
    one = opened(body_of())
    before = one.overhead_ms()
    one.waited_s = 1000.0
    assert before >= 0
    assert one.overhead_ms() < before


@pytest.mark.parametrize(
    ("response", "is_whole", "status"),
    [
        (completion("a"), True, "ok"),
        (completion("a"), False, "partial"),
        ({"choices": [{"message": {}, "finish_reason": "length"}]}, True, "partial"),
        (None, True, "error"),
        ({"choices": []}, True, "error"),
    ],
)
def test_exchange_settle_tells_whole_from_partial(
    response: dict[str, Any] | None, is_whole: bool, status: str
) -> None:
    one = opened(body_of())
    one.settle(response, is_whole=is_whole)
    assert one.record().status == status
    assert one.record().response == response


def test_exchange_fail_forgets_the_answer() -> None:
    one = opened(body_of())
    one.settle(completion("a"))
    one.fail(HttpError(502, "what", code="teacher_garbled"))
    record = one.record()
    assert (record.status, record.response) == ("error", None)
    assert record.metadata["own"]["error"] == "teacher_garbled"
    assert record.metadata["own"]["http_status"] == 502
    assert record.model == "gpt-x"


@pytest.mark.parametrize(("score", "kept"), [(None, None), (-math.inf, None), (0.0, 0.0)])
def test_exchange_record_is_strict_json(score: float | None, kept: float | None) -> None:
    one = opened(body_of())
    one.route, one.score = route_of(), score
    own = one.record().metadata["own"]
    assert own["score"] == kept
    assert json.loads(json.dumps(own, allow_nan=False)) == own


def test_exchange_callers_metadata_cannot_pose_as_ours() -> None:
    one = opened(body_of(metadata={"own": "mine", "task_id": "3"}))
    metadata = one.record().metadata
    assert metadata["task_id"] == "3"
    assert metadata["own"]["served_by"] == "teacher"
