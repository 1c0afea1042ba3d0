"""Which dtype a run computes in, and why. Parameters and their gradients are float32 either way.

bfloat16 pays where the processor multiplies it in units of its own (AMX: about four times the rate
of float32). Vector instructions for it (avx512_bf16) have the rate of float32 and cost conversions
besides, so they do not pay (dev/LOG.md). What is chosen is part of a run's name where it is not
float32, so that no run goes on in another dtype (test_compute_dtype_is_part_of_a_run).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ownweights.core.errors import SettingsError

COMPUTE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AUTO = "auto"


def derive_dtype(asked: str, features: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """The name of the dtype to compute in, and the reason.

    `features` are those of the processor as torch names them; by default, of this one.
    Raises: SettingsError for an unknown name
    """
    if asked in COMPUTE_DTYPES:
        return asked, "as asked"
    if asked != AUTO:
        known = ", ".join((AUTO, *COMPUTE_DTYPES))
        raise SettingsError(f"compute_dtype {asked!r} is not one of {known}")
    found = torch.cpu.get_capabilities() if features is None else features
    if found.get("amx_bf16"):
        return "bfloat16", "this processor has matrix units for it (amx_bf16)"
    return "float32", "this processor has no matrix units for bfloat16 (amx_bf16)"
