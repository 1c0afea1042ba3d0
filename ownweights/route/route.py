"""Who answers a workload's requests: a file that names a student, its proof and its threshold.

In: what a certificate licenses. Out: `route/<id>.toml`, immutable and named by its content, and
`route/active/<workload>`, a pointer that holds an id and how far the route is followed. A workload
without one goes to the teacher.
Invariants: a pointer is swapped whole (test_activate_readers_never_see_a_part); a route that was
edited by hand no longer has its id and is refused (test_load_route_refuses_an_edited_threshold).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ownweights.core.artefact import hash_json, write_atomic
from ownweights.core.errors import (
    ArtefactError,
    ArtefactMissing,
    ArtefactUnwritten,
    InputError,
    OwnError,
    UsageError,
    nearest,
)
from ownweights.core.project import Project
from ownweights.route.rollout import Stage, Standing, first_standing
from ownweights.route.swap import swapping
from ownweights.traffic.workload import check_workload_name
from ownweights.verdict.voiding import void_reason

ID_CHARS = 12
DEFAULT_TIMEOUT_S = 10.0
JUDGE = "judge"  # the check of a route whose certificate was judged by a model: ask that judge
_NOT_ITS_OWN = ("path", "standing")
_JSON_FIELDS = ("confidence", "prune", "decoding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One workload's route to a student: serve where `confidence` scores at least `threshold`.

    `prompt_hashes` are the fixed parts (system prompt, tools, response format) that were certified;
    empty where every request has one of its own. `decoding` is how the certified answers were
    made. `teacher` is who answers the rest: a name in own.toml, a base URL, or empty for the
    workload's own. `id` and `path` are given when it is written, `standing` when it is followed.
    """

    workload: str
    student_id: str
    verdict_id: str
    threshold: float
    confidence: Mapping[str, Any]
    prompt_hashes: tuple[str, ...] = ()
    prune: Mapping[str, Any] | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_prompt_tokens: int | None = None  # None: what the student's window leaves room for
    teacher: str = ""
    check: str = ""  # what harm is, for audits, or JUDGE; empty where none can be made
    alpha: float = 0.05  # the certified limit among all requests: failures are watched against it
    beta: float = 0.10  # the certified limit among those served
    delta: float = 0.05
    near: float | None = None  # scores below it are near the threshold, and audited more often
    audit_frac: float = 0.02  # of the answers served
    run_length: float = 10_000.0  # audits between false alarms, on average or longer
    id: str = ""
    path: Path | None = field(default=None, compare=False)
    standing: Standing | None = field(default=None, compare=False)  # of the route that is followed


def write_route(project: Project, route: Route) -> Route:
    """Put a route on disk, without making anyone follow it; returns it with its id."""
    _check(route, where="route")
    route_id = _content_id(route)
    path = _route_path(project, route_id)
    known = replace(route, id=route_id, path=path)
    write_atomic(path, _to_toml(known).encode())
    return known


def load_route(project: Project, route_id: str) -> Route:
    """The route `route_id` (a unique prefix will do), checked to be what was written."""
    path = _find(project, route_id)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArtefactError(f"{path} is not readable TOML: {error}") from None
    route = _from_table(table, path)
    if not route.id == path.stem == _content_id(route):
        raise ArtefactError(
            f"route {path.stem} is not what was certified: its file was changed afterwards",
            hint="certify again and promote the new verdict; a threshold is never edited by hand",
        )
    return route


def list_routes(
    project: Project, on_broken: Callable[[str, str], None] | None = None
) -> list[Route]:
    """Every route on disk, by id; one that cannot be read is told to `on_broken`, else raised."""
    found: list[Route] = []
    for path in sorted(project.kind_dir("route").glob("[!.]*.toml")):
        try:
            found.append(load_route(project, path.stem))
        except ArtefactError as error:
            if on_broken is None:
                raise
            on_broken(path.stem, error.what)
    return found


def activate(
    project: Project,
    workload: str,
    route_id: str,
    *,
    reason: str = "promoted",
    stage: Stage = "served",
) -> Route:
    """Send the workload's requests by this route from now on, beginning with `stage`.

    Only audits from now on decide how it goes on, also where the route was followed before.
    Raises: NotCertified when its certificate is void
    """
    from ownweights.route.audits import AuditLog  # scipy: serving never needs it
    from ownweights.route.promotion import check_not_void

    check_workload_name(workload)
    route = load_route(project, route_id)
    if route.workload != workload:
        raise UsageError(
            f"route {route.id} was certified for workload {route.workload!r}, not {workload!r}"
        )
    since = AuditLog(project, route.id).last()
    standing = first_standing(route.id, stage, since=since)
    with swapping(project):
        check_not_void(project, route.verdict_id)
        stand(project, workload, standing, reason=reason)
    return replace(route, standing=standing)


def stand(project: Project, workload: str, standing: Standing, *, reason: str) -> None:
    """Follow a route as far as `standing` says; one atomic swap of the workload's pointer."""
    with swapping(project):
        before = _id_before(project, workload)
        _make_way(_pointer(project, workload))
        write_atomic(_pointer(project, workload), standing.to_text().encode())
        _note(project, workload, before, standing, reason)


def rollback(project: Project, workload: str, *, to: str | None = None, reason: str = "") -> None:
    """Send the workload's requests to the teacher again, or by an older route `to`.

    That begins with a canary, for what it showed before proves nothing of now.
    """
    if to is not None:
        activate(project, workload, to, reason=reason or "rolled back", stage="canary")
        return
    check_workload_name(workload)
    with swapping(project):
        before = _id_before(project, workload)
        if before is None:
            what = f"workload {workload!r} has no active route: its teacher answers already"
            raise UsageError(what)
        _make_way(_pointer(project, workload))
        with contextlib.suppress(FileNotFoundError):
            _pointer(project, workload).unlink()
        _note(project, workload, before, None, reason or "rolled back")


def active_id(project: Project, workload: str) -> str | None:
    """The id of the route that the workload follows, or None.

    Raises: ArtefactError for a pointer that cannot be read
    """
    standing = active_standing(project, workload)
    return None if standing is None else standing.route_id


def active_standing(project: Project, workload: str) -> Standing | None:
    """Which route the workload follows, and how far; None where its teacher answers.

    Raises: ArtefactError for a pointer that cannot be read
    """
    pointer = _pointer(project, workload)
    try:
        text = pointer.read_text("utf-8")
        return Standing.from_text(text, where=str(pointer)) if text.strip() else None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, InputError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        why = "it names no route" if isinstance(error, InputError) else why
        raise ArtefactError(
            f"the pointer {pointer} cannot be read: {why}",
            hint=f"`own route rollback {workload}` takes it away, `own route promote` replaces it",
        ) from None


def active_routes(project: Project) -> dict[str, Route]:
    """The route of every workload that has one; raises when one of them cannot be followed."""
    routes, faults = read_active(project)
    for fault in faults.values():
        raise fault
    return routes


def read_active(project: Project) -> tuple[dict[str, Route], dict[str, OwnError]]:
    """The routes that can be followed, and by workload why the others cannot."""
    routes: dict[str, Route] = {}
    faults: dict[str, OwnError] = {}
    for pointer in sorted(active_dir(project).glob("[!.]*")):
        workload = pointer.name
        try:
            standing = active_standing(project, workload)
            if standing is None:
                continue
            route = load_route(project, standing.route_id)
            if route.workload != workload:
                raise ArtefactError(f"route {route.id} is workload {route.workload!r}'s")
            voided = void_reason(project, route.verdict_id)
            if voided is not None:
                raise ArtefactError(f"certificate {route.verdict_id} is void: {voided.reason}")
            routes[workload] = replace(route, standing=standing)
        except OwnError as fault:
            faults[ascii(workload)[1:-1]] = fault  # a stray file's name may hold anything
    return routes, faults


def active_dir(project: Project) -> Path:
    """The folder of pointers; its time changes with every swap."""
    return project.kind_dir("route") / "active"


def history_path(project: Project) -> Path:
    """The file with a line for every swap, oldest first."""
    return project.kind_dir("route") / "history.jsonl"


def _pointer(project: Project, workload: str) -> Path:
    return active_dir(project) / check_workload_name(workload)


def _id_before(project: Project, workload: str) -> str | None:
    """What a swap starts from, for the history; empty where the pointer cannot be read."""
    try:
        return active_id(project, workload)
    except ArtefactError:
        return ""


def _make_way(pointer: Path) -> None:
    """Move a folder that stands where a pointer belongs out of the way; nothing in it is lost."""
    if pointer.is_dir() and not pointer.is_symlink():
        pointer.rename(pointer.with_name(f".{pointer.name}.{secrets.token_hex(4)}"))


def _note(
    project: Project, workload: str, before: str | None, after: Standing | None, reason: str
) -> None:
    """Append to the history of swaps; one short line, written at once."""
    row: dict[str, Any] = {"at": time.time(), "workload": workload, "from": before, "to": None}
    if after is not None:
        row |= {"to": after.route_id, "stage": after.stage, "share": after.share,
                "is_frozen": after.is_frozen, "since": after.since}  # fmt: skip
    row["reason"] = reason
    path = history_path(project)
    try:
        with path.open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"  # half a line ends here
            file.write(start + json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ArtefactUnwritten(
            f"{workload} goes {'by route ' + row['to'] if row['to'] else 'to the teacher'} from now"
            f" on, but {path} could not be written: {error.strerror}",
            hint="make room; the swap itself is done, and is missing from the history",
        ) from error


def _route_path(project: Project, route_id: str) -> Path:
    return project.kind_dir("route") / f"{route_id}.toml"


def _find(project: Project, route_id: str) -> Path:
    folder = project.kind_dir("route")
    known = sorted(path.stem for path in folder.glob("[!.]*.toml"))
    found = [name for name in known if name == route_id] or [
        name for name in known if route_id and name.startswith(route_id)
    ]
    if len(found) == 1:
        return _route_path(project, found[0])
    what = "is ambiguous" if found else "does not exist"
    raise ArtefactMissing(
        f"route {route_id!r} {what}", hint=f"there are: {', '.join(known[:8]) or 'none'}"
    )


def _plain(route: Route) -> dict[str, Any]:
    """The fields as JSON-like values, without those that are not the route's own."""
    return {k: v for k, v in asdict(route).items() if k not in _NOT_ITS_OWN}


def _content_id(route: Route) -> str:
    return hash_json({k: v for k, v in _plain(route).items() if k != "id"})[:ID_CHARS]


def _to_toml(route: Route) -> str:
    lines = ["# Written by `own route promote`. Its name is its content: do not edit."]
    for name, value in _plain(route).items():
        if value is None:
            continue
        is_json = name in _JSON_FIELDS
        text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
        # a JSON string is a TOML basic string; Python writes its floats as TOML does
        lines.append(f"{name} = {json.dumps(text, ensure_ascii=False) if is_json else text}")
    return "\n".join(lines) + "\n"


def _from_table(table: dict[str, Any], path: Path) -> Route:
    known = {f.name for f in fields(Route)} - set(_NOT_ITS_OWN)
    for name in table:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else None
            raise InputError(f"unknown key {name!r}", where=str(path), hint=hint)
    values = dict(table)
    try:
        for name in _JSON_FIELDS:
            if name in values:
                values[name] = json.loads(values[name])
        values["prompt_hashes"] = tuple(values.get("prompt_hashes", ()))
        route = Route(**values, path=path)
    except (TypeError, ValueError) as error:
        raise InputError(f"is not a route: {error}", where=str(path)) from None
    _check(route, where=str(path))
    return route


_TEXTS = ("workload", "student_id", "verdict_id", "teacher", "check", "id")
_NUMBERS = ("threshold", "timeout_s", "max_prompt_tokens", "alpha", "beta", "delta", "near",
            "audit_frac", "run_length")  # fmt: skip
_SHARES = ("alpha", "beta", "delta", "audit_frac")


def _check(route: Route, where: str) -> None:
    """InputError unless every field has its type and makes sense."""
    check_workload_name(route.workload, where=where)
    for name in _TEXTS:
        if not isinstance(getattr(route, name), str):
            raise InputError(f"{name} must be text", where=where)
    if not route.student_id or not route.verdict_id:
        raise InputError("a route needs a student_id and a verdict_id", where=where)
    for name in _NUMBERS:
        _check_number(name, getattr(route, name), where)
    if route.run_length < 1:
        raise InputError(f"run_length must be at least 1, got {route.run_length!r}", where=where)
    if not all(isinstance(one, str) for one in route.prompt_hashes):
        raise InputError("prompt_hashes must be a list of texts", where=where)
    if not isinstance(route.confidence, Mapping) or not route.confidence:
        raise InputError("confidence must say its kind and parameters", where=where)
    if not isinstance(route.prune, Mapping | None) or not isinstance(route.decoding, Mapping):
        raise InputError("prune and decoding must be objects", where=where)


def _check_number(name: str, value: Any, where: str) -> None:
    """InputError unless the field holds a number that it may hold."""
    if value is None and name in ("max_prompt_tokens", "near"):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number, got {value!r}", where=where)
    if not math.isfinite(value):
        raise InputError(f"{name} must be finite, got {value!r}", where=where)
    if name not in ("threshold", "near") and value <= 0:
        raise InputError(f"{name} must be above 0, got {value!r}", where=where)
    if name in _SHARES and value >= 1:
        raise InputError(f"{name} must be below 1, got {value!r}", where=where)
