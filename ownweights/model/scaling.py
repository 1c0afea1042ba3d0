"""How a checkpoint turns positions: RoPE's base, its scaling, and both ways in which files say it.

    v5   rope_parameters: {rope_type, rope_theta, ...}, for Gemma 3 one such object a layer type
    v4   rope_theta, rope_scaling: {type, ...}, partial_rotary_factor, rope_local_base_freq

Both are read and both are written (training.md c.56: a reader of the other spelling would silently
take a base of 10,000). Where a file says both and they differ, or an object holds a key that its
type does not have, it is refused by name (test_rope_refuses_*). One thing is refused although it
could be run: `truncate` of a YaRN that stands by layer type, which transformers 5.23 does not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ownweights.core.errors import ModelError
from ownweights.model.families import Family
from ownweights.model.fields import flag, integer, number, optional_number, refuse

DEFAULT = "default"
GLOBAL, LOCAL = "full_attention", "sliding_attention"
_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # needed, possible
    DEFAULT: ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"),
               ("original_max_position_embeddings",)),
    "yarn": (("factor",), (
        "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate")),
    "longrope": (("short_factor", "long_factor"),
                 ("original_max_position_embeddings", "attention_factor", "factor")),
}  # fmt: skip
_ORIGINAL = "original_max_position_embeddings"
_OTHER_NAMES = {"su": "longrope"}  # Phi-3's first files
_MAX_PAIRS = 4096


@dataclass(frozen=True, slots=True)
class Scaling:
    """RoPE's scaling under the hub's names; None where a type has no such number or its default.

    `original_max_position_embeddings` is always filled where the type reads it.
    """

    rope_type: str = DEFAULT
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def stated(self) -> dict[str, Any]:
        """The numbers that differ from their defaults, under the hub's names."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "rope_type" and value != one.default:
                found[one.name] = list(value) if isinstance(value, tuple) else value
        return found


UNSCALED = Scaling()


@dataclass(frozen=True, slots=True)
class Rope:
    """Everything about positions in a config.json."""

    theta: float
    scaling: Scaling
    local_theta: float | None = None
    rotary_frac: float = 1.0


def read_rope(raw: Mapping[str, Any], family: Family) -> Rope:
    """Positions as either spelling, or both alike, states them.

    Raises: ModelError naming what is not supported, and where the two spellings differ
    """
    new, old = _new_spelling(raw, family), _old_spelling(raw, family)
    for key in new.keys() & old.keys():
        _refuse_difference(key, new[key], old[key])
    stated = {**old, **new}
    rotary_frac = stated.get("partial_rotary_factor", 1.0)
    if rotary_frac != 1.0 and not family.is_fused:
        raise refuse(f"partial_rotary_factor {rotary_frac}")
    if rotary_frac > 1:
        raise ModelError(f"partial_rotary_factor must be at most 1, got {rotary_frac}")
    local = family.local_rope_theta
    return Rope(
        theta=stated.get("rope_theta", family.rope_theta),
        scaling=stated.get("rope_scaling", UNSCALED),
        local_theta=None if local is None else stated.get("rope_local_base_freq", local),
        rotary_frac=rotary_frac,
    )


def write_rope(rope: Rope, family: Family) -> dict[str, Any]:
    """Positions in both spellings."""
    scaling = rope.scaling
    numbers = scaling.stated()
    one = {"rope_type": scaling.rope_type, "rope_theta": rope.theta, **numbers}
    if family.is_fused:
        one["partial_rotary_factor"] = rope.rotary_frac
    both: dict[str, Any] = {"rope_scaling": None, "rope_parameters": one, "rope_theta": rope.theta}
    if scaling.rope_type != DEFAULT:
        both["rope_scaling"] = {
            "rope_type": scaling.rope_type,
            "type": scaling.rope_type,
            **numbers,
        }
    if rope.local_theta is not None:
        local = {"rope_type": DEFAULT, "rope_theta": rope.local_theta}
        both["rope_parameters"] = {GLOBAL: one, LOCAL: local}
        both["rope_local_base_freq"] = rope.local_theta
    if family.is_fused:
        both |= _for_phi_readers(rope, numbers)
    return both


def _for_phi_readers(rope: Rope, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Phi's own: the original window stands outside, and v4 wants three keys and no more."""
    found: dict[str, Any] = {"partial_rotary_factor": rope.rotary_frac}
    if rope.scaling.rope_type != DEFAULT:
        found[_ORIGINAL] = numbers[_ORIGINAL]
        inside = {key: value for key, value in numbers.items() if key != _ORIGINAL}
        found["rope_scaling"] = {"type": rope.scaling.rope_type, **inside}
    return found


def _new_spelling(raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """What `rope_parameters` states, under the names of the old spelling."""
    given = raw.get("rope_parameters")
    if given is None:
        return {}
    rope = _object(given, "rope_parameters")
    if family.local_rope_theta is None:
        if GLOBAL in rope or LOCAL in rope:
            raise refuse("rope_parameters by layer type")
        return _stated(rope, raw, family)
    if not rope.keys() <= {GLOBAL, LOCAL}:
        raise ModelError(
            f"rope_parameters of {family.name} must hold {GLOBAL} and {LOCAL}, got {sorted(rope)}"
        )
    everywhere = _object(rope.get(GLOBAL) or {}, f"rope_parameters.{GLOBAL}")
    local = _object(rope.get(LOCAL) or {}, f"rope_parameters.{LOCAL}")
    found = _stated(everywhere, raw, family)
    if not found["rope_scaling"].truncate:
        raise refuse("truncate = false in a YaRN by layer type, which transformers does not read")
    of_local = _stated(local, raw, family)
    if of_local["rope_scaling"].rope_type != DEFAULT:
        raise refuse(f"RoPE scaling {of_local['rope_scaling'].rope_type!r} of local layers")
    if "rope_theta" in of_local:
        found["rope_local_base_freq"] = of_local["rope_theta"]
    return found


def _old_spelling(raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """What stands at the top level; `rope_scaling: null` states that there is none."""
    found: dict[str, Any] = {}
    names = ["rope_theta", "partial_rotary_factor"]
    if family.local_rope_theta is not None:
        names.append("rope_local_base_freq")
    for key in names:
        value = optional_number(raw, key)
        if value is not None:
            found[key] = value
    if "rope_scaling" in raw:
        inside = _stated(_object(raw["rope_scaling"] or {}, "rope_scaling"), raw, family)
        for key in inside.keys() & found.keys():
            _refuse_difference(key, inside[key], found[key])
        found |= inside
    return found


def _stated(rope: Mapping[str, Any], raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The scaling of one object, and the base and share that it states."""
    found: dict[str, Any] = {"rope_scaling": _scaling(rope, raw, family)}
    for key in ("rope_theta", "partial_rotary_factor"):
        value = optional_number(rope, key)
        if value is not None:
            found[key] = value
    return found


def _scaling(rope: Mapping[str, Any], raw: Mapping[str, Any], family: Family) -> Scaling:
    kind = _rope_type(rope)
    if kind not in family.rope_types:
        raise refuse(f"RoPE scaling {kind!r:.60}")
    needed, possible = _KEYS[kind]
    given = {key for key, value in rope.items() if value is not None}
    for key in sorted(given - _ALWAYS - {*needed, *possible}):
        raise refuse(f"{key} in RoPE scaling {kind!r}")
    for key in needed:
        if key not in given:
            raise ModelError(f"RoPE scaling {kind!r} needs {key}", hint="mend config.json")
    names = [key for key in (*needed, *possible) if key not in ("truncate", _ORIGINAL)]
    values: dict[str, Any] = {key: _value(rope, key) for key in names}
    if _ORIGINAL in possible:
        values[_ORIGINAL] = _original_window(rope, raw)
    if "truncate" in possible:
        values["truncate"] = _truncate(rope)
    _check(kind, values)
    return Scaling(kind, **values)


def _rope_type(rope: Mapping[str, Any]) -> Any:
    kinds = [rope[key] for key in ("rope_type", "type") if rope.get(key) is not None] or [DEFAULT]
    kinds = [_OTHER_NAMES.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
    if kinds[0] != kinds[-1]:
        raise ModelError(f"RoPE scaling is called {kinds[0]!r:.60} and {kinds[-1]!r:.60}")
    return kinds[0]


def _value(rope: Mapping[str, Any], key: str) -> float | tuple[float, ...] | None:
    if key not in ("short_factor", "long_factor"):
        return optional_number(rope, key)
    given = rope[key]
    if not isinstance(given, list) or not 0 < len(given) <= _MAX_PAIRS:
        raise ModelError(f"{key} must be a list of numbers, got {given!r:.60}")
    return tuple(number({key: one}, key, 0.0) for one in given)


def _original_window(rope: Mapping[str, Any], raw: Mapping[str, Any]) -> int:
    """Where the scaling's object states it, or the file's top level, or the window itself."""
    window = integer(raw, "max_position_embeddings", 2048)
    outside = integer(raw, _ORIGINAL, window)
    inside = integer(rope, _ORIGINAL, outside)
    if raw.get(_ORIGINAL) is not None:
        _refuse_difference(_ORIGINAL, inside, outside)
    return inside


def _truncate(rope: Mapping[str, Any]) -> bool:
    """True unless said otherwise; null, which transformers takes for false, must be spelled out."""
    if rope.get("truncate", True) is None:
        raise ModelError("truncate must be true or false, got None")
    return flag(rope, "truncate", True)


def _check(kind: str, values: Mapping[str, Any]) -> None:
    factor = values.get("factor")
    if factor is not None and factor < 1:
        raise ModelError(f"factor of RoPE scaling {kind!r} must be at least 1, got {factor}")
    if values.get(_ORIGINAL) == 1:
        raise ModelError(f"{_ORIGINAL} must be more than 1")
    if kind == "llama3" and values["high_freq_factor"] <= values["low_freq_factor"]:
        raise ModelError("high_freq_factor must be greater than low_freq_factor")


def _object(given: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ModelError(f"{name} must be an object, got {given!r:.60}")
    return given


def _refuse_difference(key: str, new: Any, old: Any) -> None:
    if new == old:
        return
    if isinstance(new, Scaling) and isinstance(old, Scaling):
        for one in fields(Scaling):
            first, second = getattr(new, one.name), getattr(old, one.name)
            if first != second:
                key, new, old = f"{key}.{one.name}", first, second
                break
    raise ModelError(
        f"config.json states {key} twice and differently: {new!r:.60} and {old!r:.60}",
        hint="readers of one spelling would run another model; take out the wrong one",
    )
