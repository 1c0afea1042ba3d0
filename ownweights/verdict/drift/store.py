"""Monitors on disk: `.own/drift/<teacher>/<number>/`, one folder a baseline, the last one counts.

    baseline.json    written once
    state.json       replaced after each look
    look-<k>.jsonl   each canary's request, old and new answer, to be read side by side

In: a DriftMonitor. Out: the same one again (test_monitor_survives_its_files), or an ArtefactError
that names the file and what is wrong in it. Two runs at once cannot both add the same look: the
second is refused (test_save_look_refuses_a_look_that_another_run_made). A baseline appears whole or
not at all, and what a killed run left bars no other (test_a_half_made_baseline_bars_no_other); a
damaged monitor hides no incident of another (test_incidents_are_found_beside_a_damaged_monitor).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from ownweights.core.artefact import draft_folder, write_atomic
from ownweights.core.errors import ArtefactError, StoreError
from ownweights.core.project import Project
from ownweights.core.strict import NAME_PATTERN
from ownweights.verdict.drift.baseline import Baseline
from ownweights.verdict.drift.monitor import Asked, DriftMonitor, DriftState
from ownweights.verdict.drift.outcome import Incident

BASELINE, STATE = "baseline.json", "state.json"
Value = TypeVar("Value")


def drift_dir(project: Project) -> Path:
    """The folder of all monitors."""
    return project.store_dir / "drift"


def watched_teachers(project: Project) -> list[str]:
    """The teachers that have a baseline."""
    folders = drift_dir(project).glob("*") if drift_dir(project).is_dir() else ()
    named = [path for path in folders if re.fullmatch(NAME_PATTERN, path.name)]
    return sorted(path.name for path in named if _numbers(path))


def load_monitor(project: Project, teacher: str) -> DriftMonitor | None:
    """The newest monitor of a teacher; None where it has none."""
    folder = _folder(project, teacher)
    numbers = _numbers(folder)
    return _read_monitor(folder / f"{numbers[-1]:04d}") if numbers else None


def baseline_name(project: Project, teacher: str) -> str:
    """What a teacher's newest baseline is called; empty where it has none."""
    numbers = _numbers(_folder(project, teacher))
    return f"{teacher}/{numbers[-1]}" if numbers else ""


def save_baseline(project: Project, baseline: Baseline) -> DriftMonitor:
    """Keep a new baseline, after those the teacher had; what it found will be counted from here."""
    folder = _folder(project, baseline.teacher)
    monitor = DriftMonitor(baseline)
    with draft_folder(folder) as draft:
        write_atomic(draft / STATE, _encode(monitor.state))
        write_atomic(draft / BASELINE, _encode(baseline))
        made = folder / f"{max(_taken(folder), default=0) + 1:04d}"
        try:
            draft.rename(made)
        except OSError:
            if not made.exists():
                raise
            raise StoreError(f"{made} was made by another run", hint="try again") from None
    return monitor


def save_look(project: Project, monitor: DriftMonitor, asked: Asked) -> None:
    """Keep a monitor's newest look and the answers it was judged by.

    Raises: StoreError where another run has added a look, or a baseline, in the meantime
    """
    folder = _folder(project, monitor.baseline.teacher)
    current = folder / f"{_numbers(folder)[-1]:04d}"
    known = _read_monitor(current)
    number = monitor.state.looks[-1].number
    if known.baseline != monitor.baseline or len(known.state.looks) != number - 1:
        raise StoreError(
            f"look {number} at teacher {monitor.baseline.teacher!r} was made by another run too",
            hint="let one run at a time look; this one is not counted",
        )
    lines = [msgspec.json.encode(row) + b"\n" for row in _side_by_side(monitor.baseline, asked)]
    write_atomic(current / f"look-{number}.jsonl", b"".join(lines))
    write_atomic(current / STATE, _encode(monitor.state))


def incidents(project: Project, on_broken: Callable[[str], None] | None = None) -> list[Incident]:
    """Every incident that was ever opened, those of past baselines too, oldest first.

    A monitor that cannot be read is told to `on_broken`, else raised.
    """
    found: list[Incident] = []
    for teacher in watched_teachers(project):
        for number in _numbers(_folder(project, teacher)):
            try:
                monitor = _read_monitor(_folder(project, teacher) / f"{number:04d}")
            except ArtefactError as error:
                if on_broken is None:
                    raise
                on_broken(error.what)
                continue
            found += [monitor.state.incident] if monitor.state.incident else []
    return sorted(found, key=lambda incident: incident.opened_at)


def open_incidents(project: Project) -> dict[str, Incident]:
    """By teacher, the incident that is open now: no baseline was taken since.

    A teacher whose files cannot be read is left out.
    """
    found: dict[str, Incident] = {}
    for teacher in watched_teachers(project):
        with contextlib.suppress(ArtefactError):
            monitor = load_monitor(project, teacher)
            if monitor is not None and monitor.state.incident is not None:
                found[teacher] = monitor.state.incident
    return found


def _folder(project: Project, teacher: str) -> Path:
    if not re.fullmatch(NAME_PATTERN, teacher):
        raise ArtefactError(f"{teacher!r} cannot name a teacher")
    return drift_dir(project) / teacher


def _numbers(folder: Path) -> list[int]:
    """The numbers of a teacher's baselines, oldest first."""
    return [number for number in _taken(folder) if (folder / f"{number:04d}" / BASELINE).is_file()]


def _taken(folder: Path) -> list[int]:
    """The numbers in use, those of baselines that are not whole too."""
    if not folder.is_dir():
        return []
    return sorted(int(name) for name in os.listdir(folder) if re.fullmatch(r"[0-9]{4,}", name))


def _read_monitor(folder: Path) -> DriftMonitor:
    baseline = _decode(folder / BASELINE, Baseline)
    return DriftMonitor(baseline, _decode(folder / STATE, DriftState))


def _encode(value: Any) -> bytes:
    # by way of text, because answers may hold halves of surrogate pairs
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, indent=1, allow_nan=False).encode() + b"\n"


def _decode(path: Path, kind: type[Value]) -> Value:
    names = [one.name for one in dataclasses.fields(cast(Any, kind))]
    try:
        table = json.loads(path.read_bytes())
        if not isinstance(table, dict) or sorted(table) != sorted(names):
            raise ValueError(f"expected an object with the keys {', '.join(names)}")
        return msgspec.convert(table, kind)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ArtefactError(
            f"{path} is not what a monitor wrote: {error}",
            hint="move the folder away and take a new baseline",
        ) from None


def _side_by_side(baseline: Baseline, asked: Asked) -> Sequence[dict[str, Any]]:
    rows = zip(baseline.canaries, baseline.answers, asked.canaries, strict=False)
    return [
        {
            "id": canary.id, "request": canary.body, "references": canary.references,
            "old": old[-1], "new": reply.text, "fault": reply.fault,
        }
        for canary, old, reply in rows
    ]  # fmt: skip
