"""Small tokenizers of every kind that families use, trained in a moment on a few lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

LINES = [
    "Hello there, how are you today? I am fine, thank you.", "the cat sat on the mat again",
    '{"name": "look_up", "arguments": {"word": "teapot"}}', "What is 2 + 2? It is 4.\n\n",
    "Be brief and exact. user assistant system model [INST] [/INST] <|user|>",
] * 4  # fmt: skip
# As Llama 3 and Qwen cut text into words.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KINDS = ("bytes", "words_every", "words_first", "words_none")


def tokenizer_of(
    kind: str, specials: Sequence[str | AddedToken], added: Sequence[str] = ()
) -> tokenizers.Tokenizer:
    """`bytes`: byte-level BPE. `words_*`: SentencePiece's BPE, which writes a space before every
    stretch (Llama 2), before the first alone (newer Llama and Mistral), or before none (Gemma)."""
    made = _byte_level() if kind == "bytes" else _sentence_piece(kind.removeprefix("words_"))
    made.add_special_tokens(list(specials))
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return made


def save_words(folder: Path, made: tokenizers.Tokenizer, **config: Any) -> Path:
    """A folder that transformers reads, too."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        **config,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(fields), "utf-8")
    return folder


def _byte_level() -> tokenizers.Tokenizer:
    vocabulary, merges = _trained(is_bytes=True)
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return made


def _sentence_piece(prefix: str) -> tokenizers.Tokenizer:
    trained, merges = _trained(is_bytes=False)
    named = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256))]
    words = [word for word in sorted(trained, key=trained.__getitem__) if word not in named]
    vocabulary = {word: index for index, word in enumerate([*named, *words])}
    made = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True,
                   fuse_unk=True)
    )  # fmt: skip
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    space = normalizers.Replace(" ", "▁")
    if prefix == "every":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])  # pyright: ignore
    elif prefix == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)  # pyright: ignore
    else:
        made.normalizer = space  # pyright: ignore
    if prefix != "none":
        steps.append(decoders.Strip(" ", 1, 0))
    made.decoder = decoders.Sequence(steps)  # pyright: ignore
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


@cache
def _trained(*, is_bytes: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of the lines."""
    made = tokenizers.Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet() if is_bytes else []
    made.pre_tokenizer = (  # pyright: ignore
        pre_tokenizers.ByteLevel(add_prefix_space=False) if is_bytes
        else pre_tokenizers.Metaspace(prepend_scheme="always")
    )  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    made.train_from_iterator(LINES, trainer)
    model = json.loads(made.to_str())["model"]
    merges = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one)
              for one in model["merges"]]  # fmt: skip
    return model["vocab"], merges
