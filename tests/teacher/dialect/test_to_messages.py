"""Chat requests become Messages requests, or are refused by the name of a field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import Inexpressible
from ownweights.teacher.dialect import chat_request, messages_request
from tests.teacher.dialect.oracles import check_chat_request, check_messages_request
from tests.teacher.dialect.worlds import Json, chat_requests, spoiled

ASKED = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def chat(messages: Any = None, **fields: Any) -> Json:
    return {"model": "m", "max_completion_tokens": 9, "messages": messages or ASKED, **fields}


def translated(messages: Any = None, **fields: Any) -> Json:
    body = messages_request(chat(messages, **fields)).body
    check_messages_request(body)
    return body


def refusal(body: Any, **options: Any) -> Inexpressible:
    with pytest.raises(Inexpressible) as caught:
        messages_request(body, **options)
    return caught.value


def call(arguments: str = "{}", call_id: str = "c1", name: str = "look") -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def called(*calls: Json, content: Any = None) -> Json:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id: str = "c1", content: Any = "3") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@given(chat_requests())
def test_messages_request_always_satisfies_the_client_types(body: Json) -> None:
    check_chat_request(body)  # what goes in is a request at all
    check_messages_request(messages_request(body).body)


@given(chat_requests())
def test_chat_request_always_undoes_messages_request(body: Json) -> None:
    assert chat_request(messages_request(body).body).body == body


@given(st.data())
def test_messages_request_of_anything_is_a_request_or_refused(data: st.DataObject) -> None:
    body = data.draw(spoiled(data.draw(chat_requests())))
    try:
        found = messages_request(body)
    except Inexpressible:
        return  # and nothing else leaves
    check_messages_request(found.body)


def test_messages_request_leaves_the_callers_body_alone() -> None:
    body = chat([{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, *ASKED])
    before = repr(body)
    messages_request(body)
    assert repr(body) == before


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_messages_request_refuses_what_is_no_object(body: Any) -> None:
    assert refusal(body).param == "request"


# the limit


def test_limit_is_either_of_chats_two() -> None:
    assert (
        messages_request({"model": "m", "messages": ASKED, "max_tokens": 5}).body["max_tokens"] == 5
    )
    assert translated(max_tokens=9)["max_tokens"] == 9
    assert refusal(chat(max_tokens=8)).param == "max_tokens"


def test_limit_that_nobody_names_is_refused_unless_the_operator_names_one() -> None:
    body = {"model": "m", "messages": ASKED}
    error = refusal(body)
    assert error.param == "max_completion_tokens"
    assert "hint: send max_completion_tokens" in str(error)
    assert messages_request(body, max_tokens=4096).body["max_tokens"] == 4096
    assert messages_request(chat(), max_tokens=4096).body["max_tokens"] == 9


# fields of the request


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2), ("logprobs", True), ("top_logprobs", 3), ("logit_bias", {"5": 1}), ("seed", 0),
        ("presence_penalty", 0.1), ("frequency_penalty", -1), ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x", "format": "wav"}), ("prediction", {"type": "content"}),
        ("moderation", {"model": "x"}), ("verbosity", "low"), ("store", True),
        ("web_search_options", {}), ("functions", [{"name": "f"}]), ("function_call", "auto"),
        ("temperature", 1.2), ("temperature", "hot"), ("top_p", -0.1), ("service_tier", "flex"),
        ("reasoning_effort", "minimal"), ("top_k", 5), ("thinking", {"type": "enabled"}),
        ("max_completion_tokens", 0), ("stop", 3), ("stream", "yes"), ("user", 3), ("model", 3),
    ],
)  # fmt: skip
def test_field_is_refused_by_its_name(field: str, value: Any) -> None:
    error = refusal(chat(**{field: value}))
    assert error.param == field
    assert str(error).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 1), ("logprobs", False), ("top_logprobs", 0), ("logit_bias", {}), ("seed", None),
        ("presence_penalty", 0), ("frequency_penalty", 0.0), ("modalities", ["text"]),
        ("verbosity", "medium"), ("store", False), ("functions", []), ("tools", []),
        ("response_format", {"type": "text"}), ("metadata", {"workload": "w", "session": "s"}),
        ("stream_options", {"include_usage": True}), ("stop", []), ("parallel_tool_calls", True),
    ],
)  # fmt: skip
def test_field_that_asks_for_what_happens_anyway_is_taken(field: str, value: Any) -> None:
    assert translated(**{field: value}) == translated()


def test_metadata_is_the_gateways_or_refused() -> None:
    assert refusal(chat(metadata={"team": "x"})).param == "metadata.team"


def test_hints_about_caches_are_left_out_and_named() -> None:
    part = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    found = messages_request(chat([{"role": "user", "content": [part]}], prompt_cache_key="k"))
    assert found.left_out == ("prompt_cache_breakpoint", "prompt_cache_key")
    assert messages_request(chat()).left_out == ()


def test_user_is_named_by_either_field() -> None:
    assert translated(user="u")["metadata"] == {"user_id": "u"}
    assert translated(safety_identifier="u")["metadata"] == {"user_id": "u"}
    assert translated(safety_identifier="u", user="u")["metadata"] == {"user_id": "u"}
    assert refusal(chat(user="u", safety_identifier="v")).param == "safety_identifier"


def test_stop_is_one_text_or_several() -> None:
    assert translated(stop="###")["stop_sequences"] == ["###"]
    assert translated(stop=["a", "b"])["stop_sequences"] == ["a", "b"]
    assert refusal(chat(stop=["a", "\n"])).param == "stop[1]"
    assert refusal(chat(stop=[3])).param == "stop[0]"


def test_effort_none_is_thinking_disabled() -> None:
    assert translated(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert translated(reasoning_effort="high")["output_config"] == {"effort": "high"}


def test_response_format_is_a_schema_or_refused() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    expected = {"format": {"type": "json_schema", "schema": schema}}
    assert translated(response_format=wanted)["output_config"] == expected
    assert refusal(chat(response_format={"type": "json_object"})).param == "response_format.type"
    wanted["json_schema"]["description"] = "in words"
    assert refusal(chat(response_format=wanted)).param == "response_format.json_schema.description"


# tools


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"type": "none"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice_becomes(choice: Any, expected: Json) -> None:
    assert translated(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected
    single = translated(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    more = {} if choice == "none" else {"disable_parallel_tool_use": True}
    assert single["tool_choice"] == expected | more


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("sometimes", "tool_choice"),
        (3, "tool_choice"),
        ({"type": "custom", "custom": {"name": "f"}}, "tool_choice.type"),
        ({"type": "allowed_tools", "allowed_tools": {}}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
    ],
)
def test_tool_choice_is_refused(choice: Any, param: str) -> None:
    assert refusal(chat(tools=[TOOL], tool_choice=choice)).param == param


def test_single_calls_alone_make_a_choice() -> None:
    expected = {"type": "auto", "disable_parallel_tool_use": True}
    assert translated(tools=[TOOL], parallel_tool_calls=False)["tool_choice"] == expected
    assert refusal(chat(parallel_tool_calls=False)).param == "parallel_tool_calls"


def test_tool_without_parameters_takes_an_empty_object() -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    expected = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
    assert translated(tools=[bare])["tools"] == [expected]


def test_tool_whose_parameters_name_no_type_takes_an_object() -> None:
    odd = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {}}}}}
    schema = {"type": "object", "properties": {"a": {}}}
    assert translated(tools=[odd])["tools"][0]["input_schema"] == schema


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom", "custom": {"name": "f"}}, "tools[1].type"),
        ({"type": "function", "function": {}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": "f", "colour": 1}}, "tools[1].function.colour"),
        (
            {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}},
            "tools[1].function.parameters.type",
        ),
        ("f", "tools[1].type"),
    ],
)
def test_tool_is_refused(tool: Any, param: str) -> None:
    assert refusal(chat(tools=[TOOL, tool])).param == param


# turns


def test_system_messages_at_the_start_are_the_system_prompt() -> None:
    one = {"role": "system", "content": "a"}
    two = {"role": "developer", "content": [{"type": "text", "text": "b"}]}
    assert translated([one, *ASKED])["system"] == "a"
    assert translated([two, *ASKED])["system"] == [{"type": "text", "text": "b"}]
    both = translated([one, two, *ASKED])
    assert both["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert both["messages"] == ASKED


def test_later_system_message_stays_in_its_place() -> None:
    later = {"role": "developer", "content": "now in French"}
    found = translated([*ASKED, later])
    assert "system" not in found
    assert found["messages"] == [*ASKED, {"role": "system", "content": "now in French"}]


def test_empty_system_prompt_says_nothing() -> None:
    assert translated([{"role": "system", "content": ""}, *ASKED]) == translated()


def test_neighbours_of_one_role_stay_apart() -> None:
    twice = [*ASKED, {"role": "user", "content": "again"}]
    assert translated(twice)["messages"] == twice


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": ""}]}],
         "messages[0].content[0].text"),
        ([{"role": "user", "content": "x", "name": "Ann"}], "messages[0].name"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
        (["x"], "messages[0].role"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([*ASKED, {"role": "assistant", "content": "The best is ("}], "messages[1]"),
        ([*ASKED, {"role": "assistant", "content": ""}, *ASKED], "messages[1].content"),
        ([*ASKED, {"role": "assistant", "content": None}, *ASKED], "messages[1].content"),
        ([*ASKED, {"role": "assistant", "content": "x", "refusal": "no"}, *ASKED],
         "messages[1].refusal"),
        ([*ASKED, {"role": "assistant", "function_call": {"name": "f"}}],
         "messages[1].function_call"),
        ([*ASKED, {"role": "assistant", "audio": {"id": "a"}}], "messages[1].audio"),
        ([*ASKED, {"role": "assistant", "reasoning_content": "x"}],
         "messages[1].reasoning_content"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
         "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0].type"),
        ([{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
         "messages[0].content[0].type"),
    ],
)  # fmt: skip
def test_message_is_refused_by_its_place(messages: Any, param: str) -> None:
    assert refusal(chat(messages)).param == param


def test_answer_that_a_client_sends_back_as_it_came_is_taken() -> None:
    back = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [],
            "audio": None, "function_call": None, "tool_calls": None}  # fmt: skip
    found = translated([*ASKED, back, *ASKED])
    assert found["messages"][1] == {"role": "assistant", "content": "hi"}


# pictures and files


def user_part(part: Json) -> Json:
    return translated([{"role": "user", "content": [part]}])["messages"][0]["content"][0]


def image(url: str, **more: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_image_is_an_address_or_data() -> None:
    assert user_part(image("https://x.test/a.png"))["source"] == {
        "type": "url",
        "url": "https://x.test/a.png",
    }
    data = user_part(image("data:image/jpeg;base64,/9j/", detail="auto"))["source"]
    assert data == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image("data:image/svg+xml;base64,AA"), "image_url.url"),
        (image("data:image/png,raw"), "image_url.url"),
        (image("file:///etc/passwd"), "image_url.url"),
        (image("https://x.test", detail="high"), "image_url.detail"),
        ({"type": "file", "file": {"file_id": "f1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,AA"}}, "file.file_data"),
        ({"type": "file", "file": {"file_data": "AAAA"}}, "file.file_data"),
    ],
)
def test_picture_or_file_is_refused(part: Json, param: str) -> None:
    messages = [{"role": "user", "content": [part]}]
    assert refusal(chat(messages)).param == f"messages[0].content[0].{param}"


def test_pdf_is_a_document() -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}
    assert user_part({"type": "file", "file": file}) == {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
        "title": "a.pdf",
    }


# calls and results


def test_answers_of_tools_are_one_turn() -> None:
    calls = called(call(call_id="a"), call(call_id="b"), content="I look")
    found = translated([*ASKED, calls, result("a"), result("b", ""), *ASKED])["messages"]
    assert [block["type"] for block in found[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert found[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "3"},
            {"type": "tool_result", "tool_use_id": "b"},
        ],
    }
    assert found[3] == ASKED[0]


def test_answers_of_two_rounds_are_two_turns() -> None:
    rounds = [called(call(call_id="a")), result("a"), called(call(call_id="b")), result("b")]
    found = translated([*ASKED, *rounds])["messages"]
    assert [message["role"] for message in found] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", ["", "{}", " {} "])
def test_empty_arguments_are_an_empty_object(arguments: str) -> None:
    found = translated([*ASKED, called(call(arguments)), result()])
    assert found["messages"][1]["content"][0]["input"] == {}


@pytest.mark.parametrize("arguments", ["[1]", "3", "{", "null", "{'a': 1}", "[" * 5000])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    error = refusal(chat([*ASKED, called(call(arguments)), result()]))
    assert error.param == "messages[1].tool_calls[0].function.arguments"


def test_tool_ids_are_spelled_for_messages() -> None:
    odd = called(call(call_id="functions.look:0"), call(call_id="functions.look:1"))
    found = translated([*ASKED, odd, result("functions.look:0"), result("functions.look:1")])[
        "messages"
    ]
    spelled = [block["id"] for block in found[1]["content"]]
    assert spelled == ["functions_2e_look_3a_0", "functions_2e_look_3a_1"]
    assert [block["tool_use_id"] for block in found[2]["content"]] == spelled


def test_tool_ids_that_would_meet_are_refused() -> None:
    meeting = called(call(call_id="a:b"), call(call_id="a_3a_b"))
    assert refusal(chat([*ASKED, meeting, *ASKED])).param == "messages[1].tool_calls[1].id"
    assert refusal(chat([*ASKED, called(call(call_id="")), *ASKED])).param == (
        "messages[1].tool_calls[0].id"
    )


def test_custom_tool_call_is_refused() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    assert refusal(chat([*ASKED, called(custom)])).param == "messages[1].tool_calls[0].type"
