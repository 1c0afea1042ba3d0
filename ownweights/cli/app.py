"""The click group behind `own`: loads a command when it is called, and maps errors to exit codes.

In: words. Out: an exit code, and one `error:` and perhaps one `hint:` line on stderr. Invariants:
calling one command imports no other (test_app_imports_only_the_command_called); every OwnError ends
in its own exit code without a traceback (test_run_maps_errors_to_words_and_codes).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ownweights import __version__
from ownweights.cli.commands import SUMMARIES, help_text
from ownweights.core.errors import EXIT_ERROR, EXIT_OK, EXIT_USAGE, OwnError, nearest
from ownweights.core.project import Project

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of our output went away, as `head` does


class LazyGroup(click.Group):
    """A group whose commands are modules that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUMMARIES:
            return None
        return getattr(importlib.import_module(f"ownweights.cli.{cmd_name}"), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in SUMMARIES:
            like = nearest(args[0], SUMMARIES)
            guess = f"; did you mean {like!r}?" if like else ""
            raise click.UsageError(f"there is no command {args[0]!r}{guess}", ctx)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return help_text()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # caught here, for click would report it as a plain error
            return _drop_stdout()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--project", type=click.Path(file_okay=False, path_type=Path), default=Path("."))
@click.version_option(__version__, prog_name="own", message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context, project: Path) -> None:
    """Everything that `own` does."""
    ctx.obj = Project(project.resolve())


def run(words: Sequence[str]) -> int:
    """Run one command line to its exit code."""
    try:
        result: Any = app.main(list(words), prog_name="own", standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except SystemExit as stop:
        return _exit_code(stop.code)
    except OwnError as error:
        return _fail(error.what, error.hint, error.exit_code)
    except click.UsageError as error:
        return _fail(error.format_message(), _usage_hint(error.ctx), EXIT_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), None, EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _drop_stdout()
    except OSError as error:
        return _fail(_os_error_text(error), None, EXIT_ERROR)


def _fail(what: str, hint: str | None, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"error: {what}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    return code


def _exit_code(code: str | int | None) -> int:
    if isinstance(code, str):
        return _fail(code, None, EXIT_ERROR)
    return code or EXIT_OK


def _usage_hint(ctx: click.Context | None) -> str:
    return f"`{ctx.command_path if ctx else 'own'} --help` lists what there is"


def _os_error_text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}: {error.filename}" if error.filename else reason


def _drop_stdout() -> int:
    # the interpreter flushes stdout once more at exit, which must not raise again
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE
