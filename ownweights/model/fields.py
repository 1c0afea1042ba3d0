"""Values of a config.json, checked as they are read: what is wrong is named, nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.core.errors import ModelError

OTHER_ENGINES = "serve it with vLLM or llama.cpp as a teacher endpoint instead"
_MAX_NUMBER = 1e30


def integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive whole number; null and absence mean the default, where there is one."""
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelError(f"{key} must be a positive integer, got {value!r:.60}")
    return value


def number(raw: Mapping[str, Any], key: str, default: float) -> float:
    """A positive number; null and absence mean the default."""
    value = optional_number(raw, key)
    return default if value is None else value


def optional_number(raw: Mapping[str, Any], key: str) -> float | None:
    """A positive number, or None for null and absence."""
    value = raw.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < _MAX_NUMBER:
        raise ModelError(f"{key} must be a positive number, got {value!r:.60}")
    return float(value)


def flag(raw: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """True or false; null and absence mean the default."""
    value = raw.get(key)
    if value is None:
        return default
    if type(value) is not bool:
        raise ModelError(f"{key} must be true or false, got {value!r:.60}")
    return value


def token_id(raw: Mapping[str, Any], key: str) -> int | None:
    """A token id, or None."""
    value = raw.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**31):
        raise ModelError(f"{key} must be a token id, got {value!r:.60}")
    return value


def refuse(what: str) -> ModelError:
    """The error for a feature that this network lacks, with the way out."""
    return ModelError(f"the checkpoint needs {what}, not supported", hint=OTHER_ENGINES)
