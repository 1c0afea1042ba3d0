"""A model as one GGUF file for llama.cpp: its shape, its words and its weights.

In: a model in float32 with nothing left to fold in, and the folder of its tokenizer. Out: a file
that appears whole or not at all. Each weight is rounded once, from float32, into the file's format.
Checked: llama.cpp gives the same ids and the same greedy text (tests/weights/export/
test_llama_cpp.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ownweights.core.artefact import appearing, writing
from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig
from ownweights.model.template import ChatTemplate
from ownweights.model.transformer import Transformer
from ownweights.weights.export.names import architecture_of, gguf_name, gguf_rows
from ownweights.weights.export.numbers import encode, gguf_package
from ownweights.weights.export.rope import rope_factors, rope_keys
from ownweights.weights.export.vocabulary import Vocabulary, read_vocabulary
from ownweights.weights.student import Student

FILE_TYPES = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0",
}  # fmt: skip
_ENDS = ("eos", "eot", "eom")  # the tokens at which llama.cpp can be told to stop


def write_model_gguf(
    student: Student, words: Path, path: Path, *, dtype: str = "f16", name: str | None = None
) -> None:
    """Write a student (or a base, assembled as one) with the tokenizer of the folder `words`.

    Raises: ModelError when llama.cpp could not run it as it is; ArtefactUnwritten
    """
    config = student.model.config
    vocabulary = read_vocabulary(words, config.vocab_size)
    keys = rope_keys(config.to_hub()["rope_parameters"], config.max_position_embeddings)

    def fill(writer: Any) -> None:
        writer.add_name(name or student.id)
        writer.add_file_type(gguf_package().LlamaFileType[FILE_TYPES[dtype]])
        writer.add_quantization_version(gguf_package().GGML_QUANT_VERSION)
        _add_shape(writer, config)
        for key, value in keys.items():
            _add(writer, f"{writer.arch}.rope.{key}", value)
        _add_words(writer, vocabulary, student)

    write_gguf(path, architecture_of(config).name, fill, _tensors(student.model), dtype)


def write_gguf(
    path: Path,
    architecture: str,
    fill: Callable[[Any], None],
    tensors: Iterable[tuple[str, Tensor]],
    dtype: str,
) -> None:
    """Write one GGUF file: the keys that `fill` adds, then the tensors in `dtype`."""
    gguf = gguf_package()
    with writing(path), appearing(path) as draft:
        writer = gguf.GGUFWriter(draft, architecture)
        fill(writer)
        for name, tensor in tensors:
            data, kind = encode(tensor, dtype, name)
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _tensors(model: Transformer) -> Iterable[tuple[str, Tensor]]:
    """Tensors in GGUF's names and order of rows; a tied head is left out."""
    config = model.config
    for name, tensor in model.state_dict().items():
        yield gguf_name(name), gguf_rows(name, tensor, config)
    factors = rope_factors(config.to_hub()["rope_parameters"], config.head_dim)
    if factors is not None:
        yield "rope_freqs.weight", factors


def _add_shape(writer: Any, config: ModelConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_words(writer: Any, vocabulary: Vocabulary, student: Student) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    if vocabulary.bos_id is not None:
        writer.add_bos_token_id(vocabulary.bos_id)
    if vocabulary.pad_id is not None:
        writer.add_pad_token_id(vocabulary.pad_id)
    for kind, end_id in zip(_ENDS, _ordered_ends(student), strict=False):
        writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", end_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_chat_template(student.template.source)


def _ordered_ends(student: Student) -> list[int]:
    """Every id that ends an answer: the tokenizer's EOS first, then the template's end of turn."""
    template: ChatTemplate = student.template
    first = [student.tokenizer.eos_id, template.end_id]
    ordered = dict.fromkeys(one for one in (*first, *sorted(student.end_ids)) if one is not None)
    if len(ordered) > len(_ENDS):
        raise ModelError(
            f"{len(ordered)} tokens end an answer, llama.cpp can be told {len(_ENDS)}",
            hint="name fewer in eos_token_id of config.json",
        )
    return list(ordered)


def _add(writer: Any, key: str, value: str | float | int) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)
