"""The pairs of answers that preferences are learned from, out of all places that hold some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ownweights.cli.output import Progress, say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.core.tables import VerdictSettings
    from ownweights.dataset import Dataset, Example
    from ownweights.dataset.pairs import Pair
    from ownweights.student.options import StudentOptions
    from ownweights.verdict.checks import Check


def preference_pairs(
    project: Project, dataset: Dataset, options: StudentOptions, *, verdict_id: str | None = None,
    rivals: Sequence[Pair] = (),
) -> list[Pair]:  # fmt: skip
    """What a run learns from: recorded pairs, a file's, a verdict's and rivals; none but for dpo.

    Raises: UsageError for a verdict's that another objective would not read
    """
    from ownweights.core.database import open_database
    from ownweights.core.errors import UsageError
    from ownweights.dataset.pairs import gather_pairs, read_pairs, verdict_pairs
    from ownweights.traffic import TrafficStore
    from ownweights.traffic.feedback import feedback_of

    if options.objective != "dpo":
        if verdict_id is not None:
            raise UsageError("--verdict gives pairs, which only the objective dpo learns from")
        return []
    with TrafficStore.open(project) as store, open_database(project.database) as database:
        said = feedback_of(database)
        pairs = gather_pairs(dataset, store.records(dataset.workload), said)
    if options.pairs is not None:
        path = project.root / Path(options.pairs).expanduser()
        pairs += read_pairs(
            dataset, path,
            on_left_out=lambda num, total: say(
                f"{num} of {total} pairs of {path.name} are left out: they are the same twice or"
                " nearly, or asked in certify or test"
            ),
        )  # fmt: skip
    if verdict_id is not None:
        from ownweights.verdict.store import load_rows

        rows, answers = load_rows(project, verdict_id)
        pairs += verdict_pairs(dataset, answers, {row.id: row.harm for row in rows})
    return list({pair.id: pair for pair in (*pairs, *rivals)}.values())


def rival_pairs(
    project: Project, dataset: Dataset, options: StudentOptions, settings: VerdictSettings,
    num: int,
) -> list[Pair]:  # fmt: skip
    """What the student to be trained answers to `num` train requests, and to develop's share of
    them, where the workload's check finds it harmful, against the recorded answers.

    Raises: SettingsError for a check that cannot be
    """
    from ownweights.cli.trial import check_of
    from ownweights.dataset.pairs import verdict_pairs
    from ownweights.student.objective.rivals import sample_answers, speaker
    from ownweights.verdict.checks import choose_check

    share = max(1, num // 8)
    examples = dataset.examples("train")[:num] + dataset.examples("develop")[:share]
    check = check_of(project, settings) or choose_check(one.target for one in examples)
    student = speaker(project, options.base, options.start)
    with Progress(f"rivals {dataset.workload}") as bar:
        answers = sample_answers(
            student, examples, seed=options.seed,
            on_progress=lambda done, total: bar(done, total, "answers"),
        )  # fmt: skip
    harms = _harms(check, examples, {one["id"]: one["answer"] for one in answers})
    pairs = verdict_pairs(dataset, answers, harms)
    say(f"rivals: {len(pairs)} of {len(answers)} answers are worse than the recorded ones")
    return pairs


def _harms(
    check: Check, examples: Sequence[Example], answers: dict[str, str]
) -> dict[str, float | None]:
    return {
        one.id: check.harm(answers[one.id], one.references) for one in examples if one.id in answers
    }
