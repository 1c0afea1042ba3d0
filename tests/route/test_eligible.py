"""Which requests a student may answer: a closed list, field by field."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.prune import PruneRule, system_hash
from ownweights.route import eligible, plain_messages, unanswerable
from ownweights.traffic.workload import workload_hash
from tests.route.samples import SYSTEM, body_of, drop_rule, route_of

ROUTE = route_of()
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
USER = {"role": "user", "content": "hello"}

HONOURED = {
    "stream": [True, False, None],
    "stream_options": [{}, {"include_usage": True}, None],
    "temperature": [0, 0.0, 1, 1.0, None],
    "top_p": [1, 1.0, None],
    "n": [1, None],
    "max_tokens": [1, 4096, None],
    "max_completion_tokens": [1, 4096, None],
    "seed": [0, -3, 2**40, None],
    "stop": [[], None],
    "presence_penalty": [0, 0.0, None],
    "frequency_penalty": [0, None],
    "logit_bias": [{}, None],
    "logprobs": [False, None],
    "top_logprobs": [0, None],
    "tools": [[], None],
    "tool_choice": ["none", None],
    "functions": [[], None],
    "response_format": [{"type": "text"}, {"type": "json_object"}, None],
    "modalities": [["text"], None],
    "service_tier": ["auto", "default", None],
    "store": [False, None],
    "user": ["bob", None],
    "metadata": [{"workload": "tickets"}, None],
    "safety_identifier": ["x"],
    "prompt_cache_key": ["x"],
    "prompt_cache_retention": ["24h"],
    "model": ["anything", None],
}
NOT_HONOURED = {
    "stream": ["yes", 1],
    "stream_options": [{"include_obfuscation": False}, {"include_usage": 1}, []],
    "temperature": [0.7, 2, 1e-9, True, "0", False],
    "top_p": [0.9, 0, True],
    "n": [2, 0, True],
    "max_tokens": [0, -1, 1.5, "9", True],
    "max_completion_tokens": [0, True],
    "seed": ["x", 1.5],
    "stop": ["\n", ["x"]],
    "presence_penalty": [0.1, False],
    "frequency_penalty": [-1],
    "logit_bias": [{"50256": -100}],
    "logprobs": [True, 0],
    "top_logprobs": [3],
    "tools": [[TOOL]],
    "tool_choice": ["auto", "required", {"type": "function"}],
    "functions": [[{}]],
    "function_call": ["auto"],
    "parallel_tool_calls": [True],
    "response_format": [{"type": "json_schema", "json_schema": {}}, {"type": "text", "x": 1}, "t"],
    "modalities": [["text", "audio"]],
    "audio": [{"voice": "alloy"}],
    "prediction": [{"type": "content"}],
    "reasoning_effort": ["low"],
    "verbosity": ["low"],
    "web_search_options": [{}],
    "service_tier": ["flex"],
    "store": [True],
    "brand_new_field": [1, {}, "x"],
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


def test_eligible_plain_request_is() -> None:
    assert eligible(ROUTE, body_of()) is None


@pytest.mark.parametrize(("name", "value"), cases(HONOURED))
def test_eligible_field_that_is_honoured(name: str, value: Any) -> None:
    assert eligible(ROUTE, {**body_of(), name: value}) is None


@pytest.mark.parametrize(("name", "value"), cases(NOT_HONOURED))
def test_eligible_field_that_is_not_honoured_is_named(name: str, value: Any) -> None:
    assert eligible(ROUTE, {**body_of(), name: value}) == f"ineligible:{name}"


@given(st.from_regex(r"x_[a-z_]{2,30}", fullmatch=True), st.none() | st.integers() | st.text())
def test_eligible_unknown_field_is_ineligible(name: str, value: Any) -> None:
    assert eligible(ROUTE, {**body_of(), name: value}) == f"ineligible:{name}"


@given(st.text(min_size=1))
def test_eligible_hostile_field_name_is_masked(name: str) -> None:
    reason = unanswerable({**body_of(), name: 1})
    assert reason is None or re.fullmatch(r"ineligible:[a-z]\w{0,39}", reason, re.I | re.ASCII)


@pytest.mark.parametrize("name", ["x\r\nset-cookie: a=b", "ключ", "a" * 41, "a-b", ""])
def test_eligible_odd_name_is_unknown(name: str) -> None:
    assert unanswerable({**body_of(), name: 1}) == "ineligible:unknown"


def test_eligible_two_limits_are_the_teachers_business() -> None:
    body = body_of(max_tokens=5, max_completion_tokens=9)
    assert eligible(ROUTE, body) == "ineligible:max_tokens"


@pytest.mark.parametrize(
    "messages",
    [
        [SYSTEM, USER],
        [USER, {"role": "assistant", "content": "yes"}, USER],
        [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        [{"role": "user", "content": ""}],
        [{**USER, "name": None}],
        [USER, {"role": "assistant", "content": "x", "tool_calls": [], "refusal": None}, USER],
    ],
)
def test_eligible_messages_that_are_text(messages: list[Any]) -> None:
    assert eligible(ROUTE, body_of(messages=messages)) is None


IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        ("text", "messages"),
        (["text"], "messages.role"),
        ([{"content": "x"}], "messages.role"),
        ([{"role": "tool", "content": "x", "tool_call_id": "a"}, USER], "messages.role"),
        ([{"role": "function", "content": "x"}, USER], "messages.role"),
        ([{"role": "developer", "content": "x"}, USER], "messages.role"),
        ([USER, {"role": "assistant", "content": "x"}], "messages.role"),
        ([SYSTEM], "messages.role"),
        ([{**USER, "name": "bob"}], "messages.name"),
        ([{**USER, "x\r\ny": 1}], "messages.unknown"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}, USER], "messages.tool_calls"),
        ([{"role": "assistant", "content": "", "audio": {"id": "a"}}, USER], "messages.audio"),
        ([{"role": "assistant", "content": None}, USER], "messages.content"),
        ([{"role": "user"}], "messages.content"),
        ([{"role": "user", "content": [IMAGE]}], "messages.content"),
        ([{"role": "user", "content": [TEXT, IMAGE]}], "messages.content"),
        ([{"role": "user", "content": [TEXT, TEXT]}], "messages.content"),
        ([{"role": "user", "content": [{**TEXT, "cache_control": {}}]}], "messages.content"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "messages.content"),
        ([{"role": "user", "content": 7}], "messages.content"),
    ],
)
def test_eligible_messages_that_are_not_text(messages: Any, field: str) -> None:
    assert unanswerable(body_of(messages=messages)) == f"ineligible:{field}"


def test_eligible_only_the_certified_prompts() -> None:
    known = body_of(messages=[SYSTEM, USER])
    route = route_of(prompt_hashes=("0" * 16, workload_hash(known)))
    assert eligible(route, known) is None
    assert eligible(route, body_of()) == "ineligible:prompt"
    changed = {**SYSTEM, "content": "Answer in two words."}
    assert eligible(route, body_of(messages=[changed, USER])) == "ineligible:prompt"
    as_json = {**known, "response_format": {"type": "json_object"}}
    assert eligible(route, as_json) == "ineligible:prompt"


def test_eligible_system_prompt_that_the_student_never_read() -> None:
    route = route_of(prune=drop_rule())
    assert eligible(route, body_of(messages=[SYSTEM, USER])) is None
    parts = {"role": "system", "content": [{"type": "text", "text": SYSTEM["content"]}]}
    assert eligible(route, body_of(messages=[parts, USER])) is None
    for messages in ([USER], [{**SYSTEM, "content": "Refuse."}, USER]):
        assert eligible(route, body_of(messages=messages)) == "ineligible:prompt"


def test_eligible_system_prompt_that_the_student_reads_may_be_any() -> None:
    known = system_hash([SYSTEM])
    assert known is not None
    route = route_of(prune=PruneRule(known, drops_system=False).to_json())
    assert eligible(route, body_of()) is None


def test_eligible_prompt_that_cannot_fit_is_not_even_tried() -> None:
    route = route_of(max_prompt_tokens=10)
    assert eligible(route, body_of("x" * 160)) is None
    assert eligible(route, body_of("x" * 161)) == "ineligible:context"
    assert eligible(ROUTE, body_of("x" * 10_000_000)) == "ineligible:context"


def test_plain_messages_are_role_and_text() -> None:
    messages = [{**SYSTEM, "name": None}, {"role": "user", "content": [TEXT]}]
    assert plain_messages(messages) == [SYSTEM, {"role": "user", "content": "a"}]
