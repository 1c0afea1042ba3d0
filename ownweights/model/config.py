"""The shape of a network, read from a hub folder's config.json and written as one.

In: the JSON of a checkpoint. Out: a frozen `ModelConfig`; what differs from a plain Llama stands in
its `variant`. What this code cannot run exactly (another family, an unknown RoPE scaling, another
activation) is refused by name (test_config_refuses_*).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownweights.core.errors import ModelError
from ownweights.model.families import FAMILIES, LLAMA, Family, family_of
from ownweights.model.fields import flag, integer, number, optional_number, refuse, token_id
from ownweights.model.scaling import GLOBAL, LOCAL, UNSCALED, Rope, Scaling, read_rope, write_rope

_ONLY_IF_FALSE = ("use_bidirectional_attention", "lm_head_bias")
_MAX_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Variant:
    """What a checkpoint has beyond a plain Llama; the defaults are the plain one.

    `sliding_layers` says of each layer whether it looks back `window` positions at most, and turns
    by `local_rope_theta` where there is one; empty means none. Biases: of q, k and v, of o, of the
    MLP. `query_scalar` stands for the head width in the scale of attention.
    """

    family: str = LLAMA.name
    scaling: Scaling = UNSCALED
    local_rope_theta: float | None = None
    rotary_frac: float = 1.0
    window: int | None = None
    sliding_layers: tuple[bool, ...] = ()
    has_qkv_bias: bool = False
    has_out_bias: bool = False
    has_mlp_bias: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    query_scalar: float | None = None


PLAIN = Variant()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A dense decoder: the sizes every family has, and the variant."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    variant: Variant = PLAIN

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"{self.num_attention_heads} query heads cannot share"
                f" {self.num_key_value_heads} key/value heads evenly"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ModelError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if self.rotary_width < 2 or self.rotary_width % 2:
            raise ModelError(f"an even part of a head must turn, not {self.rotary_width} numbers")
        kind = self.variant.scaling.rope_type
        if self.rope_theta <= 1 or (kind == "dynamic" and self.rotary_width < 4):
            raise ModelError(
                f"RoPE {kind!r} needs a base above 1 and pairs of other speeds, got rope_theta"
                f" {self.rope_theta} and {self.rotary_width} numbers that turn"
            )
        layers, sliding = self.num_hidden_layers, len(self.variant.sliding_layers)
        if sliding not in (0, layers):
            raise ModelError(f"layer_types names {sliding} layers, the network has {layers}")
        for key in ("short_factor", "long_factor"):
            count = len(getattr(self.variant.scaling, key))
            if count not in (0, self.rotary_width // 2):
                raise ModelError(
                    f"{key} must hold {self.rotary_width // 2} numbers, one for each pair that"
                    f" turns, got {count}"
                )

    @property
    def family(self) -> Family:
        return FAMILIES[self.variant.family]

    @property
    def rotary_width(self) -> int:
        """How many numbers of each head turn with the position."""
        return int(self.head_dim * self.variant.rotary_frac)

    @property
    def rope(self) -> Rope:
        found = self.variant
        return Rope(self.rope_theta, found.scaling, found.local_rope_theta, found.rotary_frac)

    def is_sliding(self, layer: int) -> bool:
        """Whether a layer looks back a limited way."""
        return bool(self.variant.sliding_layers) and self.variant.sliding_layers[layer]

    def to_hub(self) -> dict[str, Any]:
        """The config.json that transformers reads (both RoPE spellings)."""
        fields = asdict(self)
        eos = fields.pop("eos_token_ids")
        del fields["variant"]
        family, positions = self.family, write_rope(self.rope, self.family)
        return {
            "architectures": [family.architecture],
            "model_type": family.name,
            family.activation_key: family.activation,
            **{key: False for key in ("attention_bias", "mlp_bias") if key in family.bias_keys},
            "rope_scaling": positions.pop("rope_scaling"),
            "rope_parameters": positions.pop("rope_parameters"),
            "eos_token_id": list(eos) if len(eos) != 1 else eos[0],
            "torch_dtype": "float32",
            **fields,
            **positions,
            **_written_variant(self),
        }


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the checkpoint in `folder`."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no config.json", hint="point `base` at a hub checkpoint's folder"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    try:
        return parse_config(raw)
    except ModelError as error:
        raise ModelError(f"{path}: {error.what}", hint=error.hint) from None


def parse_config(raw: Any) -> ModelConfig:
    """A hub configuration as ours, or a ModelError that names what cannot be run."""
    if not isinstance(raw, dict):
        raise ModelError("expected a JSON object", hint="copy the checkpoint's config.json again")
    family = family_of(raw)
    raw = {**family.defaults, **raw}
    _refuse_unknown(raw, family)
    rope = read_rope(raw, family)
    heads, hidden = integer(raw, "num_attention_heads"), integer(raw, "hidden_size")
    return ModelConfig(
        vocab_size=integer(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=integer(raw, "intermediate_size"),
        num_hidden_layers=integer(raw, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=integer(raw, "num_key_value_heads", heads),
        head_dim=integer(raw, "head_dim", hidden // heads),
        rope_theta=rope.theta,
        rms_norm_eps=number(raw, "rms_norm_eps", 1e-6),
        max_position_embeddings=integer(raw, "max_position_embeddings", 2048),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        bos_token_id=token_id(raw, "bos_token_id"),
        eos_token_ids=_end_ids(raw),
        pad_token_id=token_id(raw, "pad_token_id"),
        variant=_variant(raw, family, rope),
    )


def _refuse_unknown(raw: Mapping[str, Any], family: Family) -> None:
    for key in {"hidden_act", "hidden_activation", family.activation_key}:
        if raw.get(key) not in (None, family.activation):
            raise refuse(f"activation {raw[key]!r:.60}")
    for key in ("attention_bias", "mlp_bias"):
        if key not in family.bias_keys and bool(raw.get(key)):
            raise refuse(key)
    for key in _ONLY_IF_FALSE:
        if raw.get(key) not in (None, False):
            raise refuse(key)
    if raw.get("quantization_config") is not None:
        raise refuse("quantization_config")
    if family.name != "gemma2" and raw.get("attn_logit_softcapping") is not None:
        raise refuse("attn_logit_softcapping")
    if not family.is_sandwich and raw.get("final_logit_softcapping") is not None:
        raise refuse("final_logit_softcapping")
    if family.windows == "none" and raw.get("sliding_window"):
        raise refuse("sliding_window")


def _variant(raw: Mapping[str, Any], family: Family, rope: Rope) -> Variant:
    window, sliding = _windows(raw, family)
    has_bias = "attention_bias" in family.bias_keys and flag(raw, "attention_bias")
    return Variant(
        family=family.name,
        scaling=rope.scaling,
        local_rope_theta=rope.local_theta,
        rotary_frac=rope.rotary_frac,
        window=window,
        sliding_layers=sliding,
        has_qkv_bias=has_bias or family.has_qkv_bias,
        has_out_bias=has_bias,
        has_mlp_bias="mlp_bias" in family.bias_keys and flag(raw, "mlp_bias"),
        attention_softcap=optional_number(raw, "attn_logit_softcapping"),
        logit_softcap=optional_number(raw, "final_logit_softcapping"),
        query_scalar=number(raw, "query_pre_attn_scalar", 256) if family.is_sandwich else None,
    )


def _windows(raw: Mapping[str, Any], family: Family) -> tuple[int | None, tuple[bool, ...]]:
    """How far back layers look, and which layers do."""
    layers = integer(raw, "num_hidden_layers")
    if layers > _MAX_LAYERS:
        raise ModelError(f"num_hidden_layers must be at most {_MAX_LAYERS}, got {layers}")
    types = _layer_types(raw)
    is_everywhere = family.windows == "all" and raw.get("sliding_window") is not None
    if family.windows != "by layer" and types not in (None, (is_everywhere,) * layers):
        raise refuse("layer_types")
    if is_everywhere:
        return integer(raw, "sliding_window"), (True,) * layers
    if family.windows != "by layer":
        return None, ()
    if family.is_sandwich:
        pattern = integer(raw, "sliding_window_pattern")
        sliding = types or tuple((index + 1) % pattern != 0 for index in range(layers))
        return integer(raw, "sliding_window"), sliding
    if not flag(raw, "use_sliding_window"):
        if any(types or ()):
            raise ModelError("layer_types names sliding layers, yet use_sliding_window is false")
        return None, ()
    first = raw.get("max_window_layers")
    if type(first) is not int or first < 0:
        raise ModelError(f"max_window_layers must be a whole number, got {first!r:.60}")
    sliding = types or tuple(index >= first for index in range(layers))
    return (integer(raw, "sliding_window"), sliding) if any(sliding) else (None, ())


def _layer_types(raw: Mapping[str, Any]) -> tuple[bool, ...] | None:
    """Which layers slide, where the file says so for each."""
    given = raw.get("layer_types")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != raw["num_hidden_layers"]:
        raise ModelError(f"layer_types must name every layer's type, got {given!r:.60}")
    for one in given:
        if one not in (GLOBAL, LOCAL):
            raise refuse(f"layer type {one!r:.60}")
    return tuple(one == LOCAL for one in given)


def _written_variant(config: ModelConfig) -> dict[str, Any]:
    """The keys that the family's readers look for beyond a Llama's."""
    variant, family = config.variant, config.family
    found: dict[str, Any] = {}
    if "attention_bias" in family.bias_keys:
        found["attention_bias"] = variant.has_out_bias
    if "mlp_bias" in family.bias_keys:
        found["mlp_bias"] = variant.has_mlp_bias
    if family.windows != "none":
        found["sliding_window"] = variant.window
    if family.windows == "by layer":
        sliding = variant.sliding_layers or (False,) * config.num_hidden_layers
        found["layer_types"] = [LOCAL if one else GLOBAL for one in sliding]
        if not family.is_sandwich:
            found["use_sliding_window"] = any(sliding)
            found["max_window_layers"] = [*sliding, True].index(True)
    if family.is_sandwich:
        found["query_pre_attn_scalar"] = _whole(variant.query_scalar)
        found["attn_logit_softcapping"] = variant.attention_softcap
        found["final_logit_softcapping"] = variant.logit_softcap
    return found


def _whole(value: float | None) -> float | int | None:
    """A whole number without its point, as strict readers want it."""
    return int(value) if value is not None and float(value).is_integer() else value


def _end_ids(raw: Mapping[str, Any]) -> tuple[int, ...]:
    ids = raw.get("eos_token_id")
    found = [
        token_id({"eos_token_id": one}, "eos_token_id")
        for one in (ids if isinstance(ids, list) else [ids])
    ]
    return tuple(one for one in found if one is not None)
