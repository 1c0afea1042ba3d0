"""The table of commands, which is also the help text: `own --help` needs nothing but this file.

A command's module is `ownweights.cli.<name>` and its click object is called `<name>` too.
Invariants: every line has a module and every module a line (test_commands_match_the_modules); the
summary is the first line of the command's help (test_summary_is_the_first_line_of_the_help).
"""

SUMMARIES = {
    "demo": "Run the whole loop once, from requests to a served student.",
    "init": "Write a commented own.toml.",
    "serve": "Run the gateway: OpenAI-compatible HTTP in front of teacher and students.",
    "key": "Keys of the gateway's own, with budgets and rates: add, list, set, revoke.",
    "traffic": "What was asked and answered: import, list, search, export, delete.",
    "scan": "Before training: cost, repeats, the teacher's noise, what a proof needs.",
    "dataset": "What the student will study: build, show, export.",
    "base": "The open weights that students start from: train, show.",
    "student": "Learning: train, show, chat.",
    "weights": "Files of numbers: merge, export, extend, check.",
    "verdict": "Is the student good enough: run, certify, show, report.",
    "drift": "Is the rented model still the one certified against: status, run.",
    "lineage": "Where an artefact came from, and what that allows: show, check, terms.",
    "route": "Who answers which request: status, promote, rollback.",
    "teacher": "The rented model: replay recorded answers, check that one can be reached.",
    "config": "The settings in force, and where each came from.",
    "doctor": "Look at this machine and this project, and say what is wrong.",
}

OPTIONS = (
    ("--project DIR", "The project folder.  [default: the current one]"),
    ("--version", "Print the version and stop."),
    ("-h, --help", "Print this text and stop."),
)

_HEAD = """\
Usage: own [--project DIR] COMMAND ...

  Turn the traffic to a rented model into a small model of your own, prove that
  it is good enough, and move requests to it: traffic -> dataset -> student ->
  verdict -> route.
"""
_TAIL = """\
Data go to stdout and talk to stderr. Exit codes: 0 ok, 1 error, 2 usage,
3 undecided, 4 refused.  `own COMMAND --help` says more."""


def help_text() -> str:
    """What `own --help` prints."""
    return "\n".join(
        [
            _HEAD,
            "Commands:",
            *_columns(tuple(SUMMARIES.items())),
            "",
            "Options:",
            *_columns(OPTIONS),
            "",
            _TAIL,
        ]
    )


def _columns(rows: tuple[tuple[str, str], ...]) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}" for left, right in rows]
