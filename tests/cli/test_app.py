"""The group: commands load one at a time, and whatever they raise ends in words and a code."""

from __future__ import annotations

import errno
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ownweights.cli import app as app_module
from ownweights.cli.app import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, run
from ownweights.cli.main import project_of
from ownweights.core.errors import InputError, OwnError, TermsRefused, UsageError

Raiser = Callable[[Callable[[], Any]], int]


@pytest.fixture
def run_raising(monkeypatch: pytest.MonkeyPatch) -> Raiser:
    """Runs `own probe`, a command whose body is the function given."""

    def runner(body: Callable[[], Any]) -> int:
        module = types.ModuleType("ownweights.cli.probe")
        module.probe = click.Command("probe", callback=body)  # pyright: ignore
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(app_module.SUMMARIES, "probe", "A command of this test.")
        return run(["probe"])

    return runner


def raises(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OwnError("it broke"), 1, "error: it broke\n"),
        (UsageError("not both", hint="leave one out"), 2, "error: not both\nhint: leave one out\n"),
        (
            InputError("not JSON", where="a.jsonl:3"),
            1,
            "error: a.jsonl:3: not JSON\n",
        ),
        (TermsRefused("denied"), 4, "error: denied\n"),
        (click.ClickException("said by click"), 1, "error: said by click\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.gz"),
            1,
            "error: No such file or directory: x.gz\n",
        ),
        (OSError("just words"), 1, "error: just words\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "\n"),
        (click.Abort(), EXIT_INTERRUPTED, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("text"), 1, "error: text\n"),
        (SystemExit(None), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_run_maps_errors_to_words_and_codes(
    error: BaseException, code: int, told: str, run_raising: Raiser,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run_raising(raises(error)) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", told)


def test_run_lets_a_defect_show_its_traceback(run_raising: Raiser) -> None:
    with pytest.raises(ZeroDivisionError):
        run_raising(raises(ZeroDivisionError("ours")))


@pytest.mark.parametrize(("result", "code"), [(None, 0), (3, 3), ("text", 0)])
def test_run_takes_an_exit_code_from_a_command(
    result: object, code: int, run_raising: Raiser
) -> None:
    assert run_raising(lambda: result) == code


def test_run_takes_an_exit_code_from_the_context(run_raising: Raiser) -> None:
    assert run_raising(lambda: click.get_current_context().exit(4)) == 4


def test_run_guesses_the_command_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trafic"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: there is no command 'trafic'; did you mean 'traffic'?\n"
        "hint: `own --help` lists what there is\n"
    )


def test_run_refuses_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--projekt", "x"]) == 2
    assert "error: No such option '--projekt'" in capsys.readouterr().err


def test_run_refuses_a_project_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert run(["--project", str(path), "doctor"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_run_gives_the_project_to_the_command(
    tmp_path: Path, run_raising: Raiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    run_raising(lambda: None)
    module = sys.modules["ownweights.cli.probe"]
    body = lambda: seen.append(project_of(click.get_current_context()).root)  # noqa: E731
    monkeypatch.setattr(module, "probe", click.Command("probe", callback=body))
    monkeypatch.chdir(tmp_path)
    assert run(["--project", "sub", "probe"]) == 0
    assert run(["probe"]) == 0
    assert seen == [tmp_path / "sub", tmp_path]


def test_app_imports_only_the_command_called() -> None:
    code = (
        "import sys; from ownweights.cli.app import run; run(['init', '--help']); "
        "print(*(m for m in sys.modules if m.startswith('ownweights.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    expected = {"main", "app", "commands", "init", "options", "output"}
    assert {name.split(".")[-1] for name in done.stderr.split()} <= expected


def test_broken_pipe_is_quiet() -> None:
    code = (
        "import sys, types, click; from ownweights.cli import app\n"
        "m = types.ModuleType('ownweights.cli.probe')\n"
        "m.probe = click.Command('probe', callback=lambda: print('x' * 10**6))\n"
        "sys.modules[m.__name__] = m; app.SUMMARIES['probe'] = ''\n"
        "sys.exit(app.run(['probe']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == EXIT_BROKEN_PIPE


def test_closed_stdout_is_quiet() -> None:
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    words = [sys.executable, "-c", code, "-m", "ownweights.cli", "--version"]
    done = subprocess.run(words, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65, "ü"])
@pytest.mark.parametrize(
    "words",
    [
        ["traffic", "list"], ["traffic", "export"], ["traffic", "import", "x.jsonl"],
        ["dataset", "build"], ["dataset", "list"], ["student", "train"], ["verdict", "run"],
        ["verdict", "certify"], ["demo"], ["init"], ["route", "rollback"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_that_no_workload_has_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    given = ["--", name] if words[0] == "route" else [f"--workload={name}"]
    assert run(["--project", str(tmp_path), *words, *given]) == 2
    said = capsys.readouterr().err
    assert f"{name!r} cannot name a workload; use up to 64 letters" in said
    assert list(tmp_path.iterdir()) == []
