"""The embedded base: whatever version of it ships, it is there, small, and speaks our format."""

from __future__ import annotations

import pytest

from ownweights.core.project import Project
from ownweights.weights.base import EMBEDDED_DIR, SEEDLING, resolve_base
from ownweights.weights.load import load_model
from ownweights.weights.student import Student, assemble
from tests.tiny import ASSISTANT_ID, BOS_ID, END_ID, SYSTEM_ID, USER_ID

MAX_BYTES = 25 << 20


@pytest.fixture(scope="module")
def seedling() -> Student:
    return assemble(SEEDLING, load_model(EMBEDDED_DIR), EMBEDDED_DIR)


def test_seedling_is_found_from_any_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert resolve_base(Project(tmp_path_factory.mktemp("p")), SEEDLING) == EMBEDDED_DIR


def test_seedling_is_small() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_DIR.rglob("*")) <= MAX_BYTES


def test_seedling_has_room_for_a_conversation(seedling: Student) -> None:
    config = seedling.model.config
    assert config.max_position_embeddings >= 1024
    assert config.vocab_size <= 8192
    assert 4e6 <= sum(p.numel() for p in seedling.model.parameters()) <= 13e6


def test_seedling_speaks_our_format(seedling: Student) -> None:
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
