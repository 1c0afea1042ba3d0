"""Ways in which a value could get past: each is tried, and all that is stored is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.redact import PATTERN_KINDS, Placeholders, Privacy, PrivacyRules, Redactor
from ownweights.traffic.redact.body import OtherTexts, Texts, is_data, with_texts
from ownweights.traffic.redact.placeholder import PLACEHOLDER
from ownweights.traffic.store import TrafficStore

MAIL = "ana.diaz@example.org"
VALUES = {
    "key": "sk-proj-a1b2c3d4e5f6g7h8i9j0",
    "email": MAIL,
    "iban": "GB82WEST12345698765432",
    "card": "4111111111111111",
    "ssn": "078-05-1120",
    "ip": "203.0.113.77",
    "phone": "+442079460958",
}
assert tuple(VALUES) == PATTERN_KINDS


@pytest.fixture
def redactor(project: Project) -> Redactor:
    return Redactor(PATTERN_KINDS, Placeholders(project))


def ask(content: Any = "hello", answer: Any = "fine", **fields: Any) -> Record:
    request = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    message = {"role": "assistant", "content": answer}
    response = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return make_record(request, response, role="teacher", metadata=fields.get("metadata"))


def with_call(arguments: str) -> Record:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    record = ask()
    assert record.response is not None
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return replace(record, response={"choices": [{"index": 0, "message": message}]})


def in_session(value: str) -> Record:
    return replace(ask(), session=f"of {value}")


def in_source_id(value: str) -> Record:
    return replace(ask(), source_id=f"row {value}")


def nested(value: str) -> str:
    """Arguments in arguments: JSON in JSON in JSON, each with escapes of its own."""
    inner = json.dumps({"deep": f"\n{value}"})
    return json.dumps({"body": json.dumps({"body": inner})})


def escaped(value: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in value)


PLACES: dict[str, Callable[[str], Record]] = {
    "text": lambda value: ask(f"it is {value}, yes"),
    "alone": ask,
    "part": lambda value: ask([{"type": "text", "text": f"see {value}"}]),
    "nested part": lambda value: ask(
        [{"type": "tool_result", "content": [{"type": "text", "text": value}]}]
    ),
    "answer": lambda value: ask(answer=f"({value})"),
    "arguments": lambda value: with_call(json.dumps({"of": value})),
    "key of arguments": lambda value: with_call(json.dumps({value: 1})),
    "escapes": lambda value: with_call('{"of":"%s"}'.replace("%s", escaped(value))),
    "json in json": lambda value: with_call(nested(value)),
    "half of json": lambda value: with_call('{"of": "%s'.replace("%s", value)),
    "broken json": lambda value: with_call('{"of": "%s",}'.replace("%s", value)),
    "json said twice": lambda value: with_call('{"of": "%s", "of": "x"}'.replace("%s", value)),
    "twice, deep": lambda value: with_call('[{"a": {"of": "%s", "of": 1}}]'.replace("%s", value)),
    "metadata": lambda value: ask(metadata={"of": value}),
    "key of metadata": lambda value: ask(metadata={value: "x"}),
    "deep metadata": lambda value: ask(metadata={"a": [{"b": [value]}]}),
    "after a number": lambda value: ask(metadata={"scores": [0.5, value]}),
    "user": lambda value: ask(user=value),
    "session": in_session,
    "source id": in_source_id,
    "code": lambda value: ask(f"```python\nwho = '{value}'\n```"),
    "json in a text": lambda value: ask(f'```json\n{{"of": "{value}"}}\n```'),
    "table": lambda value: ask(f"| who | what |\n|---|---|\n| {value} | x |"),
    "csv": lambda value: ask(f"a,b\n1,{value},2\n"),
    "xml": lambda value: ask(f"<who of='{value}'>{value}</who>"),
    "yaml": lambda value: ask(f"who:\n  - {value}\n"),
    "carriage returns": lambda value: ask(f"a\r\n{value}\r\nb"),
    "escapes of a log": lambda value: ask(f"a\\n{value}\\tb"),
    "no-break space": lambda value: ask(f"a\u00a0{value}\u00a0b"),
    "quotes": lambda value: ask(f"“{value}” «{value}»"),
    "marks of direction": lambda value: ask(f"at \u202a{value}\u202c now"),
    "byte order mark": lambda value: ask(f"\ufeff{value}"),
    "emoji": lambda value: ask(f"👩‍💻{value}👩‍💻"),
    "chinese": lambda value: ask(f"他说：{value}。"),
    "tool": lambda value: ask(tools=[{"type": "function", "function": {"description": value}}]),
    "odd id": lambda value: ask(id=f"mine of {value}"),
    "unknown field": lambda value: ask(extra_body={"note": value}),
    "data that is none": lambda value: ask([{"file": {"data": "A" * 300 + f" {value} "}}]),
    "data url with more": lambda value: ask(
        [{"image_url": {"url": f"data:image/png;base64,AAAA {value}"}}]
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", PATTERN_KINDS)
def test_no_place_keeps_a_value(redactor: Redactor, kind: str, place: str) -> None:
    record = PLACES[place](VALUES[kind])
    masked = redactor.record(record)
    parts = [masked.request, masked.response, masked.metadata, masked.session, masked.end_user,
             masked.source_id]  # fmt: skip
    told = json.dumps(parts, ensure_ascii=False)
    assert VALUES[kind] not in told and escaped(VALUES[kind]) not in told
    assert {name[1:].split("_")[0].lower() for name in PLACEHOLDER.findall(told)} == {kind}
    assert redactor.record(masked) is masked


def test_no_stored_byte_holds_a_value(project: Project) -> None:
    """The store as it lies on disk, whatever files there are, and what it reads of its bodies."""
    privacy = Privacy(project, PrivacyRules(redact=("all",)))
    records = [make(value) for make in PLACES.values() for value in VALUES.values()]
    with TrafficStore.open(project) as store:
        store.add([privacy.record(record) for record in records])
    with TrafficStore.open(project) as store:
        stored = list(store.records())
    told = json.dumps([[one.request, one.response, one.metadata] for one in stored])
    lying = b"".join(path.read_bytes() for path in project.store_dir.rglob("*") if path.is_file())
    assert len(stored) == len(records)
    for value in VALUES.values():
        assert value not in told and value.encode() not in lying


WIDE = {0x21 + place: 0xFF01 + place for place in range(94)}
UNSEEN = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202a", "\u2066")


@pytest.mark.parametrize("kind", [kind for kind in PATTERN_KINDS if kind != "key"])
@given(st.data())
def test_spelling_hides_no_value(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Full-width and unseen characters at any place give the placeholder of the plain value."""
    redactor = Redactor((kind,), Placeholders(Project(tmp_path_factory.getbasetemp() / "spelled")))
    value = VALUES[kind]
    wide = data.draw(st.lists(st.booleans(), min_size=len(value), max_size=len(value)))
    spelled = [
        char.translate(WIDE) if is_wide else char for char, is_wide in zip(value, wide, strict=True)
    ]
    place = data.draw(st.integers(1, len(value) - 1))
    spelled.insert(place, data.draw(st.sampled_from(UNSEEN)))
    plain, hidden = (
        redactor.texts([f"so: {value} !"]),
        redactor.texts([f"so: {''.join(spelled)} !"]),
    )
    assert hidden == plain and VALUES[kind] not in hidden[0]


def test_spelling_of_others_is_left_alone(redactor: Redactor) -> None:
    texts = [
        "１２３４５ 円、ＡＢＣ",
        "co\u00adoperate",
        "👩‍💻 and 🏳️‍🌈",
        "न\u200dत",
        "a\u200bb 12\u200b34",
        "５−３＝２",
    ]
    assert redactor.texts(texts) == texts


def test_two_wide_values_have_two_placeholders(redactor: Redactor) -> None:
    one, other = "４１１１１１１１１１１１１１１１", "５５５５５５５５５５５５４４４４"
    first, second = redactor.texts([one, other])
    assert first != second
    assert redactor.texts(["4111 1111 1111 1111"]) == [first]


@pytest.mark.parametrize("value", ["Ana@example.org", "ANA@EXAMPLE.ORG", "ana%40example.org"])
def test_keys_that_become_one_placeholder_stay_two(redactor: Redactor, value: str) -> None:
    told = {"ana@example.org": 1, value: 2, "x": 3}
    masked = redactor.record(ask(metadata=told))
    assert list(masked.metadata.values()) == [1, 2, 3]
    assert all(PLACEHOLDER.match(key) for key in list(masked.metadata)[:2])
    assert redactor.record(masked) is masked


def test_a_masked_key_does_not_drop_one_that_is_there(redactor: Redactor) -> None:
    (name,) = redactor.texts([MAIL])
    for told in ({MAIL: 1, name: 2}, {name: 1, MAIL: 2}):
        masked = redactor.record(ask(metadata=told))
        assert list(masked.metadata.values()) == [1, 2]


def test_embeddings_are_left_and_mixed_lists_are_not() -> None:
    found = Texts()
    value = {"a": [0.5] * 8, "b": [0.5, "x"], "c": [0.5, {"d": "y"}], "e": [0.5, 12345678]}
    assert with_texts(value, found, is_free=True) == value
    assert [text for text in found.texts if text not in value] == ["x", "d", "y", "12345678"]
    made = with_texts(value, OtherTexts(found.texts, ()), is_free=True)
    assert made == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A" * 256, True),
        ("A" * 255, False),
        ("A" * 300 + "==", True),
        ("A" * 76 * 4 + "\r\n" + "B" * 76, True),
        ("A" * 300 + " or not", False),
        ("A" * 300 + "." + "b", False),
        ("A" * 300 + "é", False),
        ("data:;base64,AAAA", True),
        ("data:image/png;base64,AAAA%3D%3D", True),
        ("data:image/png;base64,AAAA@x.org", False),
        ("data:text/plain,AAAA", False),
        ("", False),
    ],
)
def test_is_data_reads_to_the_end(text: str, expected: bool) -> None:
    assert is_data(text) is expected
