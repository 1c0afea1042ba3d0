"""Tensors as GGUF stores them: float32, float16, bfloat16, or 8-bit blocks.

In: a float32 tensor. Out: an array with its GGUF type, or what a reader gets back. Vectors stay
float32, and rows that are no whole number of blocks become float16, as llama.cpp's own converter
has it. What float16 cannot hold is refused (test_encode_refuses_what_float16_cannot_hold).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownweights.core.errors import ModelError

DTYPES = ("f32", "f16", "bf16", "q8_0")
_BLOCK = 32
_LARGEST_FLOAT16 = 65504.0


def gguf_package() -> ModuleType:
    """The package that knows the file format.

    Raises: ModelError, saying how to install it
    """
    try:
        import gguf
    except ImportError:
        raise ModelError(
            "writing GGUF needs the package `gguf`, which is not installed",
            hint="pip install 'ownweights[gguf]'",
        ) from None
    return gguf


def stored_type(tensor: Tensor, dtype: str) -> str:
    """What a tensor is stored as in a file of `dtype`."""
    if tensor.ndim < 2:
        return "f32"
    return "f16" if dtype == "q8_0" and tensor.shape[-1] % _BLOCK else dtype


def encode(tensor: Tensor, dtype: str, name: str) -> tuple[np.ndarray, Any]:
    """The bytes of a tensor as an array, and the GGUF type for `GGUFWriter.add_tensor`.

    Raises: ModelError naming a tensor that does not fit
    """
    kind = stored_type(tensor, dtype)
    if kind == "f16" and float(tensor.abs().max()) > _LARGEST_FLOAT16:
        raise ModelError(
            f"{name} holds values beyond ±{_LARGEST_FLOAT16:.0f}, float16's end",
            hint="--dtype bf16 or f32",
        )
    gguf = gguf_package()
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    whole = tensor.detach().to(torch.float32).contiguous().numpy()
    if kind == "f32":
        return whole, wanted
    if kind == "f16":
        return whole.astype(np.float16), wanted
    return gguf.quants.quantize(whole, wanted), wanted


def as_stored(tensor: Tensor, dtype: str) -> Tensor:
    """What a reader of the file gets back, in float32."""
    data, kind = encode(tensor, dtype, "tensor")
    values = gguf_package().quants.dequantize(data, kind)
    return torch.from_numpy(np.array(values, np.float32)).view(tensor.shape)
