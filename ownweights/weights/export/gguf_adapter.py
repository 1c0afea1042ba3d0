"""An adapter as a GGUF file that llama.cpp puts on its base (`--lora`).

In: an adapter and its base's configuration. Out: a file with the two factors of each layer under
the base's GGUF names. llama.cpp multiplies by alpha over the rank, so the profile's alpha equals
the rank; the rows of B follow the base's order (`names`). Factors are float32 unless asked
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.config import ModelConfig
from ownweights.weights.adapter import Adapter
from ownweights.weights.export.gguf_model import write_gguf
from ownweights.weights.export.names import architecture_of, gguf_name, gguf_rows
from ownweights.weights.export.numbers import gguf_package
from ownweights.weights.export.profile import head_layers, portable_adapter

DTYPES = ("f32", "f16", "bf16")


def write_adapter_gguf(
    adapter: Adapter, config: ModelConfig, path: Path, *, dtype: str = "f32", name: str
) -> None:
    """Write the adapter for llama.cpp.

    Raises: ModelError for layers that llama.cpp adapts not, or a rank beyond the profile's;
    ArtefactUnwritten
    """
    heads = head_layers(adapter)
    if heads:
        raise ModelError(
            f"llama.cpp loads no adapter of {', '.join(heads)}",
            hint="own weights export --gguf without --adapter merges it into the weights",
        )
    portable = portable_adapter(adapter)

    def fill(writer: Any) -> None:
        keys = gguf_package().Keys
        writer.add_type(gguf_package().GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string(keys.Adapter.TYPE, "lora")
        writer.add_float32(keys.Adapter.LORA_ALPHA, portable.config.alpha)

    write_gguf(path, architecture_of(config).name, fill, _tensors(portable, config), dtype)


def _tensors(adapter: Adapter, config: ModelConfig) -> Iterable[tuple[str, Tensor]]:
    for layer, (a, b) in adapter.factors.items():
        weight = f"{layer}.weight"
        yield f"{gguf_name(weight)}.lora_a", a
        yield f"{gguf_name(weight)}.lora_b", gguf_rows(weight, b, config)
