"""`own demo`: the whole loop once, on generated requests or on recorded traffic."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ownweights.cli.options import workload_name
from ownweights.cli.output import json_option, print_json, say

if TYPE_CHECKING:
    from ownweights.cli.demo.rehearsal import Figures, Plan
    from ownweights.core.project import Project
    from ownweights.dataset import Dataset
    from ownweights.gateway import Background


@click.command()
@click.option(
    "--traffic",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Recorded traffic to rehearse on, instead of generated requests.",
)
@click.option(
    "--workload", callback=workload_name, help="The workload in it.  [default: the largest]"
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=1,
    show_default=True,
    help="Starts every random choice; the splits do not depend on it.",
)
@click.option(
    "--split-by",
    default="auto",
    show_default=True,
    help="What stays together in a split: session, prompt, or a metadata key.",
)
@click.option(
    "--allow-teacher",
    multiple=True,
    metavar="MODEL",
    help="Learn from this model's answers although its terms deny it.",
)
@click.option(
    "--records",
    type=click.IntRange(1, 1_000_000),
    default=4000,
    show_default=True,
    help="How many requests to generate, where no traffic is given.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The demo's own folder.  [default: own-demo/NAME-seedN]",
)
@click.option("--no-serve", is_flag=True, help="Stop at the end instead of serving on.")
@json_option
@click.pass_context
def demo(
    ctx: click.Context, *, traffic: Path | None, workload: str | None, seed: int, split_by: str,
    allow_teacher: tuple[str, ...], records: int, folder: Path | None, no_serve: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the whole loop once, from requests to a served student.

    Ends with exit code 4 where the student is refused: that is a result, not a failure.
    """
    from ownweights.cli.demo.rehearsal import Plan
    from ownweights.core.errors import EXIT_REFUSED

    name = workload or (traffic.name.split(".")[0] if traffic else "generated")
    place = folder or Path("own-demo") / f"{name}-seed{seed}"
    plan = Plan(
        place, traffic=traffic, workload=workload, seed=seed, split_by=split_by,
        allow_teachers=allow_teacher, num_generated=records,
    )  # fmt: skip
    if not rehearse(plan, serve=not no_serve, as_json=as_json):
        ctx.exit(EXIT_REFUSED)


def rehearse(plan: Plan, *, serve: bool, as_json: bool) -> bool:
    """Run the demo; whether the student was certified."""
    from ownweights.cli.demo import rehearsal
    from ownweights.cli.demo.loop import prepare

    figures = rehearsal.Figures()
    project = rehearsal.open_folder(plan)
    path = rehearsal.traffic_file(plan, project)
    with contextlib.ExitStack() as stack:
        workload, figures.records = rehearsal.import_traffic(project, path, plan)
        teacher_url = stack.enter_context(rehearsal.replayed_teacher(path, plan.seed))
        rehearsal.write_settings(project, plan, workload, teacher_url)
        dataset = prepare(project, plan, workload, figures)
        gateway: Background | None = None
        if dataset is not None:
            gateway = _open_gateway(stack, project, dataset, figures)
        rehearsal.close_folder(plan)
        _print(plan, figures, as_json)
        if gateway is not None and figures.issued and serve:
            _serve_on(gateway)
    return figures.issued


def _open_gateway(
    stack: contextlib.ExitStack, project: Project, dataset: Dataset, figures: Figures
) -> Background:
    """Route by the certificate where there is one, start the gateway, send the test split."""
    from ownweights.cli.demo.loop import rule_of, send_test_split
    from ownweights.cli.route import promote_verdict
    from ownweights.gateway import background

    assert figures.verdict is not None, "a dataset leads to a verdict"
    if figures.issued:
        route = promote_verdict(project, figures.verdict.id, stage="served")
        say(f"5 route    {route.id}: student {route.student_id} from score {route.threshold:.4g}")
    else:
        say("5 route    none: everything stays with the teacher")
    gateway = stack.enter_context(background(project))
    check = rule_of(project, figures.verdict.subject)
    send_test_split(gateway.base_url, dataset, check, figures)
    return gateway


def _print(plan: Plan, figures: Figures, as_json: bool) -> None:
    if as_json:
        print_json(figures.to_json())
        return
    found = figures.to_json()
    certificate = found["certificate"]
    if figures.verdict is not None and figures.verdict.issued:
        counted = figures.verdict.subject.counted
        share = figures.verdict.coverage_frac
        click.echo(f"certified: the student may answer {share:.0%} of {counted}")
    else:
        click.echo("refused: this traffic stays with the teacher")
        for reason in certificate["reasons"]:
            click.echo(f"  {reason}")
    if found["exact_frac"] is not None:
        click.echo(
            f"exact answers of the student alone on the test split: {found['exact_frac']:.1%}"
        )
    say(f"everything is in {plan.folder}; {found['wall_s']:.0f} s")


def _serve_on(gateway: Background) -> None:
    say(
        f"\nthe gateway runs until Ctrl-C. With any OpenAI client:\n\n"
        f'  client = OpenAI(base_url="{gateway.base_url}", api_key="unused")\n'
    )
    with contextlib.suppress(KeyboardInterrupt):
        gateway.process.wait()
