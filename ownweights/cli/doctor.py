"""`own doctor`: is this machine fit, and is this project whole? Looks only; changes nothing.

Each line is `ok`, `note` (works, but slower or not all of it) or `bad` (mend this), and any `bad`
makes the exit code 1. torch is looked up, not loaded, so that this answers at once; only with
`--workload` are a few training steps measured (and kept), to tell what a training would take.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from ownweights.cli.main import folder_of, project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import json_option, print_rows
from ownweights.core.database import has_database
from ownweights.core.errors import EXIT_ERROR, EXIT_OK, OwnError, SettingsError
from ownweights.core.project import Project

TORCH_PIN = "2.13.0"
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 10**9
CPU_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "note", "bad"]
    found: str


@click.command()
@click.option(
    "--workload",
    callback=workload_name,
    help="Measure what training its student would take, too, and whether it fits.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, workload: str | None, as_json: bool) -> int:
    """Look at this machine and this project, and say what is wrong."""
    findings = list(examine(folder_of(ctx)))
    if workload is not None:
        findings.append(find_training(ctx, workload))
    rows = [{"what": f.what, "state": f.state, "found": f.found} for f in findings]
    print_rows(rows, as_json=as_json)
    return EXIT_ERROR if any(f.state == "bad" for f in findings) else EXIT_OK


def examine(project: Project) -> Iterator[Finding]:
    """Every finding, cheapest first."""
    is_new_enough = sys.version_info >= MIN_PYTHON
    yield Finding("python", "ok" if is_new_enough else "bad", platform.python_version())
    yield find_torch()
    yield find_cpu(Path("/proc/cpuinfo"))
    yield Finding("threads", "ok", str(count_threads()))
    yield find_disk(project.root, MIN_FREE_BYTES)
    yield find_settings(project)
    yield from find_store(project)
    yield from find_artefacts(project)


def find_training(ctx: click.Context, workload: str) -> Finding:
    """What a student of the workload would take to train here, and whether it can."""
    from ownweights.cli.plan.fit import describe, estimate
    from ownweights.cli.student import find_dataset, options_of
    from ownweights.core.settings import load_settings
    from ownweights.student.preflight.estimate import is_foretold

    try:
        project = project_of(ctx)
        settings = load_settings(project).student_of(workload)
        dataset, options = find_dataset(project, workload, None), options_of(settings)
        if not is_foretold(options):
            what = f"{options.objective} by {options.method}: no estimate of what it takes"
            return Finding("training", "note", what)
        found = estimate(project, dataset, options)
    except OwnError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return Finding("training", "bad", error.what + hint)
    return Finding("training", "ok", describe(found))


def find_torch() -> Finding:
    """Whether students can be trained and served here."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torch", "note", "not installed: pip install 'ownweights[train]' to train")
    if version.split("+")[0] != TORCH_PIN:
        return Finding("torch", "note", f"{version}; measured and tested with {TORCH_PIN}")
    return Finding("torch", "ok", version)


def find_cpu(cpuinfo: Path) -> Finding:
    """Which of the instructions that make small models fast this processor has."""
    try:
        words = set(cpuinfo.read_text("utf-8", "replace").split())
    except OSError:
        return Finding("cpu", "note", f"{platform.machine()}, features unknown")
    has = [name for flag, name in CPU_FEATURES.items() if flag in words]
    return Finding("cpu", "ok" if has else "note", ", ".join(has) or "no vector instructions")


def count_threads() -> int:
    """How many threads this process may run at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_disk(root: Path, min_free_bytes: int) -> Finding:
    """Whether there is room where the project is, or will be."""
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    state = "ok" if free >= min_free_bytes else "note"
    return Finding("disk", state, f"{free / 1e9:.1f} GB free")


def find_settings(project: Project) -> Finding:
    """Whether own.toml can be read."""
    from ownweights.core.settings import load_settings

    if not project.settings_path.exists():
        return Finding("settings", "note", "no own.toml here: `own init` writes one")
    try:
        load_settings(project)
    except OwnError as error:
        return Finding("settings", "bad", error.what)
    return Finding("settings", "ok", str(project.settings_path))


def find_store(project: Project) -> Iterator[Finding]:
    """Whether all that was recorded can be read back."""
    from ownweights.core.settings import load_settings
    from ownweights.traffic import TrafficStore

    try:
        placed = load_settings(project).store.place(project)
        if not has_database(placed.database):
            yield Finding("store", "note", "nothing recorded here yet")
            return
        with TrafficStore.open(placed) as store:
            report = store.verify()
    except SettingsError:
        yield Finding("store", "note", "not looked at: the settings cannot be read")
        return
    except OwnError as error:
        yield Finding("store", "bad", error.what)
        return
    for fault in report.faults:
        yield Finding("store", "bad", fault)
    if report.is_sound:
        size = f"{report.records} records, {report.body_bytes / 1e6:.1f} MB of bodies"
        yield Finding("store", "ok", size)


def find_artefacts(project: Project) -> Iterator[Finding]:
    """Whether everything that was made has its files and its card."""
    from ownweights.core.artefact import list_artefacts
    from ownweights.dataset.load import list_datasets
    from ownweights.lineage.trace import FOLDER_KINDS

    for kind in FOLDER_KINDS:
        broken: dict[str, str] = {}
        if kind == "dataset":
            found = len(list_datasets(project, broken.__setitem__))
        else:
            found = len(list_artefacts(project.kind_dir(kind), kind, broken.__setitem__))
        for id_, why in broken.items():
            yield Finding(kind, "bad", f"{id_}: {why}")
        if found and not broken:
            yield Finding(kind, "ok", f"{found} whole")
