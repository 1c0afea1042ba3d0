"""Messages requests become chat requests, or are refused by the name of a field."""

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
TOOL = {"name": "look", "input_schema": {"type": "object"}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}


def request(messages: Any = None, **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 9, "messages": messages or ASKED, **fields}


def translated(messages: Any = None, **fields: Any) -> Json:
    body = request(messages, **fields)
    check_messages_request(body)
    found = chat_request(body).body
    check_chat_request(found)
    return found


def refusal(body: Any) -> Inexpressible:
    with pytest.raises(Inexpressible) as caught:
        chat_request(body)
    return caught.value


def user(*blocks: Any) -> list[Json]:
    return [{"role": "user", "content": list(blocks)}]


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def use(call_id: str = "c1", **more: Any) -> Json:
    return {"type": "tool_use", "id": call_id, "name": "look", "input": {"a": 1}, **more}


def result(call_id: str = "c1", **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": call_id, **more}


def said(*blocks: Any) -> Json:
    return {"role": "assistant", "content": list(blocks)}


@given(chat_requests())
def test_chat_request_always_satisfies_the_client_types(body: Json) -> None:
    check_chat_request(chat_request(messages_request(body).body).body)


@given(st.data())
def test_chat_request_of_anything_is_a_request_or_refused(data: st.DataObject) -> None:
    body = data.draw(spoiled(messages_request(data.draw(chat_requests())).body))
    try:
        found = chat_request(body)
    except Inexpressible:
        return  # and nothing else leaves
    check_chat_request(found.body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 5), ("container", "c"), ("diagnostics", {}), ("inference_geo", "eu"),
        ("speed", "fast"), ("user_profile_id", "u"), ("workspace_id", "w"), ("mcp_servers", []),
        ("temperature", 1.5), ("max_tokens", 0), ("max_tokens", None), ("service_tier", "batch"),
        ("stop_sequences", ["a", "b", "c", "d", "e"]), ("seed", 3), ("n", 1), ("stream", 1),
    ],
)  # fmt: skip
def test_field_is_refused_by_its_name(field: str, value: Any) -> None:
    assert refusal(request(**{field: value})).param == field


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("metadata", {"team": "x"}, "metadata.team"),
        ("stop_sequences", [3], "stop_sequences[0]"),
        ("thinking", {"type": "enabled", "budget_tokens": 2048}, "thinking.type"),
        ("thinking", {"type": "adaptive"}, "thinking.type"),
        ("thinking", {"type": "between_tools"}, "thinking.type"),
        ("output_config", {"effort": "extreme"}, "output_config.effort"),
        ("output_config", {"format": {"type": "xml"}}, "output_config.format.type"),
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}], "tools[0].type"),
        ("tools", [{**TOOL, "input_examples": [{}]}], "tools[0].input_examples"),
        ("tools", [{**TOOL, "defer_loading": True}], "tools[0].defer_loading"),
        ("tools", [{"name": "f"}], "tools[0].input_schema"),
        ("tool_choice", {"type": "some"}, "tool_choice.type"),
        ("tool_choice", {"type": "tool"}, "tool_choice.name"),
        ("tool_choice", {"type": "auto", "name": "f"}, "tool_choice.name"),
        ("system", [{"type": "image", "source": SOURCE}], "system[0].type"),
        ("system", [text("")], "system[0].text"),
        ("messages", [], "messages"),
    ],
)
def test_part_of_a_field_is_refused_by_its_place(field: str, value: Any, param: str) -> None:
    assert refusal({**request(), field: value}).param == param


def test_fields_that_ask_for_what_happens_anyway_are_taken() -> None:
    plain = translated()
    assert translated(speed="standard", tools=[], metadata={}, output_config={}) == plain
    assert translated(stop_sequences=[], system="", inference_geo=None) == plain


def test_effort_and_disabled_thinking_are_chats_one_field() -> None:
    assert translated(output_config={"effort": "max"})["reasoning_effort"] == "max"
    assert translated(thinking={"type": "disabled"})["reasoning_effort"] == "none"
    both = request(thinking={"type": "disabled"}, output_config={"effort": "low"})
    assert refusal(both).param == "output_config.effort"


def test_stream_asks_for_token_counts() -> None:
    assert translated(stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in translated(stream=False)


def test_cache_marks_are_left_out_and_named() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    body = request(
        user(text("x", cache_control=mark)),
        system=[text("s", cache_control=mark)],
        tools=[{**TOOL, "cache_control": mark, "eager_input_streaming": True}],
        cache_control=mark,
    )
    found = chat_request(body)
    assert found.left_out == ("cache_control", "eager_input_streaming")
    check_chat_request(found.body)
    assert "cache" not in repr(found.body)


def test_system_is_one_message_at_the_start() -> None:
    assert translated(system="s")["messages"][0] == {"role": "system", "content": "s"}
    blocks = translated(system=[text("a"), text("b")])["messages"]
    assert blocks[0] == {"role": "system", "content": [text("a"), text("b")]}
    assert len(blocks) == 2


def test_system_turn_stays_in_its_place() -> None:
    later = [*ASKED, {"role": "system", "content": "now in French"}]
    assert translated(later)["messages"] == later


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "look"},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_tool_choice_becomes(choice: Json, expected: Json) -> None:
    found = translated(tools=[TOOL], tool_choice=choice)
    assert {k: v for k, v in found.items() if k in ("tool_choice", "parallel_tool_calls")} == (
        expected
    )


def test_tool_becomes_a_function() -> None:
    tool = {**TOOL, "type": "custom", "description": "d", "strict": True,
            "allowed_callers": ["direct"], "defer_loading": False}  # fmt: skip
    parameters = {"type": "object"}
    function = {"name": "look", "description": "d", "strict": True, "parameters": parameters}
    assert translated(tools=[tool])["tools"] == [{"type": "function", "function": function}]


def test_results_of_tools_come_before_what_the_user_says() -> None:
    turn = user(result(content="3"), result("c2", content=[text("4")]), text("and now?"))
    found = translated([*ASKED, said(use(), use("c2")), *turn])["messages"]
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": [text("4")]},
        {"role": "user", "content": [text("and now?")]},
    ]


def test_tool_that_says_nothing_answers_empty_text() -> None:
    for nothing in ({}, {"content": ""}, {"content": []}):
        found = translated([*ASKED, said(use()), *user(result(**nothing))])["messages"]
        assert found[-1] == {"role": "tool", "tool_call_id": "c1", "content": ""}


def test_assistants_turn_becomes_text_and_calls() -> None:
    found = translated([*ASKED, said(text("I look"), use(caller={"type": "direct"})),
                        *user(result())])["messages"]  # fmt: skip
    assert found[1] == {
        "role": "assistant",
        "content": "I look",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
        ],
    }
    alone = translated([*ASKED, said(use()), *user(result())])["messages"]
    assert alone[1]["content"] is None


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (user(text("x"), result()), "messages[0].content[1]"),
        (user(result(is_error=True)), "messages[0].content[0].is_error"),
        (
            user(result(content=[{"type": "image", "source": SOURCE}])),
            "messages[0].content[0].content[0].type",
        ),
        (user(text("x", citations=[{}])), "messages[0].content[0].citations"),
        (user({"type": "search_result"}), "messages[0].content[0].type"),
        (user(use()), "messages[0].content[0].type"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
         "messages[0].content[0].source.type"),
        (user({"type": "document", "source": {"type": "url", "url": "https://x.test"}}),
         "messages[0].content[0].source.type"),
        (user({"type": "document", "source": PDF, "context": "c"}),
         "messages[0].content[0].context"),
        (user({"type": "document", "source": PDF, "citations": {"enabled": True}}),
         "messages[0].content[0].citations"),
        (user(), "messages[0].content"),
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": "x", "name": "n"}], "messages[0].name"),
        ([*ASKED, said(text("The best is ("))], "messages[1]"),
        ([*ASKED, said(), *ASKED], "messages[1].content"),
        ([*ASKED, said(use(), text("so")), *ASKED], "messages[1].content[1]"),
        ([*ASKED, said({"type": "thinking", "thinking": "", "signature": "s"}), *ASKED],
         "messages[1].content[0].type"),
        ([*ASKED, said({"type": "redacted_thinking", "data": "d"}), *ASKED],
         "messages[1].content[0].type"),
        ([*ASKED, said({"type": "server_tool_use"}), *ASKED], "messages[1].content[0].type"),
        ([*ASKED, said(use(toolset_name="computer")), *ASKED],
         "messages[1].content[0].toolset_name"),
    ],
)  # fmt: skip
def test_turn_is_refused_by_its_place(messages: Any, param: str) -> None:
    assert refusal(request(messages)).param == param


def test_pictures_and_files_become_parts() -> None:
    found = translated(
        user(
            {"type": "image", "source": SOURCE},
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            {"type": "document", "source": PDF, "title": "a.pdf"},
            {"type": "document", "source": PDF, "citations": {"enabled": False}},
        )
    )["messages"][0]["content"]
    data = "data:application/pdf;base64,AAAA"
    assert found == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": data}},
        {"type": "file", "file": {"file_data": data}},
    ]
