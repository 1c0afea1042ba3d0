"""Every family against transformers: read from a hub folder, run, written, read there again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ownweights.core.errors import ContextTooLong
from ownweights.engine.lane import Lane, Sequence
from ownweights.engine.runner import Runner
from ownweights.model.config import parse_config, read_config
from ownweights.model.families import ALL
from ownweights.model.generate import generate
from ownweights.model.transformer import KVCache, Transformer
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from tests.families import (
    CASES,
    LENGTH,
    ORIGINAL,
    PROMPT,
    Case,
    parity,
    relative_error,
    rope,
    save_theirs,
    some_tokens,
    their_words,
)

# Two float32 implementations that sum in other orders; measured below 1e-5 (bench/family_parity).
LOGIT_TOLERANCE = 1e-4
FREQUENCY_TOLERANCE = 1e-6  # formed in float64 here and in float32 there

pytestmark = pytest.mark.oracle


def test_cases_hold_every_family() -> None:
    assert {case.model_type for case in CASES.values()} == {family.name for family in ALL}


@pytest.mark.parametrize("name", CASES)
def test_family_matches_transformers(name: str, tmp_path: Path) -> None:
    """Logits both ways, and greedy tokens of a cached text beyond every window."""
    found = parity(CASES[name], tmp_path)
    assert found.read <= LOGIT_TOLERANCE
    assert found.written <= LOGIT_TOLERANCE
    assert found.is_said_alike


@pytest.mark.parametrize("name", CASES)
def test_family_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    """transformers finds every weight of our export and nothing else; so do we."""
    from transformers import AutoModelForCausalLM

    save_theirs(CASES[name], tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours")
    assert read_config(tmp_path / "ours") == read_config(tmp_path / "theirs")
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    again = load_model(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[key], value) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("name", CASES)
def test_family_is_turned_alike_by_readers_of_the_old_spelling(name: str, tmp_path: Path) -> None:
    """training.md c.56: with `rope_parameters` taken away, what is left gives the frequencies."""
    from transformers import AutoConfig, AutoModelForCausalLM

    theirs = save_theirs(CASES[name], tmp_path)
    config = read_config(tmp_path)
    raw = config.to_hub()
    old = {key: value for key, value in raw.items() if key != "rope_parameters"}
    assert old["rope_theta"] == config.rope_theta
    assert parse_config(old) == config
    del old["architectures"]
    read = AutoModelForCausalLM.from_config(AutoConfig.for_model(old.pop("model_type"), **old))
    expected = dict(theirs.model.rotary_emb.named_buffers())
    found = dict(read.model.rotary_emb.named_buffers())
    assert found.keys() == expected.keys() and found
    for key, value in expected.items():
        assert torch.equal(found[key], value)
    assert_our_frequencies(load_model(tmp_path), expected)


def assert_our_frequencies(model: Transformer, theirs: dict[str, torch.Tensor]) -> None:
    tables = {"inv_freq": model.rope, "full_attention_inv_freq": model.rope}
    if model.local_rope is not None:
        tables["sliding_attention_inv_freq"] = model.local_rope
    for key, table in tables.items():
        if key in theirs:
            ours = table.frequencies(1)[0].float()
            assert torch.allclose(ours, theirs[key], rtol=FREQUENCY_TOLERANCE, atol=0)


ONE_OF_EACH = ("llama 3.1", "mistral", "qwen2 sliding", "qwen3", "gemma 2", "gemma 3", "phi 4 mini")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_engine_answers_as_transformers_does(name: str, tmp_path: Path) -> None:
    theirs = save_theirs(CASES[name], tmp_path)
    tokens = some_tokens(2, LENGTH)
    lane = Lane(Runner(load_model(tmp_path)), frozenset(), 4)
    sequence = Sequence(tokens[0, :PROMPT].tolist(), LENGTH - PROMPT)
    lane.add(sequence)
    lane.add(Sequence(tokens[1, : PROMPT + 9].tolist(), 20))
    while lane.has_work:
        lane.step()
    assert sequence.result.token_ids == their_words(theirs, tokens)


@pytest.mark.parametrize("length", [ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, LENGTH])
def test_dynamic_ntk_of_a_whole_pass_matches_transformers(length: int, tmp_path: Path) -> None:
    """Beyond the window each length has a base of its own; a cache is refused there."""
    from transformers import AutoModelForCausalLM

    case = Case("llama", {**rope("dynamic", factor=3.0), "max_position_embeddings": ORIGINAL})
    save_theirs(case, tmp_path)
    ours, tokens = load_model(tmp_path), some_tokens(2, length)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        found, expected = ours.logits(ours(tokens)), fresh(tokens).logits
    assert relative_error(found, expected) <= LOGIT_TOLERANCE
    if length > ORIGINAL:
        where = {"rows": torch.arange(2), "positions": torch.arange(length).expand(2, -1)}
        with pytest.raises(ContextTooLong):
            ours(tokens, cache=KVCache(ours.config, 2, length), **where)


@pytest.mark.parametrize("length", [ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, ORIGINAL + 9])
def test_longrope_of_a_whole_pass_matches_transformers(length: int, tmp_path: Path) -> None:
    theirs = save_theirs(CASES["phi 3 long"], tmp_path)
    ours, tokens = load_model(tmp_path), some_tokens(2, length)
    with torch.inference_mode():
        assert relative_error(ours.logits(ours(tokens)), theirs(tokens).logits) <= LOGIT_TOLERANCE


def test_gemma_3_reads_the_pattern_of_older_files(tmp_path: Path) -> None:
    save_theirs(CASES["gemma 3"], tmp_path)
    raw: dict[str, Any] = json.loads((tmp_path / "config.json").read_text("utf-8"))
    config = parse_config(raw)
    assert config.variant.sliding_layers == (True, True, False, True)
    older = {key: value for key, value in raw.items() if key != "layer_types"}
    assert parse_config({**older, "sliding_window_pattern": 3}) == config


def test_generate_beyond_the_last_position_is_refused(tmp_path: Path) -> None:
    save_theirs(CASES["llama dynamic"], tmp_path)
    model = load_model(tmp_path)
    window = model.config.max_position_embeddings
    with pytest.raises(ContextTooLong):
        generate(model, [5] * window, max_tokens=1)
