"""`own student`: train one from a dataset, look at it, talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.options import workload_name
from ownweights.cli.output import Progress, json_option, print_json, print_listing, say, tell_broken
from ownweights.cli.plan.pairs import preference_pairs, rival_pairs
from ownweights.core.errors import EXIT_ERROR, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ownweights.core.artefact import Artefact
    from ownweights.core.project import Project
    from ownweights.core.tables import StudentSettings
    from ownweights.dataset.load import Dataset
    from ownweights.dataset.pairs import Pair
    from ownweights.student.distributed import Ranks
    from ownweights.student.train import StudentOptions


@click.group()
def student() -> None:
    """Learning: train, show, chat."""


@student.command()
@click.option(
    "--workload",
    required=True,
    callback=workload_name,
    help="The workload whose newest dataset is studied.",
)
@click.option("--dataset", "dataset_id", help="A dataset by id instead of the newest.")
@click.option("--base", help="The base to start from: seedling, a base id, or a folder.")
@click.option("--method", type=click.Choice(["lora", "qlora", "full"]), help="What is trained.")
@click.option("--rank", type=int, help="Rank of the adapter.")
@click.option("--epochs", type=float, help="Steps, in visits to every example.")
@click.option("--learning-rate", type=float, help="Peak step size.")
@click.option(
    "--hard-frac", type=float, help="Share of the examples, the costliest, that later passes visit."
)
@click.option("--swap/--no-swap", default=None, help="Exchange values among JSON answers.")
@click.option(
    "--compute-dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="What products are computed in.",
)
@click.option("--seed", type=int, help="Starts every random choice.")
@click.option(
    "--objective",
    type=click.Choice(["sft", "dpo", "distil", "logprobs", "on-policy", "text"]),
    help="What is learned: answers, preferences, a teacher's distributions, or documents.",
)
@click.option("--optimiser", type=click.Choice(["muon", "adamw"]), help="What moves matrices.")
@click.option("--head/--no-head", default=None, help="Adapt the output head, too.")
@click.option("--start", metavar="STUDENT", help="Train on with the adapter of this student.")
@click.option("--teacher", metavar="NAME", help="A base or student with the same tokenizer.")
@click.option("--divergence", type=float, help="0: forward KL; 1: reverse; between them JSD.")
@click.option("--temperature", type=float, help="Softens both distributions that are compared.")
@click.option("--ce-frac", type=float, help="Share of plain cross-entropy beside the teacher's.")
@click.option("--dpo-beta", type=float, help="How strongly preferences are held to the start.")
@click.option("--pairs", metavar="FILE", help="More pairs: messages, chosen, rejected.")
@click.option("--text", metavar="FILE", help="Documents: a text, or JSON lines with a text each.")
@click.option("--max-answer-tokens", type=int, help="Length of the student's own answers.")
@click.option("--packing", type=click.Choice(["nf4", "int8"]), help="How qlora holds the base.")
@click.option(
    "--verdict", "verdict_id", metavar="ID", help="For dpo: answers that this verdict kept, too."
)
@click.option(
    "--turns",
    type=click.Choice(["last", "all"]),
    help="Learn the recorded answer, or those before it in the conversation, too.",
)
@click.option(
    "--dry-run",
    "is_dry",
    is_flag=True,
    help="Train nothing: show three examples with what is trained of them, and every setting.",
)
@click.option(
    "--rivals",
    "num_rivals",
    type=click.IntRange(0, 10_000_000),
    default=0,
    metavar="N",
    help="For dpo: let it answer N train requests, and learn from what the check finds worse.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context, *, workload: str, dataset_id: str | None, verdict_id: str | None,
    num_rivals: int, is_dry: bool, as_json: bool, **given: Any,
) -> int:  # fmt: skip
    """Train a student; a run that was killed goes on where its last checkpoint was."""
    from ownweights.core.settings import load_settings

    project = project_of(ctx)
    flags = {f"student.{workload}.{key}": value for key, value in given.items()}
    settings = load_settings(project, flags=flags)
    dataset = find_dataset(project, workload, dataset_id)
    options = options_of(settings.student_of(workload))
    if num_rivals and options.objective != "dpo":
        raise click.UsageError("--rivals gives pairs, which only the objective dpo learns from")
    rivals = (
        rival_pairs(project, dataset, options, settings.verdict_of(workload), num_rivals)
        if num_rivals
        else ()
    )
    pairs = preference_pairs(project, dataset, options, verdict_id=verdict_id, rivals=rivals)
    if is_dry:
        from ownweights.cli.plan.dry_run import dry_run

        is_sound = dry_run(project, dataset, options, pairs, as_json=as_json)
        return EXIT_OK if is_sound else EXIT_ERROR
    from ownweights.cli.plan.fit import refuse_unless_it_fits
    from ownweights.student.distributed import joined

    with joined() as ranks:
        with ranks.in_turn():  # the others find what the first measured
            refuse_unless_it_fits(project, dataset, options)
        made = train_with_progress(project, dataset, options, pairs, ranks=ranks)
        if as_json:
            print_json({"id": made.id, "path": str(made.path), **made.card["facts"]})
        else:
            click.echo(made.id)
    return EXIT_OK


@student.command()
@click.argument("student_id", required=False)
@json_option
@click.pass_context
def show(ctx: click.Context, student_id: str | None, as_json: bool) -> None:
    """Show a student's card, or all students."""
    from ownweights.core.artefact import list_artefacts, open_artefact
    from ownweights.core.tombstone import erased_mark

    folder = project_of(ctx).kind_dir("student")
    if student_id:
        found = open_artefact(folder, student_id, "student", verify=True)
        print_json(found.card)
        if (mark := erased_mark(folder, found.id)) is not None:
            say(f"trained before {mark.note}: train it again without them")
        return
    broken: dict[str, str] = {}
    rows = [_row(artefact) for artefact in list_artefacts(folder, "student", broken.__setitem__)]
    empty = "no student yet: `own student train`"
    print_listing("student", rows, broken, as_json=as_json, empty=empty)


@student.command()
@click.argument("student_id")
@click.argument("text")
@click.option("--system", help="A system prompt before the text.")
@click.pass_context
def chat(ctx: click.Context, student_id: str, text: str, system: str | None) -> None:
    """Ask a student one thing and print its answer."""
    import asyncio

    from ownweights.core.artefact import open_artefact
    from ownweights.core.chat import ChatRequest, Completion
    from ownweights.dataset.prune import PruneRule, apply_prune
    from ownweights.engine.client import EngineProcess

    project = project_of(ctx)
    card = open_artefact(project.kind_dir("student"), student_id, "student").card
    rule = card["identity"].get("prune")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    pruned = apply_prune(PruneRule.from_json(rule) if rule else None, messages)
    engine = EngineProcess.start(project, [card["id"]])

    async def ask() -> Completion:
        completer = engine.completer(card["id"])
        try:
            return await completer.complete(ChatRequest.of(pruned))
        finally:
            await completer.close()

    try:
        click.echo(asyncio.run(ask()).text or "")
    finally:
        engine.stop()


def find_dataset(project: Project, workload: str, dataset_id: str | None) -> Dataset:
    """The dataset asked for, or the newest one of a workload that can be read.

    Raises: ArtefactMissing when there is none
    """
    from ownweights.core.errors import ArtefactMissing
    from ownweights.dataset.load import list_datasets, load_dataset

    if dataset_id:
        return load_dataset(project, dataset_id)
    broken: dict[str, str] = {}
    listed = list_datasets(project, broken.__setitem__)
    tell_broken("dataset", broken)
    found = [one for one in listed if one.workload == workload]
    if not found:
        raise ArtefactMissing(
            f"there is no dataset of workload {workload!r}",
            hint=f"own dataset build --workload {workload}",
        )
    return found[-1]


def options_of(settings: StudentSettings, **given: Any) -> StudentOptions:
    """The training options that a settings table stands for."""
    from ownweights.student.train import StudentOptions

    return StudentOptions(
        base=settings.base, method=settings.method, rank=settings.rank,
        lora_alpha=settings.lora_alpha, epochs=settings.epochs,
        learning_rate=settings.learning_rate, rows_per_step=settings.rows_per_step,
        hard_frac=settings.hard_frac, swap=settings.swap, turns=settings.turns,
        seed=settings.seed, compute_dtype=settings.compute_dtype,
        objective=settings.objective, optimiser=settings.optimiser, head=settings.head,
        start=settings.start, teacher=settings.teacher, divergence=settings.divergence,
        temperature=settings.temperature, ce_frac=settings.ce_frac, dpo_beta=settings.dpo_beta,
        pairs=settings.pairs, text=settings.text, max_answer_tokens=settings.max_answer_tokens,
        packing=settings.packing,
        **given,
    )  # fmt: skip


def train_with_progress(
    project: Project, dataset: Dataset, options: StudentOptions, pairs: Sequence[Pair] = (),
    *, ranks: Ranks | None = None,
) -> Artefact:  # fmt: skip
    """Train a student in this process, with a bar that shows loss and tokens a second."""
    from ownweights.model.memory import keep_freed_memory

    keep_freed_memory()
    from ownweights.student.study import Materials
    from ownweights.student.train import train_student
    from ownweights.student.trainer import StepReport

    recent: list[StepReport] = []
    with Progress(f"train {dataset.workload}") as bar:

        def on_step(report: StepReport) -> None:
            recent.append(report)
            del recent[:-20]
            speed = sum(r.num_tokens for r in recent) / sum(r.seconds for r in recent)
            loss = sum(r.loss for r in recent) / len(recent)
            bar(report.step, report.num_steps, f"loss {loss:.4f}  {speed:,.0f} tokens/s")

        made = train_student(
            dataset,
            project,
            options=options,
            on_step=on_step,
            materials=Materials(pairs),
            ranks=ranks,
        )
    for name, why in made.card["identity"]["derived"].items():
        say(f"{name} = {made.card['identity'][name]}: {why}")
    for name, why in made.card["facts"].get("reasons", {}).items():
        say(f"{name}: {why}")
    return made


def _row(artefact: Artefact) -> dict[str, Any]:
    from ownweights.core.tombstone import erased_mark

    mark = erased_mark(artefact.path.parent, artefact.id)
    identity, facts = artefact.card["identity"], artefact.card["facts"]
    return {
        "id": artefact.id, "dataset": artefact.card["parents"].get("dataset"),
        "base": identity.get("base_name"), "method": identity.get("method"),
        "epochs": identity.get("epochs"), "develop_loss": facts.get("develop_loss"),
        "tokens_per_s": facts.get("tokens_per_s"), "erased": mark.num if mark else None,
    }  # fmt: skip
