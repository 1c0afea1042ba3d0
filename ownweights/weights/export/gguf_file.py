"""A student, its adapter or a base of a project as a GGUF file.

In: a project, and a student's id or a base's name. Out: the file, and for merged weights what
storing them left of the update. Weights are merged in float32 and rounded once, into the file
(test_export_gguf_rounds_once).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownweights.core.artefact import Artefact, open_artefact
from ownweights.core.errors import ArtefactMissing, UsageError
from ownweights.core.project import Project
from ownweights.model.config import read_config
from ownweights.weights.base import resolve_base
from ownweights.weights.export import gguf_adapter
from ownweights.weights.export.gguf_adapter import write_adapter_gguf
from ownweights.weights.export.gguf_model import write_model_gguf
from ownweights.weights.export.numbers import as_stored
from ownweights.weights.export.peft_folder import read_student_adapter
from ownweights.weights.load import load_model
from ownweights.weights.merge import Survival, measure_survival, refuse_lost
from ownweights.weights.save import check_outside
from ownweights.weights.student import assemble, load_student

_BLOCKS = "q8_0"  # its rounding is of no one direction, and quantising is what was asked for


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What was written: a base, a student (merged), or an adapter."""

    path: Path
    kind: str
    dtype: str
    survival: Survival | None = None


def export_gguf(
    project: Project, name: str, path: Path, *, dtype: str = "f16", is_forced: bool = False
) -> GgufFile:
    """Write the student or base `name` as one GGUF file.

    Raises: ArtefactMissing when there is neither; ModelError for what llama.cpp could not run;
    UpdateLost when the format would not hold the update, unless forced
    """
    check_outside(project, path)
    artefact = _student(project, name)
    if artefact is None:
        folder = _base(project, name)
        write_model_gguf(assemble(name, load_model(folder), folder), folder, path, dtype=dtype)
        return GgufFile(path, "base", dtype)
    student = load_student(project, artefact.id)
    base = resolve_base(project, str(artefact.card["identity"]["base_name"]))
    layers, overall = measure_survival(
        load_model(base).state_dict(),
        student.model.state_dict(),
        lambda one: as_stored(one, dtype),
    )
    if not (is_forced or dtype == _BLOCKS):
        refuse_lost(artefact.id, layers, overall, dtype)
    write_model_gguf(student, base, path, dtype=dtype)
    return GgufFile(path, "student", dtype, overall)


def export_adapter_gguf(
    project: Project, student_id: str, path: Path, *, dtype: str = "f32"
) -> GgufFile:
    """Write the student's adapter for llama.cpp, to be put on its base.

    Raises: UsageError for a format that factors are not stored in; ModelError
    """
    if dtype not in gguf_adapter.DTYPES:
        raise UsageError(
            f"an adapter is not stored as {dtype}, expected {', '.join(gguf_adapter.DTYPES)}"
        )
    check_outside(project, path)
    artefact, adapter, base = read_student_adapter(project, student_id)
    write_adapter_gguf(adapter, read_config(base), path, dtype=dtype, name=artefact.id)
    return GgufFile(path, "adapter", dtype)


def _student(project: Project, name: str) -> Artefact | None:
    try:
        return open_artefact(project.kind_dir("student"), name, "student")
    except ArtefactMissing:
        return None


def _base(project: Project, name: str) -> Path:
    try:
        return resolve_base(project, name)
    except ArtefactMissing as error:
        raise ArtefactMissing(
            f"there is neither a student nor a base {name!r}",
            hint=f"own student show lists the students; for a base, {error.hint}",
        ) from None
