"""`own teacher`: stand in for the rented model from recorded traffic, or see that it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import json_option, print_rows
from ownweights.core.errors import EXIT_ERROR, EXIT_OK, UsageError

if TYPE_CHECKING:
    from ownweights.core.settings import TeacherSettings


@click.group()
def teacher() -> None:
    """The rented model: replay recorded answers, check that one can be reached."""


@teacher.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Picks the first of several answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object.")
def replay(files: tuple[Path, ...], host: str, port: int, seed: int, as_json: bool) -> None:
    """Serve an OpenAI-compatible endpoint that answers from recorded traffic FILES."""
    from ownweights.teacher.replay import ReplayTeacher, serve_replay

    def on_ready(url: str, teacher: ReplayTeacher) -> None:
        facts = {
            "url": f"{url}/v1",
            "requests": teacher.num_requests,
            "skipped": dict(teacher.skipped),
            "system_fingerprint": teacher.fingerprint,
        }
        click.echo(json.dumps(facts) if as_json else f"{url}/v1")
        told = f"replay teacher: {teacher.num_requests} recorded requests, no model behind them"
        click.echo(told, err=True)

    serve_replay(files, host=host, port=port, seed=seed, on_ready=on_ready)


@teacher.command()
@click.argument("name", required=False)
@click.option("--ask", is_flag=True, help="Also ask for a short answer, which may cost money.")
@json_option
@click.pass_context
def check(ctx: click.Context, name: str | None, ask: bool, as_json: bool) -> int:
    """See whether the teacher NAME of own.toml answers; without NAME, every teacher.

    With --ask, also which model answers, under which fingerprint, how fast, and whether it gives
    logprobs, takes a seed and answers in JSON where that is asked for.
    """
    import asyncio

    from ownweights.core.settings import load_settings

    settings = load_settings(project_of(ctx))
    if name is not None and name not in settings.teacher:
        known = ", ".join(settings.teacher) or "none"
        raise UsageError(f"there is no teacher {name!r} in own.toml", hint=f"there are: {known}")
    if not settings.teacher:
        raise UsageError("own.toml names no teacher", hint="add [teacher.main] with base_url")
    names = list(settings.teacher) if name is None else [name]
    rows = [asyncio.run(_check_one(each, settings.teacher[each], ask)) for each in names]
    print_rows(rows, as_json=as_json)
    return EXIT_OK if all(row["ok"] for row in rows) else EXIT_ERROR


async def _check_one(name: str, row: TeacherSettings, ask: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from ownweights.core.errors import CompleterRefused, OwnError
    from ownweights.teacher.client import TeacherClient
    from ownweights.teacher.kinds import Kind
    from ownweights.teacher.probe import probe_endpoint

    found: dict[str, Any] = {"teacher": name, "base_url": row.base_url, "ok": False}
    try:
        async with TeacherClient.from_env(
            row.base_url, key_env=row.key_env, model=row.model or None, max_retries=0,
            timeout_s=row.timeout_s, kind=Kind(row.kind, row.api_version, row.max_tokens),
        ) as client:  # fmt: skip
            models: list[str] = []
            try:
                models = await client.models()
                found["models"] = len(models)
            except CompleterRefused:  # many an endpoint lists none, and answers all the same
                if not ask:
                    raise
                found["models"] = None
            if ask:
                model = row.model or (models[0] if models else "")
                found |= asdict(await probe_endpoint(client, model))
        return {**found, "ok": True, "what": "answers"}
    except OwnError as error:
        return {**found, "what": error.what}
