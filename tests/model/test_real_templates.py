"""Templates of the hub itself, as llama.cpp's source package carries them; they are their makers',
so they are read where somebody put them, in build/peers/chat_templates or chat_templates in the
folder of public data, and never kept here.

    pip download --no-deps --no-binary :all: llama-cpp-python
    (then vendor/llama.cpp/models/templates in the archive)
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import Ineligible
from ownweights.model.probe import probe_template
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from tests.model.words import save_words, tokenizer_of

DATA = os.environ.get("PYTEST_OWN_TEST_DATA")
FOLDERS = [Path(__file__).parents[2] / "build" / "peers", *([Path(DATA)] if DATA else [])]
FOUND = sorted(path for folder in FOLDERS for path in folder.glob("chat_templates/*.jinja"))
MARKS = re.compile(
    r"<[|｜][^<>\s'\"{}]{1,40}[|｜]>|\[/?[A-Z_]{3,}\]|</?(?:start_of_turn|end_of_turn|turn)\|?>"
)
# Families whose every probe must pass; of others it is said what fails.
SOUND = (
    "Qwen-Qwen2.5", "Qwen-Qwen3", "Qwen3", "meta-llama", "google-gemma-2", "microsoft-Phi",
    "mistralai-Mistral", "Mistral-Small", "HuggingFaceTB-SmolLM3", "ibm-granite",
)  # fmt: skip
ASKED = [{"role": "user", "content": "What is it? Größe 7"}]
TALK = [*ASKED, {"role": "assistant", "content": "Nine."}, {"role": "user", "content": "Sure?"}]
ANSWER = 'Quite sure: {"n": 9}\n'
needs_templates = pytest.mark.skipif(
    not FOUND, reason="no chat templates of the hub in build/peers/chat_templates"
)


def load(path: Path, folder: Path) -> ChatTemplate:
    """A template with a vocabulary that has the special tokens which it writes."""
    source = path.read_text("utf-8")
    names = dict.fromkeys(found.group() for found in MARKS.finditer(source))
    words = tokenizer_of("bytes", ["<s>", "</s>", *names], ["<think>", "</think>"])
    save_words(folder, words, bos_token="<s>", eos_token="</s>", chat_template=source)
    return ChatTemplate.load(folder, Tokenizer.load(folder))


@needs_templates
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_real_template_trains_what_it_serves(path: Path, tmp_path: Path) -> None:
    """training.md c.8, c.9, c.12 to c.16, on the hub's own templates."""
    template = load(path, tmp_path)
    for asked in (ASKED, TALK):
        try:
            served = template.render_prompt(asked)
        except Ineligible:
            pytest.skip("the template is for requests with tools alone")
        made = template.render(asked, ANSWER, all_turns=True)
        assert made.mask is not None
        assert made.ids[: made.num_prompt] == served
        assert made.ids[-1] == template.end_id and made.mask[-1]
        assert template.tokenizer.decode(made.ids[made.num_prompt : -1]) == ANSWER
        assert served[:2].count(template.tokenizer.bos_id) <= 1
        told = sum(made.mask[: made.num_prompt])
        assert (told > 0) == (asked is TALK and not made.untrained_turns)


@needs_templates
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_real_template_is_sound_or_says_why(path: Path, tmp_path: Path) -> None:
    template = load(path, tmp_path)
    failed = {one.what for one in probe_template(template) if one.state == "failed"}
    assert failed <= {"user", "prompt", "end", "history"}
    if path.stem.startswith(SOUND):
        assert failed == set()


@pytest.mark.oracle
@needs_templates
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_real_template_matches_transformers(path: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    template = load(path, tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    told: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": False}
    try:
        text = template.render_text(TALK)
    except Ineligible:
        with pytest.raises(Exception):  # noqa: B017, PT011  # jinja's own, of several kinds
            theirs.apply_chat_template(TALK, tokenize=False, **told)
        return
    if template.uses_date:
        pytest.skip("transformers writes today's date")
    assert theirs.apply_chat_template(TALK, tokenize=False, **told) == text
    ids = theirs.apply_chat_template(TALK, return_dict=False, **told)
    while ids[:2] == [template.tokenizer.bos_id] * 2:
        ids = ids[1:]
    assert template.form.opening or template.render_prompt(TALK) == ids
