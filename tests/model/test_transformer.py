"""The network against transformers, against itself in other cuts, and against causality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core.errors import ContextTooLong
from ownweights.model.attention import Attention
from ownweights.model.generate import generate
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import KVCache, Transformer, initialise
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from tests.tiny import CONFIG, VOCAB_SIZE, tiny_model
from tests.variants import BORDER, LONG, VARIANTS

# Two float32 implementations that sum in other orders differ by a few 1e-6 of the greatest logit.
LOGIT_TOLERANCE = 1e-4
CUT_TOLERANCE = 1e-5

SHAPES: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4},
    "mqa": {"num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False},
    "odd_head": {"head_dim": 10, "hidden_size": 36},
    "wide_heads": {"head_dim": 24},
    "theta": {"rope_theta": 5e5, "rms_norm_eps": 1e-6},
    "one_layer": {"num_hidden_layers": 1, "intermediate_size": 33},
    **VARIANTS,
}


def some_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=generator)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def all_logits(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    return model.logits(model(tokens))


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_match_transformers(shape: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny_model(seed=3, **SHAPES[shape])
    save_model(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = some_tokens(3, 40)
    with torch.inference_mode():
        expected = theirs(tokens).logits
    assert relative_error(all_logits(model, tokens), expected) <= LOGIT_TOLERANCE
    prompt = tokens[0, :7].tolist()
    said = theirs.generate(
        tokens[:1, :7], max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert generate(model, prompt, max_tokens=30).token_ids == said[0, 7:].tolist()


@pytest.mark.oracle
def test_logits_match_transformers_on_a_real_checkpoint(test_data: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = test_data / "lm_stories260k" / "hf"
    model, theirs = load_model(folder), AutoModelForCausalLM.from_pretrained(folder)
    bos, words = 1, Tokenizer.load(folder)
    prompt = [bos, *words.encode("Once upon a time, there was a little girl")]
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt])).logits
    assert relative_error(all_logits(model, torch.tensor([prompt])), expected) <= LOGIT_TOLERANCE
    # id 1 separates stories; id 2, the nominal end token, was never trained
    said = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=150, do_sample=False, eos_token_id=bos,
        pad_token_id=0,
    )  # fmt: skip
    ours = generate(model, prompt, max_tokens=150, end_ids={bos})
    assert ours.token_ids == said[0, len(prompt) :].tolist()


def test_real_checkpoint_tells_a_story(test_data: Path) -> None:
    folder = test_data / "lm_stories260k" / "hf"
    model, words = load_model(folder), Tokenizer.load(folder)
    prompt = [1, *words.encode("Once upon a time, there was a little girl")]
    said = words.decode(generate(model, prompt, max_tokens=16, end_ids={1}).token_ids)
    assert said.startswith("named Lily. She loved to play outside")


def test_logits_see_nothing_of_what_comes_later() -> None:
    model, tokens = tiny_model(), some_tokens(1, 12)
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % VOCAB_SIZE
    before, after = all_logits(model, tokens), all_logits(model, changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=CUT_TOLERANCE)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=CUT_TOLERANCE)


def test_right_padding_changes_nothing() -> None:
    model, tokens = tiny_model(), some_tokens(1, 9)
    padded = torch.cat([tokens, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    alone, together = all_logits(model, tokens), all_logits(model, padded)[:, :9]
    assert torch.allclose(alone, together, atol=CUT_TOLERANCE)


@settings(max_examples=40)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    seed=st.integers(0, 5),
)
def test_cache_always_equals_full_pass(shape: str, cuts: list[int], seed: int) -> None:
    """Whatever the chunks in which two rows arrive, the hidden states are those of one pass."""
    model = tiny_model(seed, **SHAPES[shape])
    tokens = some_tokens(2, sum(cuts), seed)
    cache = KVCache(model.config, 2, sum(cuts) + 3)
    pieces, at = [], 0
    with torch.inference_mode():
        whole = model(tokens)
        for size in cuts:
            end = at + size
            positions = torch.arange(at, end).expand(2, -1)
            place = {"cache": cache, "rows": torch.arange(2), "positions": positions}
            pieces.append(model(tokens[:, at:end], visible=end, **place))
            at = end
    assert relative_error(torch.cat(pieces, dim=1), whole) <= CUT_TOLERANCE


def test_cache_rows_are_apart() -> None:
    """Rows of other lengths, in any order, read as each would alone."""
    model = tiny_model()
    tokens = [some_tokens(1, 5, 1), some_tokens(1, 8, 2)]
    cache = KVCache(model.config, 4, 16)
    with torch.inference_mode():
        for row, prompt in ((3, tokens[0]), (1, tokens[1])):
            positions = torch.arange(prompt.shape[1])[None]
            model(prompt, cache=cache, rows=torch.tensor([row]), positions=positions)
        new = torch.tensor([[9], [11]])
        together = model(
            new, cache=cache, rows=torch.tensor([3, 1]), positions=torch.tensor([[5], [8]])
        )
        for index in range(2):
            alone = model(torch.cat([tokens[index], new[index : index + 1]], dim=1))
            assert relative_error(together[index], alone[0, -1:]) <= CUT_TOLERANCE


def test_transformer_has_the_hubs_names() -> None:
    names = set(tiny_model().state_dict())
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert "model.layers.1.post_attention_layernorm.weight" in names
    assert "lm_head.weight" not in names
    assert "lm_head.weight" in tiny_model(tie_word_embeddings=False).state_dict()
    assert not any("rope" in name for name in names)


def test_initialise_is_decided_by_its_seed() -> None:
    models = [Transformer(CONFIG) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, seed)
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    embedding = "model.embed_tokens.weight"
    assert not torch.equal(first[embedding], other[embedding])


def test_initialise_shrinks_what_is_added_to_the_stream() -> None:
    model = Transformer(CONFIG)
    initialise(model, 0)
    layer = model.model.layers[0]
    with torch.no_grad():
        ratio = layer.mlp.down_proj.weight.std() / layer.mlp.up_proj.weight.std()
    assert float(ratio) == pytest.approx((2 * CONFIG.num_hidden_layers) ** -0.5, rel=0.1)
    assert torch.all(layer.input_layernorm.weight == 1)


@pytest.mark.parametrize("shape", VARIANTS)
def test_generate_of_every_variant_is_the_same_without_a_cache(shape: str) -> None:
    model = tiny_model(seed=4, **VARIANTS[shape])
    prompt = some_tokens(1, 5)[0].tolist()
    cached = generate(model, prompt, max_tokens=25)
    assert cached.token_ids == generate(model, prompt, max_tokens=25, use_cache=False).token_ids


@pytest.mark.parametrize("length", [3, BORDER - 1, BORDER, BORDER + 1, BORDER + 5])
def test_generate_reads_a_text_again_that_grows_past_the_border(length: int) -> None:
    """Beyond it longrope turns every key by other frequencies; once read anew, a cache is exact."""
    model = tiny_model(seed=4, **LONG)
    prompt = some_tokens(1, length)[0].tolist()
    cached = generate(model, prompt, max_tokens=25)
    assert cached.token_ids == generate(model, prompt, max_tokens=25, use_cache=False).token_ids


def test_cache_refuses_to_grow_past_the_border() -> None:
    model, tokens = tiny_model(**LONG), some_tokens(1, BORDER + 1)
    cache = KVCache(model.config, 1, 32)
    where = {"cache": cache, "rows": torch.tensor([0])}
    with torch.inference_mode():
        model(tokens[:, :BORDER], positions=torch.arange(BORDER)[None], **where)
        with pytest.raises(AssertionError, match="read again from its start"):
            model(tokens[:, BORDER:], positions=torch.tensor([[BORDER]]), **where)


def test_dynamic_ntk_refuses_a_cache_beyond_the_window() -> None:
    """A whole pass goes on with another base; a cache would hold keys of several."""
    model = tiny_model(max_position_embeddings=16, **VARIANTS["dynamic"])
    plain = tiny_model(max_position_embeddings=16)
    tokens = some_tokens(1, 20)
    within, beyond = tokens[:, :16], tokens
    assert torch.equal(all_logits(model, within), all_logits(plain, within))
    assert not torch.allclose(all_logits(model, beyond), all_logits(plain, beyond), atol=1e-3)
    cache = KVCache(model.config, 1, 32)
    with pytest.raises(ContextTooLong, match="has 17 tokens, the model's window holds 16"):
        model(tokens[:, :17], cache=cache, rows=torch.tensor([0]), positions=torch.arange(17)[None])


def test_whole_pass_masks_only_what_windows_hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text within the window, and every text of a plain network, takes the causal path."""
    masks: list[torch.Tensor | None] = []
    attend = Attention.attend

    def spied(self: Attention, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        masks.append(args[3] if len(args) > 3 else kwargs.get("mask"))
        return attend(self, *args, **kwargs)

    monkeypatch.setattr(Attention, "attend", spied)
    all_logits(tiny_model(), some_tokens(1, 30))
    all_logits(tiny_model(**VARIANTS["qwen2"]), some_tokens(1, 7))
    assert masks == [None] * 4
    masks.clear()
    all_logits(tiny_model(**VARIANTS["qwen2"]), some_tokens(1, 8))
    assert masks[0] is None
    assert masks[1] is not None
    assert masks[1][0].sum(1).tolist() == [1, 2, 3, 4, 5, 6, 7, 7]
