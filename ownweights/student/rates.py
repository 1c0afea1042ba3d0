"""How fast a student learns, where nobody says: from width, family, method and objective.

    muon    3e-3 at width 256, scaled by 1/√width (measured on the assistant workload, dev/LOG.md)
    adamw   5e-5 · 10 for an adapter · (2000 / width)^p, p by family

The second is the rule of "LoRA Without Regret" (Schulman et al. 2025, thinkingmachines.ai), whose
runs were AdamW's. Objectives that follow the student's own distribution, or that push two answers
apart, want smaller steps; the shares are those between that rule and the recipes published for them
at 8B (DPO 1e-5, on-policy 1e-4, against 2.9e-4).
"""

from __future__ import annotations

import math

from ownweights.model.transformer import Transformer
from ownweights.student.options import StudentOptions

RATE_AT_256 = 3e-3
ADAMW_RATE, ADAPTER_FACTOR, REFERENCE_WIDTH = 5e-5, 10, 2000
EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
SHARES = {"dpo": 1 / 30, "on-policy": 1 / 3, "text": 1 / 3}


def derive_rate(model: Transformer, options: StudentOptions) -> tuple[float, str]:
    """The peak learning rate, and why."""
    if options.learning_rate is not None:
        return float(options.learning_rate), "as asked"
    width = model.config.hidden_size
    rate, why = _muon(width) if options.optimiser == "muon" else _adamw(model, options)
    share = SHARES.get(options.objective, 1.0)
    if share != 1.0:
        rate, why = rate * share, f"{why}; 1/{round(1 / share)} of it for {options.objective}"
    return float(f"{rate:.2g}"), why


def _muon(width: int) -> tuple[float, str]:
    rate = RATE_AT_256 * math.sqrt(256 / width)
    return rate, f"{RATE_AT_256} at width 256, scaled by the root of 256 / {width}"


def _adamw(model: Transformer, options: StudentOptions) -> tuple[float, str]:
    width = model.config.hidden_size
    family = family_of(model)
    factor = ADAPTER_FACTOR if options.method != "full" else 1
    rate = ADAMW_RATE * factor * (REFERENCE_WIDTH / width) ** EXPONENTS[family]
    what = "an adapter" if factor > 1 else "all weights"
    return rate, (
        f"{ADAMW_RATE} × {factor} for {what}, times ({REFERENCE_WIDTH} / {width})^"
        f"{EXPONENTS[family]} for a {family} shape"
    )


def family_of(model: Transformer) -> str:
    """The family whose exponent fits: Qwen's for Qwen, Llama's for all others."""
    family = getattr(model.config, "family", "llama")
    named = str(getattr(family, "name", family)).lower()
    return "qwen" if named.startswith("qwen") else "llama"
