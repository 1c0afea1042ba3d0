"""The judge of a certificate once more: by whom live answers are judged, and that it is the same.

In: what a certificate says of its judge, and who the settings name now. Out: nothing, or a
SettingsError that says what differs: another model, rubric or prompt is another judge, whose harms
were never certified (test_other_judge_is_refused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.core.errors import SettingsError

_PARTS = ("name", "model", "prompt", "rubric", "decoding")


def judge_names(certified: Mapping[str, Any]) -> tuple[str, ...]:
    """The `[teacher.<name>]` that judged, weakest first."""
    return tuple(str(one.get("name", "")) for one in _each(certified))


def missing_judge(name: str) -> SettingsError:
    """That a judge is not in own.toml any more."""
    return SettingsError(
        f"the certificate was judged by teacher {name!r}, which own.toml does not have",
        hint=f"add [teacher.{name}] as it was, or certify anew with another judge",
    )


def refuse_other_judge(certified: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise SettingsError unless the identity `now` is that of the certified judge."""
    before, after = _each(certified), _each(now)
    for old, new in zip(before, after, strict=True):
        for part in _PARTS:
            if old.get(part) != new.get(part):
                raise SettingsError(
                    f"the judge {old.get('name')!r} is not the one that certified:"
                    f" its {part} is another now",
                    hint="set it back in own.toml, or certify anew",
                )


def _each(judge: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (judge, *judge.get("above", ()))
