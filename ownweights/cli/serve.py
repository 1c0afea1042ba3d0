"""`own serve`: the gateway."""

from __future__ import annotations

import click

from ownweights.cli.main import project_of
from ownweights.cli.output import json_option, print_json, say


@click.command()
@click.option("--host", default=None, help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, default=None, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--key-env", default=None, metavar="NAME",
    help="Environment variable with the key that callers must show to be answered by students.",
)  # fmt: skip
@click.option("--admin-port", type=int, default=None, help="Port of metrics and pages.")
@click.option("--log", type=click.Choice(["text", "json"]), default=None, help="Form of the log.")
@click.option("--quiet", is_flag=True, help="No line a request on stderr, only what goes wrong.")
@json_option
@click.pass_context
def serve(
    ctx: click.Context, host: str | None, port: int | None, key_env: str | None, *,
    admin_port: int | None, log: str | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the gateway: OpenAI-compatible HTTP in front of teacher and students.

    Prints the address once it answers; change your client's base_url to it and nothing else. Each
    request is a line on stderr: id, workload, status, who answered, why, and how long it took.
    """
    from ownweights.core.settings import load_settings
    from ownweights.gateway.run import logging_to_stderr, run_gateway
    from ownweights.gateway.settings import GatewaySettings
    from ownweights.teacher.serving import is_loopback

    project = project_of(ctx)
    flags = {
        "gateway.host": host, "gateway.port": port, "gateway.key_env": key_env,
        "gateway.admin_port": admin_port, "gateway.log": log,
    }  # fmt: skip

    def load() -> GatewaySettings:
        return GatewaySettings.of(load_settings(project, flags=flags))

    settings = load()
    if not is_loopback(settings.host):
        say(f"warning: {settings.host} can be reached by other machines, without encryption")
        if not settings.key_env:
            say("warning: without --key-env students answer only who shows a key of `own key add`")
    if settings.admin_host and not is_loopback(settings.admin_host):
        say(f"warning: {settings.admin_host} shows recorded traffic to whoever can reach it")
    if not settings.teachers:
        say("warning: no [teacher.NAME] in own.toml: what students may not answer fails")
    elif not settings.default_teacher:
        say("warning: several [teacher.NAME], and none is everybody's: requests of a workload that"
            " names no teacher fail")  # fmt: skip

    def on_ready(url: str, admin_url: str | None) -> None:
        if as_json:
            print_json({"url": url, "base_url": f"{url}/v1", "admin_url": admin_url})
        else:
            click.echo(f"{url}/v1")

    with logging_to_stderr(is_quiet=quiet, form=settings.log):
        run_gateway(project, settings, on_ready=on_ready, reload=load)
