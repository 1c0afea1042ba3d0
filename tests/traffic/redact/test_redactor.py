"""Records, masked: what of them is searched, and what stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.redact import PATTERN_KINDS, Placeholders, Redactor
from ownweights.traffic.redact.placeholder import PLACEHOLDER

MAIL, PHONE, CARD = "Ana.Diaz@example.org", "+44 20 7946 0958", "4111 1111 1111 1111"
IBAN, KEY, IP = "GB82 WEST 1234 5698 7654 32", "sk-proj-a1b2c3d4e5f6g7h8i9j0", "203.0.113.77"
ALL_OF_THEM = (MAIL, PHONE, CARD, IBAN, KEY, IP, "078-05-1120", "2001:db8:85a3::8a2e:370:7334")
PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*ALL_OF_THEM, "call ", "password: ", "<", ">", "\0", "\1", "\\n", "@", "://",
                     '{"a": "', '"}', "<EMAIL_", "-----BEGIN PRIVATE KEY-----", "key=", "12"]),
)  # fmt: skip


@pytest.fixture
def redactor(project: Project) -> Redactor:
    return Redactor(PATTERN_KINDS, Placeholders(project))


def ask(content: Any, answer: Any = "fine", **fields: Any) -> Record:
    """A record of one question and its answer."""
    request = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    message = answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}
    response = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message}]}
    return make_record(request, response, role="teacher", metadata=fields.get("metadata"))


def call(arguments: str) -> dict[str, Any]:
    """An answer that calls a tool."""
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def written(record: Record) -> str:
    """All of a record that is written down."""
    parts = [record.request, record.response, record.metadata, record.session, record.end_user,
             record.source_id]  # fmt: skip
    return json.dumps(parts, ensure_ascii=False)


def arguments_of(record: Record) -> Any:
    """The arguments of the tool that an answer calls."""
    return json.loads(record.message["tool_calls"][0]["function"]["arguments"])


@pytest.mark.parametrize("value", ALL_OF_THEM)
def test_redact_masks_a_value_wherever_it_stands(redactor: Redactor, value: str) -> None:
    parts = [{"type": "text", "text": f"it is {value}."}]
    answer = {**call(json.dumps({"told": f"line\n{value}", value: 1})), "content": f"so {value}"}
    tools = [{"type": "function", "function": {"name": "f", "description": f"not for {value}"}}]
    told = {"who": value, "all": [value], value: "yes"}
    record = ask(parts, answer, tools=tools, user=value, metadata=told)
    masked = redactor.record(replace(record, session=value, source_id=value))
    assert value not in written(masked)
    assert len(set(PLACEHOLDER.findall(written(masked)))) == 1
    assert masked.end_user == masked.session == masked.source_id == masked.request["user"]
    assert list(arguments_of(masked)) == ["told", masked.end_user]


def test_redact_gives_back_the_same_object_where_nothing_is_found(redactor: Redactor) -> None:
    record = ask("What is 2 + 2?", "4", temperature=0.5)
    assert redactor.record(record) is record


def test_redact_leaves_what_the_protocol_fixes(redactor: Redactor) -> None:
    request = {
        "model": "gpt-4.1-2025-04-14", "seed": 4111111111111111, "user": MAIL,
        "messages": [{"role": "tool", "tool_call_id": "call_4111111111111111", "content": MAIL}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"email": {"type": "string"}}}}}],
    }  # fmt: skip
    response = {"id": "chatcmpl-202-555-0143", "created": 1712345678, "system_fingerprint": "fp_12",
                "choices": [{"message": call('{"card": 4111111111111111, "n": 12}')}]}  # fmt: skip
    masked = redactor.record(make_record(request, response, role="teacher"))
    assert masked.request["seed"] == 4111111111111111
    assert masked.request["tools"] == request["tools"]
    assert masked.request["messages"][0]["tool_call_id"] == "call_4111111111111111"
    assert masked.request["messages"][0]["content"] == masked.request["user"] != MAIL
    assert masked.response is not None
    assert masked.response["id"] == response["id"] and masked.response["created"] == 1712345678
    arguments = arguments_of(masked)
    assert PLACEHOLDER.fullmatch(arguments["card"]) and arguments["n"] == 12


def test_redact_opens_json_so_that_no_escape_hides_a_value(redactor: Redactor) -> None:
    hidden = '{"to":"ana\\u002ediaz\\u0040example.org","from":"\\nana.diaz@example.org"}'
    masked = redactor.record(ask(f"mail {MAIL}", call(hidden)))
    (placeholder,) = set(PLACEHOLDER.findall(written(masked)))
    assert arguments_of(masked) == {"to": placeholder, "from": f"\n{placeholder}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":"é","to":"x@example.org"}', '{"a":"é","to":"%s"}'),
        ('{"a": "\\u00e9", "to": "x@example.org"}', '{"a": "\\u00e9", "to": "%s"}'),
        ('{\n  "a": 1,\n  "to": "x@example.org"\n}', '{\n  "a": 1,\n  "to": "%s"\n}'),
    ],
)
def test_redact_writes_json_in_its_own_style(redactor: Redactor, text: str, expected: str) -> None:
    masked = redactor.record(ask("hello", text))
    assert masked.answer_text == expected % PLACEHOLDER.findall(masked.answer_text or "")[0]


def test_redact_masks_in_all_the_record_what_is_found_once(redactor: Redactor) -> None:
    masked = redactor.record(
        ask("My phone number is 516 466 638, my password is hunter2!x", "516 466 638 and hunter2!x")
    )
    assert "516" not in written(masked) and "hunter2" not in written(masked)


def test_redact_takes_a_key_in_json_for_the_word_before_its_value(redactor: Redactor) -> None:
    told = {"phone": 516466638, "amount": 516466639, "password": "correct-horse-9", "zip": "078750"}
    masked = redactor.record(ask("hello", call(json.dumps(told))))
    kept = arguments_of(masked)
    assert kept["amount"] == 516466639 and kept["zip"] == "078750"
    assert kept["phone"].startswith("<PHONE_") and kept["password"].startswith("<KEY_")


def test_redact_does_not_read_one_text_into_the_next(redactor: Redactor) -> None:
    record = ask("What should be my password", "valkey-cli2 asks for it")
    assert redactor.record(record) is record


def test_redact_drops_logprobs_of_a_masked_answer(redactor: Redactor) -> None:
    record = ask("who?", MAIL)
    assert record.response is not None
    spelled = {"content": [{"token": "Ana.", "logprob": -1.0}, {"token": "Diaz", "logprob": -1.0}]}
    record.response["choices"][0]["logprobs"] = spelled
    masked = redactor.record(record)
    assert "Diaz" not in written(masked)
    clean = ask("who?", "nobody")
    assert clean.response is not None
    clean.response["choices"][0]["logprobs"] = spelled
    assert redactor.record(clean) is clean


def test_redact_masks_data_only_where_it_is_said(project: Project) -> None:
    image = "data:image/png;base64," + "iVBORw0KGgo4111111111111111" * 20
    part = {"type": "image_url", "image_url": {"url": image, "detail": "low"}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF" * 20}}
    record = ask([part, sound, {"type": "text", "text": "what is it?"}])
    assert Redactor(PATTERN_KINDS, Placeholders(project)).record(record) is record
    masked = Redactor(("data",), Placeholders(project)).record(record)
    content = masked.request["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("<DATA_")
    assert content[1]["input_audio"]["data"].startswith("<DATA_")
    assert content[0]["image_url"]["detail"] == "low" and content[2] == {
        "type": "text", "text": "what is it?"}  # fmt: skip
    assert written(Redactor(("data",), Placeholders(project)).record(masked)) == written(masked)


@pytest.mark.parametrize("kind", PATTERN_KINDS)
def test_redact_masks_the_kinds_asked_for_alone(project: Project, kind: str) -> None:
    masked = Redactor((kind,), Placeholders(project)).record(ask(" ; ".join(ALL_OF_THEM)))
    found = PLACEHOLDER.findall(written(masked))
    assert found and all(one.startswith(f"<{kind.upper()}_") for one in found)


def test_redact_reads_other_protocols(redactor: Redactor) -> None:
    use = {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"to": MAIL}}
    request = {"model": "m", "system": f"for {MAIL}", "input": [{"role": "user", "content": MAIL}],
               "prompt": [MAIL], "instructions": MAIL}  # fmt: skip
    response = {"type": "message", "content": [use], "output": [{"text": MAIL}], "data": [
        {"embedding": [0.5] * 4}]}  # fmt: skip
    masked = redactor.record(make_record(request, response, role="teacher"))
    assert "example.org" not in written(masked)
    assert masked.response is not None and masked.response["data"] == response["data"]


@given(st.lists(PIECES))
def test_redact_twice_changes_nothing(tmp_path_factory: Any, pieces: list[str]) -> None:
    project = Project(tmp_path_factory.getbasetemp() / "twice")
    redactor = Redactor(PATTERN_KINDS, Placeholders(project))
    once = redactor.texts(pieces)
    assert len(once) == len(pieces)
    assert redactor.texts(once) == once
    whole = redactor.record(ask("".join(pieces), call(json.dumps(pieces)), user="".join(pieces)))
    assert redactor.record(whole) == whole
    assert len(arguments_of(whole)) == len(pieces)


JSON = st.recursive(
    st.one_of(PIECES, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PIECES, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_redact_keeps_json_valid(tmp_path_factory: Any, value: Any) -> None:
    redactor = Redactor(PATTERN_KINDS, Placeholders(Project(tmp_path_factory.getbasetemp() / "j")))
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        masked = redactor.record(ask(text, call(text), metadata={"it": value}))
        before, after = json.loads(text), arguments_of(masked)
        assert type(before) is type(after) or isinstance(after, str)
        assert shape(after) == shape(before)


def shape(value: Any) -> Any:
    """What stays of JSON whatever is masked in it."""
    if isinstance(value, dict):
        return [shape(inner) for inner in value.values()]
    return [shape(inner) for inner in value] if isinstance(value, list) else None
