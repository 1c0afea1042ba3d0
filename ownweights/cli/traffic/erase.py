"""Erasing somebody's records everywhere: `own traffic delete`, in the order that survives a crash.

In: whose. Out: students trained on their examples marked, certificates of these void and their
routes sent back to the teacher, datasets without the examples, and at last the rows and bodies.
What is found goes after what is found through it: examples after the marks, rows last. So the next
run finds what a killed one left (test_delete_killed_anywhere_is_finished_by_the_next).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownweights.cli.output import say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.dataset.erase import ErasedExamples, Gone
    from ownweights.traffic import TrafficStore
    from ownweights.traffic.erase import Found, Whose
    from ownweights.traffic.retention import Progress, PruneReport

MAX_TEXTS = 500
_MIN_CHARS = 12
_READ_BYTES = 16 * 2**20
_BINARY = (".safetensors", ".seg", ".pt", ".bin", ".gguf")


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure did, or would do."""

    records: int
    datasets: tuple[ErasedExamples, ...]
    students: tuple[str, ...]
    voided: tuple[str, ...]
    copies: tuple[str, ...]
    elsewhere: tuple[str, ...]
    store: PruneReport | None


def erase_everywhere(
    store: TrafficStore,
    whose: Whose,
    *,
    with_backups: bool = False,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Erasure:
    """Erase records and all that was made of them, or say what that would be."""
    from ownweights.dataset.erase import erase_examples
    from ownweights.traffic.erase import erase, find

    project, found = store.project, find(store.database, whose)
    gone, texts = _gather(store, found)
    broken: dict[str, str] = {}
    datasets = erase_examples(project, gone, broken.__setitem__, dry_run=True)
    for dataset_id, why in broken.items():
        say(f"warning: dataset {dataset_id} cannot be read and may hold some of them: {why}")
    students = _mark_students(project, datasets, dry_run=dry_run)
    voided = [] if dry_run else _void(project, set(students))
    if not dry_run:
        erase_examples(project, gone)
    report = None if dry_run else erase(store, whose, on_progress)
    if with_backups and not dry_run:
        store.database.drop_copies()
    copies = tuple(store.database.copies())
    return Erasure(
        len(found), tuple(datasets), tuple(students), tuple(voided),
        copies, tuple(_elsewhere(project, texts)), report,
    )  # fmt: skip


def _gather(store: TrafficStore, found: list[Found]) -> tuple[dict[str, Gone], list[str]]:
    """What datasets are searched for, by workload; and texts to look for in other files."""
    from ownweights.dataset.erase import Gone
    from ownweights.traffic import asked_text
    from ownweights.traffic.erase import bodies_of

    gone: dict[str, Gone] = {}
    texts: dict[str, None] = {}
    for one, record in bodies_of(store, found):
        gone.setdefault(one.workload, Gone()).add(one.name, record)
        text = "" if record is None else asked_text(record.request)
        if len(text) >= _MIN_CHARS:
            texts[text] = None
    if len(texts) > MAX_TEXTS:
        say(f"warning: other files are searched for {MAX_TEXTS} of {len(texts)} different requests")
    return gone, list(texts)[:MAX_TEXTS]


def _mark_students(project: Project, datasets: list[ErasedExamples], *, dry_run: bool) -> list[str]:
    """Mark the students that were trained or tuned on erased examples, and whatever was made of
    them: students trained on or taught by them, bases merged from them. The students' ids."""
    from ownweights.core.artefact import list_artefacts
    from ownweights.core.tombstone import erased_lines, mark_erased
    from ownweights.dataset.dedupe import STUDIED
    from ownweights.dataset.load import split_file

    studied = {one.dataset_id: one.studied for one in datasets if one.studied}
    made = {
        (kind, one.id): one.card
        for kind in ("student", "base")
        for one in list_artefacts(project.kind_dir(kind), kind)
    }
    reached = _descendants(made, set(studied))
    for (kind, artefact_id), dataset_id in () if dry_run else reached.items():
        lines = erased_lines(project.kind_dir("dataset") / dataset_id)
        before = sum(lines.get(split_file(split), 0) for split in STUDIED)
        num = studied[dataset_id]
        mark_erased(project.kind_dir(kind), artefact_id, dataset_id, num, before=before)
    return [artefact_id for kind, artefact_id in reached if kind == "student"]


def _descendants(
    made: Mapping[tuple[str, str], Mapping[str, Any]], datasets: set[str]
) -> dict[tuple[str, str], str]:
    """What was made of these datasets, by way of others too, each with the dataset it was of."""
    reached: dict[tuple[str, str], str] = {}
    of_id: dict[str, str] = {one: one for one in datasets}
    while True:
        more = {
            key: of_id[next(one for one in sources if one in of_id)]
            for key, card in made.items()
            if key not in reached and not of_id.keys().isdisjoint(sources := _sources(card))
        }
        if not more:
            return reached
        reached |= more
        of_id |= {artefact_id: dataset_id for (_, artefact_id), dataset_id in more.items()}


def _sources(card: Mapping[str, Any]) -> list[str]:
    """What an artefact was made of: the parents on its card (its own dataset first), and the
    project's base or student that its base or teacher was named by."""
    parents, identity = card["parents"], card["identity"]
    named = [identity.get(name) for name in ("base_name", "teacher_name")]
    folders = [Path(name).name for name in named if isinstance(name, str)]
    return [str(parents.get("dataset", "")), *map(str, parents.values()), *folders]


def _void(project: Project, students: set[str]) -> list[str]:
    """Void the certificates of these students, and send their routes back to the teacher."""
    if not students:
        return []
    from ownweights.route.live import withdraw_void
    from ownweights.verdict import list_verdicts
    from ownweights.verdict.voiding import void_certificates

    voided = void_certificates(
        project,
        list_verdicts(project),
        lambda subject: subject.student in students,
        reason="examples that its student was trained on were erased",
        by="own traffic delete",
    )
    for line in withdraw_void(project):
        say(line)
    return [one.verdict_id for one in voided]


def _elsewhere(project: Project, texts: list[str]) -> list[str]:
    """Other files of the project that still hold what was asked, word for word."""
    import json

    if not texts:
        return []
    needles = {
        json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode("utf-8", "surrogatepass")
        for text in texts
        for is_ascii in (True, False)
    }
    return [
        path.relative_to(project.store_dir).as_posix()
        for path in sorted(project.store_dir.rglob("*"))
        if _is_searched(project, path) and _holds(path, needles)
    ]


def _is_searched(project: Project, path: Path) -> bool:
    top = path.relative_to(project.store_dir).parts[0]
    if top in ("bodies", "dataset") or top.startswith("own.db") or path.suffix in _BINARY:
        return False
    return path.is_file()


def _holds(path: Path, needles: set[bytes]) -> bool:
    """Whether a file holds one of these, however large it is; one that went meanwhile does not."""
    overlap, tail = max(map(len, needles)), b""
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                data = tail + data
                if any(needle in data for needle in needles):
                    return True
                tail = data[-overlap:]
    except OSError:
        return False
    return False
