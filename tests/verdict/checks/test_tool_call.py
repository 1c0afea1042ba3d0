"""Functions called: name and arguments, in OpenAI's form."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.chat import Completion
from ownweights.verdict.checks import check_named, judged_text
from ownweights.verdict.checks.tool_call import Message, ToolCallCheck, read_message

CHECK = ToolCallCheck()


def call(name: str, arguments: Any, id: str = "call_1") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def message(*calls: dict[str, Any], content: str | None = None) -> str:
    return json.dumps({"role": "assistant", "content": content, "tool_calls": list(calls)})


@pytest.mark.parametrize(
    ("answer", "reference", "harm"),
    [
        (message(call("f", {"a": 1})), message(call("f", {"a": 1}, "other")), 0.0),
        (message(call("f", {"a": 1})), message(call("f", {"a": 1}), content="I will"), 0.0),
        (message(call("f", {"a": 1})), message(call("f", {"a": 2})), 1.0),
        (message(call("f", {"a": 1})), message(call("g", {"a": 1})), 1.0),
        (message(call("f", "")), message(call("f", "{}")), 0.0),
        (message(call("f", {"a": 1})), '[{"name": "f", "arguments": {"a": 1.0}}]', 0.0),
        (message(call("f", {})), message(call("f", {}), call("g", {})), 1.0),
        (message(call("f", {}), call("g", {})), message(call("g", {}), call("f", {})), 1.0),
        (message(call("f", "{not json")), message(call("f", {})), 1.0),
        (message(call("f", "[1]")), message(call("f", {})), 1.0),
        (message(call("f", {})), message(call("f", "{not json")), None),
        ('{"function_call": {"name": "f", "arguments": "{}"}}', message(call("f", {})), 0.0),
        ("plain words", message(call("f", {})), 1.0),
        ("plain words", "plain words", None),
        (message(content="words"), message(content="words"), None),
        ('{"tool_calls": "no list"}', message(call("f", {})), 1.0),
        ('{"f": {}}', message(call("f", {})), 1.0),  # JSON, but words
        ("", message(call("f", {})), 1.0),
        (message(), message(call("f", {})), 1.0),
        (message(call("f", {})), message(), None),  # the teacher said nothing at all
    ],
)
def test_tool_call_compares_names_and_arguments(
    answer: str, reference: str, harm: float | None
) -> None:
    assert CHECK.harm(answer, [reference]) == harm


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.text(max_size=2))))
def test_tool_call_is_blind_to_the_spelling_of_arguments(arguments: dict[str, Any]) -> None:
    backwards = dict(reversed(arguments.items()))
    other = message(call("f", json.dumps(backwards, indent=3)))
    assert CHECK.harm(message(call("f", arguments)), [other]) == 0.0


@given(st.permutations(range(4)))
def test_tool_call_in_any_order(order: list[int]) -> None:
    calls = [call("f", {"a": number // 2}) for number in range(4)]
    shuffled = message(*(calls[i] for i in order))
    assert ToolCallCheck(any_order=True).harm(shuffled, [message(*calls)]) == 0.0
    other = [*calls[:3], call("f", {"a": 9})]
    assert ToolCallCheck(any_order=True).harm(shuffled, [message(*other)]) == 1.0


@pytest.mark.parametrize(
    ("options", "left", "right", "harm"),
    [
        ("ignore=id", {"id": 1, "x": 1}, {"id": 2, "x": 1}, 0.0),
        ("unordered=days", {"days": [1, 2]}, {"days": [2, 1]}, 0.0),
        ("tolerance=0.1", {"x": 1.05}, {"x": 1}, 0.0),
        ("relative=0.1", {"x": 120}, {"x": 100}, 1.0),
    ],
)
def test_tool_call_compares_arguments_as_json_does(
    options: str, left: Any, right: Any, harm: float
) -> None:
    check = check_named(f"tool_call {options}")
    assert check.harm(message(call("f", left)), [message(call("f", right))]) == harm


@pytest.mark.parametrize(
    ("words", "same", "other"),
    [("unjudged", None, None), ("ignored", 0.0, 0.0), ("same", 0.0, 1.0)],
)
def test_tool_call_judges_words_as_told(
    words: str, same: float | None, other: float | None
) -> None:
    check = ToolCallCheck(words=words)
    assert check.harm("Which day?", [message(content="Which day?")]) == same
    assert check.harm("No.", ["Which day?"]) == other


@pytest.mark.parametrize("words", ["unjudged", "ignored", "same"])
def test_tool_call_and_words_never_agree(words: str) -> None:
    check = ToolCallCheck(words=words)
    assert check.harm(message(call("f", {})), ["words"]) == 1.0
    assert check.harm("words", [message(call("f", {}))]) == 1.0


def test_tool_call_with_several_references() -> None:
    one, two = message(call("f", {})), message(call("g", {}))
    assert CHECK.harm(one, [two, one]) == 0.0
    assert CHECK.harm(one, [two, message(call("f", "{"))]) is None
    assert CHECK.harm(one, [two, "words"]) == 1.0
    assert CHECK.harm("words", [two, "words"]) is None


def test_judged_text_is_the_text_or_the_whole_message() -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [call("f", {"a": 1})]}
    done = Completion(None, "tool_calls", message=said)
    assert judged_text(check_named("exact"), done) is None
    assert CHECK.harm(judged_text(CHECK, done), [message(call("f", {"a": 1}))]) == 0.0
    spoken = Completion('[{"name": "f", "arguments": {}}]', "stop")
    assert judged_text(check_named("json"), spoken) == spoken.text
    # a call written down as words calls nothing
    text = judged_text(CHECK, spoken)
    assert text is not None and read_message(text) == Message(spoken.text or "")
    assert CHECK.harm(text, [message(call("f", {}))]) == 1.0


def test_tool_call_on_recorded_turns(test_data: Path) -> None:
    with gzip.open(
        test_data / "traffic" / "airline-gpt4o.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        messages = [json.loads(line)["response"]["choices"][0]["message"] for line in file]
    read = [read_message(json.dumps(one)) for one in messages]
    assert None not in read
    assert [bool(r and r.calls) for r in read] == [bool(m.get("tool_calls")) for m in messages]
    called = [json.dumps(one) for one in messages if one.get("tool_calls")]
    assert len(called) == 1039
    assert all(CHECK.harm(one, [one]) == 0.0 for one in called)
    # our equality against Python's own, of each call with the next
    pairs = list(itertools.pairwise(called))
    ours = [CHECK.harm(*(one, [other])) == 0.0 for one, other in pairs]
    assert ours == [_plain(one) == _plain(other) for one, other in pairs]
    assert 0 < sum(ours) < len(ours)


def _plain(text: str) -> Any:
    calls = json.loads(text)["tool_calls"]
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


def test_tool_call_on_function_calling_questions(test_data: Path) -> None:
    path = test_data / "bfcl" / "answer_BFCL_v4_simple_python.json"
    lines = path.read_text("utf-8").splitlines()
    golds = [json.loads(line)["ground_truth"] for line in lines]
    wrong_names = wrong_values = 0
    for gold in golds:
        ((name, options),) = gold[0].items()
        references = [json.dumps([{"name": name, "arguments": a}]) for a in _choices(options)]
        for reference in references:
            assert CHECK.harm(reference, references) == 0.0
        first = json.loads(references[0])[0]
        renamed = message(call(f"{name}_", first["arguments"]))
        wrong_names += CHECK.harm(renamed, references) == 1.0
        spoiled = {**first["arguments"], "surplus": 1}
        wrong_values += CHECK.harm(message(call(name, spoiled)), references) == 1.0
    assert (len(golds), wrong_names, wrong_values) == (400, 400, 400)


def _choices(options: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Some of the argument lists that a gold call allows: "" means that one may be left out."""
    found = itertools.islice(itertools.product(*options.values()), 20)
    return [
        {key: value for key, value in zip(options, values, strict=True) if value != ""}
        for values in found
    ]
