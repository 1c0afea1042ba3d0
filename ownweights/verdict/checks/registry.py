"""Which checks there are, and which one settings, a certificate or the targets ask for.

Modules are loaded when a check of theirs is named, because the gateway reads JSON with this package
and should not wait for sqlite3 and the like.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from ownweights.core.errors import SettingsError, nearest
from ownweights.core.strict import kind_words
from ownweights.verdict.checks.json_value import read_json
from ownweights.verdict.checks.named import (
    Check,
    NamedCheck,
    build_check,
    option_fields,
    option_kinds,
    split_name,
)

CHECKS: dict[str, tuple[str, str]] = {  # word → (module, class)
    "exact": ("text", "ExactCheck"),
    "text": ("text", "TextCheck"),
    "json": ("json_fields", "JsonCheck"),
    "tool_call": ("tool_call", "ToolCallCheck"),
    "sql": ("sql", "SqlCheck"),
    "regex": ("regex", "RegexCheck"),
    "numeric": ("numeric", "NumericCheck"),
    "code": ("code", "CodeCheck"),
    "custom": ("custom", "CustomCheck"),
}


def check_named(text: str, folder: Path | None = None) -> Check:
    """The check that settings or a certificate call `text`; its files are found from `folder`.

    Raises: SettingsError for an unknown check or option, or a file that is not as it was named
    """
    word, options = split_name(text)
    if word not in CHECKS:
        close = nearest(word, CHECKS)
        raise SettingsError(
            f"{word!r} is not a check; there are: {', '.join(CHECKS)}",
            hint=f"did you mean {close!r}?" if close else None,
        )
    return build_check(_class_of(word), options, folder or Path())


def choose_check(targets: Iterable[str]) -> Check:
    """`json` when every target is a JSON object or list, `exact` otherwise."""
    values = [read_json(target) for target in targets]
    is_json = bool(values) and all(v is not None and v[0] in ("object", "list") for v in values)
    return check_named("json" if is_json else "exact")


def describe_checks() -> list[dict[str, Any]]:
    """Every option of every check: word, option, kind, default, limits."""
    rows: list[dict[str, Any]] = []
    for word in CHECKS:
        cls = _class_of(word)
        kinds = option_kinds(cls)
        rows += [
            {
                "check": word, "option": key, "kind": kind_words(kinds[key]),
                "default": option.default, "limits": str(option.metadata["limits"]),
            }
            for key, option in option_fields(cls).items()
        ]  # fmt: skip
    return rows


def _class_of(word: str) -> type[NamedCheck]:
    module, name = CHECKS[word]
    return getattr(import_module(f"ownweights.verdict.checks.{module}"), name)
