"""What a demo stands on: its folder, its traffic, its stand-in teacher, and the figures it
reports.

In: what `own demo` was asked. Out: a project folder with settings and recorded traffic, and a
running replay of the teacher. `loop.py` does the rest. Invariant: nothing outside the demo's
own folder is written, and a folder that is not a demo's is left alone
(test_demo_refuses_a_folder_that_is_not_its_own).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownweights.cli.output import Progress, say
from ownweights.core.artefact import write_atomic
from ownweights.core.errors import OwnError, UsageError
from ownweights.core.project import Project

if TYPE_CHECKING:
    from ownweights.verdict import Verdict

MARKER = "own-demo.json"
GENERATED = "requests.jsonl"
NUM_GENERATED = 4000
GENERATED_EPOCHS = 4  # enough for requests as regular as these, and a demo is short
TEACHER_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo was asked to do."""

    folder: Path
    traffic: Path | None = None
    workload: str | None = None
    seed: int = 1
    split_by: str = "auto"
    allow_teachers: tuple[str, ...] = ()
    num_generated: int = NUM_GENERATED


@dataclass(slots=True)
class Figures:
    """What is known so far; `to_json` has the same keys whatever happened."""

    records: int = 0
    splits: dict[str, int] = field(default_factory=dict[str, int])
    student: dict[str, Any] | None = None
    exact_frac: float | None = None
    verdict: Verdict | None = None
    claim: dict[str, float] = field(default_factory=dict[str, float])
    reasons: list[str] = field(default_factory=list[str])
    test_harm_frac: float | None = None
    test_selective_harm_frac: float | None = None
    served: dict[str, int] = field(default_factory=lambda: {"student": 0, "teacher": 0})
    began: float = field(default_factory=time.monotonic)

    @property
    def issued(self) -> bool:
        return self.verdict is not None and self.verdict.issued

    def to_json(self) -> dict[str, Any]:
        verdict = self.verdict
        certificate = {
            "issued": self.issued, **self.claim,
            "delta_spent": verdict.delta_spent if verdict else 0.0,
            "n": verdict.n if verdict else 0,
            "threshold": verdict.threshold if verdict else None,
            "coverage_frac": round(verdict.coverage_frac, 4) if verdict else 0.0,
            "reasons": [*self.reasons, *(verdict.reasons if verdict else ())],
        }  # fmt: skip
        blank = {"base": None, "trainable_params": 0, "seconds": 0.0, "tokens_per_s": 0.0}
        return {
            "records": self.records,
            **{name: self.splits.get(name, 0) for name in ("train", "develop", "certify", "test")},
            "student": self.student or blank, "exact_frac": self.exact_frac,
            "certificate": certificate, "test_harm_frac": self.test_harm_frac,
            "test_selective_harm_frac": self.test_selective_harm_frac, "served": self.served,
            "wall_s": round(time.monotonic() - self.began, 1),
        }  # fmt: skip


def open_folder(plan: Plan) -> Project:
    """The demo's folder: new, or an unfinished one of the same plan; a finished one is emptied.

    Raises: UsageError when the folder holds something else
    """
    folder, marker = plan.folder, plan.folder / MARKER
    about = {
        "traffic": str(plan.traffic), "workload": plan.workload, "seed": plan.seed,
        "split_by": plan.split_by, "allow_teachers": list(plan.allow_teachers),
        "num_generated": plan.num_generated,
    }  # fmt: skip
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise UsageError(
                f"{folder} exists and is not a demo's folder",
                hint="choose another with --dir; a demo writes only to a folder of its own",
            )
        found = _read_marker(marker)
        if found.pop("finished") or found != about:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(marker, json.dumps({**about, "finished": False}).encode())
    return Project(folder.resolve())


def _read_marker(marker: Path) -> dict[str, Any]:
    """What a demo noted about its folder; a folder of which nothing is known is not emptied."""
    try:
        found = json.loads(marker.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "finished" not in found:
        raise UsageError(
            f"{marker} is damaged: it does not say what the demo in this folder is about",
            hint="delete the folder unless you need it, or choose another with --dir",
        )
    return found


def close_folder(plan: Plan) -> None:
    """Note that the demo ran to its end, so that the next one starts anew."""
    marker = plan.folder / MARKER
    found = _read_marker(marker)
    write_atomic(marker, json.dumps({**found, "finished": True}).encode())


def traffic_file(plan: Plan, project: Project) -> Path:
    """The file to rehearse on: the one given, or generated requests."""
    if plan.traffic is not None:
        return plan.traffic.resolve()
    from ownweights.cli.requests import generate_requests

    path = project.root / GENERATED
    lines = (
        json.dumps(record, ensure_ascii=False)
        for record in generate_requests(plan.num_generated, plan.seed)
    )
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path


@contextlib.contextmanager
def replayed_teacher(path: Path, seed: int) -> Iterator[str]:
    """The rented model's stand-in, a real HTTP server of its own; yields its base URL."""
    words = ["teacher", "replay", str(path), "--port", "0", "--seed", str(seed), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ownweights.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        if not line:
            raise OwnError(f"the replay teacher did not start: exit code {process.wait()}")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait(TEACHER_START_S)
        if process.stdout is not None:
            process.stdout.close()


def write_settings(project: Project, plan: Plan, workload: str, teacher_url: str) -> None:
    """The demo's own.toml: the claim stands in it before any certify data are read."""
    from ownweights.core.strict import toml_key, toml_value
    from ownweights.core.tables import VerdictSettings

    claim, name = VerdictSettings(), toml_key(workload)
    epochs = f"\nepochs = {GENERATED_EPOCHS}" if plan.traffic is None else ""
    text = f"""\
# Written by `own demo`. The teacher is a replay of recorded answers, not a model.
[teacher.replay]
base_url = "{teacher_url}"

[workload.{name}]
teacher = "replay"
split_by = {toml_value(plan.split_by)}
allow_teachers = {toml_value(plan.allow_teachers)}

[student.{name}]
seed = {plan.seed}{epochs}

[verdict.{name}]
alpha = {claim.alpha}
beta = {claim.beta}
delta = {claim.delta}
min_coverage_frac = {claim.min_coverage_frac}
"""
    write_atomic(project.settings_path, text.encode())


def import_traffic(project: Project, path: Path, plan: Plan) -> tuple[str, int]:
    """Record the file into the store; the workload to rehearse and its number of records."""
    from ownweights.traffic import TrafficStore, import_file
    from ownweights.traffic.redact import Privacy

    with TrafficStore.open(project) as store, Progress("traffic") as bar:
        report = import_file(path, store, privacy=Privacy(project), on_progress=bar)
        known = {one.workload: one.records for one in store.workloads()}
    if not known:
        raise UsageError(f"{path} holds no request that can be used: {dict(report.skipped)}")
    workload = plan.workload or max(known, key=lambda name: known[name])
    if workload not in known:
        raise UsageError(f"{path} has no workload {workload!r}", hint=f"it has {', '.join(known)}")
    skipped = f", skipped {dict(report.skipped)}" if report.skipped else ""
    say(f"1 traffic  {known[workload]:,} records of workload {workload}{skipped}")
    return workload, known[workload]
