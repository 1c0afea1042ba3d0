"""Functions that find names: what they may give, what they may not, and what is made of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError, SettingsError
from ownweights.core.project import Project
from ownweights.traffic.record import make_record
from ownweights.traffic.redact import (
    PATTERN_KINDS,
    Placeholders,
    Privacy,
    PrivacyRules,
    Redactor,
    load_recogniser,
)
from ownweights.traffic.redact.placeholder import PLACEHOLDER

MODULE = "finds_names_oddly"
Pairs = Sequence[tuple[int, int]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Loads a recogniser whose body is this code, with `text` to look at."""

    def loaded(body: str) -> Any:
        (tmp_path / f"{MODULE}.py").write_text(f"def find(text):\n    {body}\n")
        return load_recogniser(f"{MODULE}:find", tmp_path)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield loaded
    sys.modules.pop(MODULE, None)


def named(project: Project, pairs: Pairs, text: str, kinds: tuple[str, ...] = ("name",)) -> str:
    """The text, masked, where just these are names in it."""
    redactor = Redactor(
        kinds, Placeholders(project), recogniser=lambda seen: pairs if seen == text else ()
    )
    return redactor.texts([text])[0]


@pytest.mark.parametrize(
    "gives",
    [
        "None", "7", "[7]", "[None]", "['ab']", "[(0,)]", "[(0, 1, 2)]", "[(0.0, 1.0)]",
        "[('0', '1')]", "[(True, 2)]", "[(-1, 2)]", "[(2, 1)]", "[(1, 1)]", "[(0, len(text) + 1)]",
        "[(0, 10**30)]", "[{0, 1}]", "[{0: 1, 1: 2}]", "'ab'", "[(0, 1), (5, 99)]",
        "{'start': 0}", "[[(0, 1)]]", "(1 / 0 for _ in text)", "[range(0, 2)]",
    ],
)  # fmt: skip
def test_recogniser_that_gives_no_spans_is_refused(
    load: Callable[[str], Any], project: Project, gives: str
) -> None:
    redactor = Redactor(("name",), Placeholders(project), recogniser=load(f"return {gives}"))
    with pytest.raises(InputError, match=rf"recognizer {MODULE}:find") as raised:
        redactor.texts(["Ana Diaz"])
    assert "Ana" not in str(raised.value) and raised.value.__cause__ is None


@pytest.mark.parametrize(
    "error", ["ValueError(text)", "KeyError(text)", "RecursionError(text)", "MemoryError(text)",
              "UnicodeDecodeError('utf-8', text.encode(), 0, 1, text)", "StopIteration(text)"],
)  # fmt: skip
def test_recogniser_that_raises_tells_the_kind_of_error_alone(
    load: Callable[[str], Any], project: Project, error: str
) -> None:
    redactor = Redactor(("name",), Placeholders(project), recogniser=load(f"raise {error}"))
    with pytest.raises(InputError, match=f"raised {error.split('(', maxsplit=1)[0]}") as raised:
        redactor.texts(["Ana Diaz"])
    assert "Diaz" not in str(raised.value) and raised.value.__suppress_context__


@pytest.mark.parametrize(
    "gives", ["()", "[]", "iter([(0, 3)])", "[[0, 3]]", "{(0, 3)}", "((a, a + 3) for a in [0])"]
)
def test_recogniser_may_give_any_iterable(
    load: Callable[[str], Any], project: Project, gives: str
) -> None:
    redactor = Redactor(("name",), Placeholders(project), recogniser=load(f"return {gives}"))
    (masked,) = redactor.texts(["Ana Diaz"])
    assert masked == "Ana Diaz" if gives in ("()", "[]") else masked.endswith("> Diaz")


def test_recogniser_never_sees_an_empty_text_or_a_joint(project: Project) -> None:
    seen: list[str] = []

    def watch(text: str) -> Pairs:
        seen.append(text)
        return ()

    redactor = Redactor(("name",), Placeholders(project), recogniser=watch)
    request = {"messages": [{"role": "user", "content": "Ana"}, {"role": "user", "content": ""}]}
    redactor.record(make_record(request, None, role="teacher", metadata={"who": "Diaz"}))
    assert seen == ["Ana", "who", "Diaz"]


def test_recogniser_is_not_asked_where_no_names_are_masked(project: Project) -> None:
    def never(text: str) -> Pairs:
        raise AssertionError(text)

    redactor = Redactor(PATTERN_KINDS, Placeholders(project), recogniser=never)
    assert redactor.texts(["Ana"]) == ["Ana"]


@pytest.mark.parametrize(
    ("pairs", "left"),
    [
        ([(0, 8), (4, 15)], " x"),  # the shorter begins
        ([(0, 11), (9, 15)], " x"),
        ([(4, 15), (0, 8)], " x"),  # in no order
        ([(0, 3), (0, 3)], " Diaz Romero x"),
        ([(0, 15), (4, 8)], " x"),  # one in the other
        ([(0, 3), (3, 8)], " Romero x"),  # side by side
        ([(0, 4), (4, 9)], " Romero x"),
        ([(0, 9)], " Romero x"),  # with a space
        ([(3, 4)], "Ana Diaz Romero x"),  # nothing but a space
        ([(0, 17)], ""),
    ],
)
def test_names_that_overlap_leave_nothing_of_either(
    project: Project, pairs: Pairs, left: str
) -> None:
    masked = named(project, pairs, "Ana Diaz Romero x")
    assert PLACEHOLDER.sub("", masked).strip() == left.strip()


def test_what_a_name_shares_with_an_address_is_masked_on_both_sides(project: Project) -> None:
    text = "Ana Diaz ana@example.org Romero"
    for pairs in ([(0, 31)], [(0, 12), (15, 31)], [(0, 24), (9, 31)]):
        masked = named(project, pairs, text, ("name", "email"))
        assert [name[1:5] for name in PLACEHOLDER.findall(masked)] == ["NAME", "EMAI", "NAME"]
        assert PLACEHOLDER.sub("", masked).split() == []


def test_names_found_in_one_text_overlap_those_repeated_from_another(project: Project) -> None:
    """`Diaz Romero`, told elsewhere, is longer than `Ana Diaz`, which still leaves no Ana."""
    texts = {"Ana Diaz Romero": [(0, 8)], "so Diaz Romero": [(3, 14)]}
    redactor = Redactor(("name",), Placeholders(project), recogniser=lambda text: texts[text])
    masked = "".join(redactor.texts(list(texts)))
    assert PLACEHOLDER.sub("", masked).split() == ["so"]


def test_recogniser_that_says_all_is_a_name_leaves_placeholders(project: Project) -> None:
    def all_of_it(text: str) -> Pairs:
        return [(0, len(text))]

    redactor = Redactor((*PATTERN_KINDS, "name"), Placeholders(project), recogniser=all_of_it)
    texts = ["Ana", "  ", "?", "to ana@example.org, Ana", "<EMAIL_aaaaaaaaaa>", "naïve 東京 Ж"]
    once = redactor.texts(texts)
    assert once[1:3] == ["  ", "?"] and once[4] == "<EMAIL_aaaaaaaaaa>"
    assert not any(map(str.isalnum, "".join(PLACEHOLDER.sub("", text) for text in once)))
    assert redactor.texts(once) == once


WORDS = ["Ana", "Diaz", "Ana Diaz", " ", ", ", "ana@example.org", "203.0.113.77", "x", "é", "\n",
         "<NAME_aaaaaaaaaa>", "4111 1111 1111 1111", "\0", "Anatol"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.data())
def test_no_letter_of_a_name_always_stays(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], data: st.DataObject
) -> None:
    """Against brute force: every character that somebody said to be a name's is gone."""
    text = "".join(words)
    ends = st.integers(0, len(text))
    drawn = data.draw(st.lists(st.tuples(ends, ends), max_size=5))
    pairs = [(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]]
    marked = {place for start, end in pairs for place in range(start, end)}
    for match in PLACEHOLDER.finditer(text):
        marked -= set(range(*match.span()))
    # a letter that nothing else here has stands for what is a name's, so that it can be looked for
    told = "".join(
        "\u4e00" if place in marked and char.isalnum() else char for place, char in enumerate(text)
    )
    project = Project(tmp_path_factory.getbasetemp() / "names")
    masked = named(project, pairs, told, ("name", "email", "ip", "card"))
    assert "\u4e00" not in masked


def test_recogniser_of_a_workload_is_that_of_the_store(project: Project) -> None:
    project.root.mkdir(parents=True, exist_ok=True)
    (project.root / f"{MODULE}.py").write_text("def find(text):\n    return [(0, 3)]\n")
    rules = PrivacyRules(
        redact=("key",), recognizer=f"{MODULE}:find", workload_redact={"named": ("name",)}
    )
    try:
        privacy = Privacy(project, rules)
    finally:
        sys.modules.pop(MODULE, None)
    request = {"messages": [{"role": "user", "content": "Ana asks"}]}
    for workload, is_masked in (("named", True), ("other", False)):
        record = make_record(request, None, role="teacher", workload=workload)
        assert (privacy.record(record) is not record) is is_masked


@pytest.mark.parametrize(
    "entry",
    ["", ":", "a:", ":b", "a:b:c", "a.b", "a..b:c", "1a:b", "a:b()", "../a:b", "a/b:c", "a:b\n"],
)
def test_recogniser_must_be_a_module_and_a_function(tmp_path: Path, entry: str) -> None:
    with pytest.raises(SettingsError, match=r"expected package\.module:function"):
        load_recogniser(entry, tmp_path)


def test_recogniser_that_cannot_be_imported_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text("raise OSError('no model here')\n")
    before = list(sys.path)
    with pytest.raises(SettingsError, match=r"cannot be imported: OSError: no model here"):
        load_recogniser(f"{MODULE}:find", tmp_path)
    assert sys.path == before
