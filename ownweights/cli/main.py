"""The door of the command line: decides, before anything heavy is imported, what is being asked.

In: the words after `own`. Out: an exit code. Invariant: help and version import neither click nor
numpy nor torch (test_help_loads_nothing_heavy), so that they cost little over bare Python
(bench/start.py).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would cost more than all of this file
if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from ownweights.core.project import Project

__all__ = ["folder_of", "main", "project_of"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words say, and return the exit code; errors are told on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--help"], ["-h"], []):
        from ownweights.cli.commands import help_text

        print(help_text(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words == ["--version"]:
        from ownweights import __version__

        print(f"own {__version__}")
        return 0
    from ownweights.cli.app import run

    return run(words)


def project_of(ctx: click.Context) -> Project:
    """The project that a command works on, with its store where the settings say.

    Raises: SettingsError for settings that cannot be read
    """
    from ownweights.core.settings import load_settings

    folder = folder_of(ctx)
    return load_settings(folder).store.place(folder)


def folder_of(ctx: click.Context) -> Project:
    """The folder of the project, `--project DIR` or else the current one, its settings unread."""
    from pathlib import Path

    from ownweights.core.project import Project

    return ctx.find_object(Project) or Project(Path.cwd())
