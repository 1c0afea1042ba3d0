"""Tiny random checkpoints of every family, made and saved by transformers itself.

`CASES` says what is tried: each family in its usual form, each kind of RoPE, window, bias and cap.
Texts are longer than every sliding window and every window that a scaling starts from.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ownweights.model.generate import generate
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model

VOCAB_SIZE, LENGTH, PROMPT = 97, 56, 26
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
WINDOW, ORIGINAL = 16, 32


@dataclass(frozen=True, slots=True)
class Case:
    """A configuration of transformers: the model_type, and what differs from `SIZES`."""

    model_type: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        return {**SIZES, **self.changes}


def rope(kind: str, **numbers: Any) -> dict[str, Any]:
    """A scaling as v5 spells it."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **numbers}}


def longrope(pairs: int, **numbers: Any) -> dict[str, Any]:
    """Phi's scaling, with frequencies that differ much between short and long texts."""
    return {
        "original_max_position_embeddings": ORIGINAL,
        **rope(
            "longrope", short_factor=[1.0 + 0.1 * i for i in range(pairs)],
            long_factor=[1.5 + 0.9 * i for i in range(pairs)],
            original_max_position_embeddings=ORIGINAL, **numbers,
        ),
    }  # fmt: skip


_YARN: dict[str, Any] = {"factor": 4.0, "original_max_position_embeddings": ORIGINAL}
_PHI: dict[str, Any] = {"head_dim": 8, "num_key_value_heads": 2}
_GEMMA3: dict[str, Any] = {"sliding_window": WINDOW, "query_pre_attn_scalar": 11}
_MIXED = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
CASES: dict[str, Case] = {
    "llama 2": Case("llama", {"num_key_value_heads": 4}),
    "llama 3.1": Case("llama", rope(
        "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=ORIGINAL)),
    "llama tied": Case("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama biases": Case("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama linear": Case("llama", rope("linear", factor=2.5)),
    "llama dynamic": Case("llama", rope("dynamic", factor=3.0)),
    "llama yarn": Case("llama", rope("yarn", **_YARN)),
    "llama yarn factor": Case("llama", rope("yarn", attention_factor=1.3, beta_fast=20.0,
                                            beta_slow=2.0, **_YARN)),
    "llama yarn mscale": Case("llama", rope("yarn", mscale=0.9, mscale_all_dim=0.5, **_YARN)),
    "llama yarn real": Case("llama", rope("yarn", truncate=False, beta_slow=0.2, **_YARN)),
    "mistral": Case("mistral", {"sliding_window": WINDOW}),
    "mistral without windows": Case("mistral", {"sliding_window": None}),
    "qwen2": Case("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2 sliding": Case("qwen2", {
        "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}),
    "qwen2 yarn": Case("qwen2", {"tie_word_embeddings": True, **rope("yarn", **_YARN)}),
    "qwen3": Case("qwen3", {"tie_word_embeddings": True}),
    "qwen3 biases": Case("qwen3", {"attention_bias": True, "use_sliding_window": True,
                                   "sliding_window": WINDOW, "layer_types": _MIXED}),
    "gemma 2": Case("gemma2", {
        "sliding_window": WINDOW, "query_pre_attn_scalar": 11, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0}),
    "gemma 2 without caps": Case("gemma2", {
        "sliding_window": WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "layer_types": _MIXED}),
    "gemma 3": Case("gemma3_text", {**_GEMMA3, "sliding_window_pattern": 3}),
    "gemma 3 scaled": Case("gemma3_text", {**_GEMMA3, "layer_types": _MIXED, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}}),
    "phi 3": Case("phi3", {**_PHI, "sliding_window": WINDOW}),
    "phi 3 long": Case("phi3", {**_PHI, **longrope(4)}),
    "phi 4 mini": Case("phi3", {
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "tie_word_embeddings": True, "partial_rotary_factor": 0.75, "sliding_window": 262_144,
        **longrope(6, partial_rotary_factor=0.75)}),
}  # fmt: skip


def their_model(case: Case, seed: int = 0) -> Any:
    """The family's network in transformers, random enough that every part of it matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(case.model_type, **case.fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 0.3, generator=generator)
            elif "norm" in name and not case.model_type.startswith("gemma"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.uniform_(-0.5, 0.5, generator=generator)
    return model


def save_theirs(case: Case, folder: Path, seed: int = 0) -> Any:
    """Write the checkpoint as transformers does, and give the model back."""
    model = their_model(case, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return model


@dataclass(frozen=True, slots=True)
class Parity:
    """Greatest difference of logits over the greatest logit: of theirs read by us, and of our
    export read by them; whether greedy tokens agree; and their own float32 against their float64.
    """

    read: float
    written: float
    their_rounding: float
    is_said_alike: bool


@torch.inference_mode()
def parity(case: Case, folder: Path, seed: int = 0) -> Parity:
    """From their checkpoint on disk through our reader and writer, both ways."""
    from transformers import AutoModelForCausalLM

    theirs = save_theirs(case, folder / "theirs", seed)
    ours = load_model(folder / "theirs")
    save_model(ours, folder / "ours")
    again = AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32).eval()
    tokens = some_tokens(2, LENGTH, seed)
    found, expected = ours.logits(ours(tokens)), theirs(tokens).logits
    exact = AutoModelForCausalLM.from_pretrained(folder / "theirs", dtype=torch.float64).eval()
    return Parity(
        read=relative_error(found, expected),
        written=relative_error(found, again(tokens).logits),
        their_rounding=relative_error(expected.double(), exact(tokens).logits),
        is_said_alike=our_words(ours, tokens) == their_words(theirs, tokens),
    )


def our_words(model: Any, tokens: torch.Tensor) -> list[int]:
    """Greedy tokens of our cached generator."""
    room = LENGTH - PROMPT
    return generate(model, tokens[0, :PROMPT].tolist(), max_tokens=room).token_ids


def their_words(model: Any, tokens: torch.Tensor) -> list[int]:
    """Greedy tokens of theirs."""
    prompt = tokens[:1, :PROMPT]
    said = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LENGTH - PROMPT,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return said[0, PROMPT:].tolist()


def some_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCAB_SIZE, (rows, length), generator=generator)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())
