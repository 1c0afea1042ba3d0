"""Checkpoints small enough to make anew in every test: random weights, a tokenizer of single bytes.

The chat format is that of the embedded base, so that what passes here passes there.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.model.config import ModelConfig
from ownweights.model.lora import LoraConfig, attach_lora
from ownweights.model.transformer import Transformer
from ownweights.weights.adapter import save_adapter
from ownweights.weights.base import base_id
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model

SPECIAL_TOKENS = (
    "<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>",
)  # fmt: skip
PAD_ID, BOS_ID, END_ID, SYSTEM_ID, USER_ID, ASSISTANT_ID, TOOL_ID = range(7)
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{{ message['content'] }}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONFIG = ModelConfig(
    vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=96,
    bos_token_id=BOS_ID, eos_token_ids=(END_ID,), pad_token_id=PAD_ID,
)  # fmt: skip
LORA = LoraConfig(rank=4, alpha=8.0)
BASE_NAME = "tiny"


def byte_tokenizer() -> Tokenizer:
    """Seven special tokens, then one token a byte; no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    return tokenizer


def save_byte_tokenizer(folder: Path, **config: Any) -> None:
    """tokenizer.json and tokenizer_config.json with the chat template."""
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>",
        "eos_token": "<|end|>", "pad_token": "<|pad|>", "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE, **config,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(fields), "utf-8")


def tiny_model(seed: int = 0, *, std: float = 0.3, **changes: Any) -> Transformer:
    """A model with random weights, large enough that its answers vary with what it reads."""
    model = Transformer(dataclasses.replace(CONFIG, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0.0, std, generator=generator)
    return model.eval()


def make_base(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A whole checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(tiny_model(seed, **changes), folder)
    save_byte_tokenizer(folder)
    return folder


def with_adapter(model: Transformer, seed: int, config: LoraConfig = LORA) -> Transformer:
    """Attach an adapter whose both factors are random, so that it matters."""
    attach_lora(model, config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(0.0, 0.2, generator=generator)
    return model


def make_student(project: Project, seed: int = 1, *, base: Path | None = None) -> str:
    """A LoRA student of the base folder `tiny` in the project; its id."""
    base = base or project.root / BASE_NAME
    if not base.is_dir():
        make_base(base)
    model = with_adapter(load_model(base), seed)
    identity = {"base": base_id(base), "base_name": base.name, "method": "lora"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_adapter(model, LORA, draft, base_id=base_id(base), base_name=base.name)
        return seal(draft, "student", identity=identity).id
