"""`own teacher`: stand in for the rented model from recorded traffic, or see that it answers."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def teacher() -> None:
    """The rented model: replay recorded answers, check that one can be reached."""


@teacher.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--seed", default=0, show_default=True, help="Picks the first of several answers.")
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
