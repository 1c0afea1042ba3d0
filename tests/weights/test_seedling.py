"""The embedded base, as any other base is read."""

from __future__ import annotations

import pytest

from ownweights.core.project import Project
from ownweights.weights.base import EMBEDDED_DIR, SEEDLING, resolve_base
from ownweights.weights.load import load_model
from ownweights.weights.student import Student, assemble
from tests.tiny import ASSISTANT_ID, BOS_ID, END_ID, SYSTEM_ID, USER_ID


@pytest.fixture(scope="module")
def seedling() -> Student:
    return assemble(SEEDLING, load_model(EMBEDDED_DIR), EMBEDDED_DIR)


def test_seedling_is_found_from_any_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert resolve_base(Project(tmp_path_factory.mktemp("p")), SEEDLING) == EMBEDDED_DIR


def test_seedling_keeps_special_strings_plain(seedling: Student) -> None:
    words = seedling.tokenizer
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi <|end|>"}]
    assert seedling.template.render_prompt(messages) == [
        BOS_ID, SYSTEM_ID, *words.encode("be"), END_ID,
        USER_ID, *words.encode("hi <|end|>"), END_ID, ASSISTANT_ID,
    ]  # fmt: skip
    assert seedling.end_ids == {END_ID}


@pytest.mark.parametrize(
    "text", ['{"city":"Ankara","n":-12.5}', "Grüße 漢字 👩‍🚀\r\n\ttab", "<|user|>", ""]
)
def test_seedling_tokenizer_loses_nothing(seedling: Student, text: str) -> None:
    assert seedling.tokenizer.decode(seedling.tokenizer.encode(text)) == text
