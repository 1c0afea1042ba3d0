"""The error tree: what each error carries, says, and exits with."""

from __future__ import annotations

import pickle
import re

import pytest

from ownweights.core import errors
from ownweights.core.errors import (
    ArtefactError,
    ArtefactMissing,
    ArtefactUnwritten,
    CompleterError,
    CompleterGarbled,
    CompleterRefused,
    CompleterTimeout,
    ContextTooLong,
    Ineligible,
    Inexpressible,
    InputError,
    InvalidJudge,
    ModelError,
    OwnError,
    PortInUse,
    RankError,
    SettingsError,
    StoreError,
    TermsRefused,
    UpdateLost,
    UsageError,
    WontFit,
    nearest,
)

EXAMPLES: list[OwnError] = [
    UsageError("two flags exclude each other"),
    SettingsError("unknown key", hint="did you mean 'port'?"),
    InputError("expected an object", where="a.jsonl:3"),
    Inexpressible("logit_bias", "Messages has no bias by token"),
    ArtefactError("a file is missing"),
    ArtefactMissing("there is no such student"),
    ArtefactUnwritten("the disk is full"),
    StoreError("the store is locked"),
    TermsRefused("denied", teachers=("gpt-x",), hint="--allow-teacher gpt-x"),
    ModelError("unknown rope type"),
    WontFit("too much", needed_bytes=9, free_bytes=3, hint="set rows_per_step = 8"),
    UpdateLost("bfloat16 keeps a tenth of it", cosine=0.1, hint="--dtype float32"),
    RankError("process 0 of 2 lost another one"),
    ContextTooLong(1200, 1024),
    CompleterError("connection lost"),
    CompleterTimeout("no answer within 2 s"),
    CompleterRefused("busy", status=503, body=b"{}"),
    CompleterGarbled("not JSON"),
    Ineligible("tools", "the student calls no tools"),
    InvalidJudge("it prefers length", reasons=("padded: 12 errors in 40",)),
    PortInUse("127.0.0.1:8080 is taken"),
]
STDLIB = {
    UsageError: ValueError,
    SettingsError: ValueError,
    InputError: ValueError,
    Inexpressible: InputError,
    ArtefactError: ValueError,
    ArtefactMissing: FileNotFoundError,
    ArtefactUnwritten: OSError,
    StoreError: RuntimeError,
    TermsRefused: PermissionError,
    ModelError: ValueError,
    WontFit: RuntimeError,
    UpdateLost: ModelError,
    RankError: RuntimeError,
    ContextTooLong: ValueError,
    CompleterError: RuntimeError,
    CompleterTimeout: TimeoutError,
    CompleterGarbled: ValueError,
    Ineligible: ValueError,
    InvalidJudge: ValueError,
    PortInUse: OSError,
}


def tree(kind: type[OwnError]) -> set[type[OwnError]]:
    return {kind}.union(*(tree(child) for child in kind.__subclasses__()))


def test_error_examples_cover_the_tree() -> None:
    ours = {kind for kind in tree(OwnError) if kind.__module__ == errors.__name__}
    assert {type(example) for example in EXAMPLES} == ours - {OwnError}


def test_error_tree_is_drawn_in_the_docstring() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    ours = {kind.__name__ for kind in tree(OwnError) if kind.__module__ == errors.__name__}
    assert drawn == ours - {"OwnError"}


@pytest.mark.parametrize(("kind", "refined"), STDLIB.items(), ids=lambda kind: kind.__name__)
def test_error_refines_a_stdlib_class(kind: type[OwnError], refined: type[Exception]) -> None:
    assert issubclass(kind, OwnError)
    assert issubclass(kind, refined)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickling(error: OwnError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_exit_code_is_one_of_the_table(error: OwnError) -> None:
    usage, refused = {UsageError, SettingsError}, {TermsRefused, UpdateLost, WontFit}
    undecided = 3 if type(error) is InvalidJudge else 1
    expected = 2 if type(error) in usage else 4 if type(error) in refused else undecided
    assert error.exit_code == expected


def test_error_message_ends_with_the_hint() -> None:
    assert str(SettingsError("unknown key", hint="try port")) == "unknown key\nhint: try port"
    assert str(SettingsError("unknown key")) == "unknown key"


def test_input_error_says_where() -> None:
    error = InputError("expected an object", where="a.jsonl:3", hint="look at line 3")
    assert str(error) == "a.jsonl:3: expected an object\nhint: look at line 3"
    assert error.where == "a.jsonl:3"


def test_context_too_long_names_both_sizes() -> None:
    error = ContextTooLong(1200, 1024)
    assert (error.prompt_tokens, error.max_tokens) == (1200, 1024)
    assert error.what == "the prompt has 1200 tokens, the model's window holds 1024"


def test_errors_carry_their_data() -> None:
    refused = CompleterRefused("busy", status=503, body=b"{}")
    assert (refused.status, refused.body) == (503, b"{}")
    assert TermsRefused("denied", teachers=("a", "b")).teachers == ("a", "b")
    assert Ineligible("tools", "no tools").field == "tools"
    assert InvalidJudge("no", reasons=("a", "b"), hint="c").reasons == ("a", "b")
    assert str(InvalidJudge("no", reasons=("a", "b"), hint="c")) == "no\n  - a\n  - b\nhint: c"


@pytest.mark.parametrize(
    ("word", "expected"), [("prot", "port"), ("hosst", "host"), ("zebra", None), ("", None)]
)
def test_nearest_finds_a_similar_name_or_none(word: str, expected: str | None) -> None:
    assert nearest(word, ["host", "port", "timeout_s"]) == expected
