"""Answers that are Python, judged by tests, in a sandbox that is tried here from the inside."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from ownweights.core.errors import SettingsError
from ownweights.verdict.checks import check_named
from ownweights.verdict.checks.code import CodeCheck
from ownweights.verdict.checks.confined import MACHINES, filter_program
from ownweights.verdict.checks.process import Bounds, Ran, run_confined

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"
PROBE = run_confined({"job": "regex", "pairs": [], "search": False, "ignore_case": False},
                     Bounds(10, 1 << 29, isolated="partial"))  # fmt: skip
IS_ISOLATED = bool(PROBE.isolation) and all(PROBE.isolation.values())
CHECK = CodeCheck(isolation="full" if IS_ISOLATED else "partial")

isolated = pytest.mark.skipif(
    not IS_ISOLATED, reason=f"this kernel keeps code from: {dict(PROBE.isolation)}"
)


@pytest.mark.parametrize(
    ("answer", "tests", "harm"),
    [
        (ADD, TESTS, 0.0),
        ("def add(a, b):\n    return a - b\n", TESTS, 1.0),
        ("def plus(a, b):\n    return a + b\n", TESTS, 1.0),
        ("def add(a, b)\n    return a + b\n", TESTS, 1.0),
        ("add = sum", TESTS, 1.0),
        ("import math\n" + ADD, TESTS, 0.0),
        ("import numpy\n" + ADD, TESTS, 1.0),
        (ADD + "raise ValueError\n", TESTS, 1.0),
        (ADD + "print('x' * 100_000)\n", TESTS, 0.0),
        (ADD + "if __name__ == '__main__':\n    raise SystemExit(1)\n", TESTS, 0.0),
        (ADD, "def test_add():\n    assert add(1, 1) == 2\n", 0.0),
        (ADD, "def test_add():\n    assert add(1, 1) == 3\n", 1.0),
        (ADD, "def check(f):\n    assert f(1, 1) == 2\ncheck(add)\n", 0.0),
        (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n"
              "        self.assertEqual(add(1, 1), 2)\n", 0.0),
        (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n"
              "        self.assertEqual(add(1, 1), 3)\n", 1.0),
        (ADD, ADD, None),  # an answer, not a test
        (ADD, "assert True", None),  # passes without any answer
        (ADD, "assert (", None),
        (ADD, "import numpy\n" + TESTS, None),
        (ADD, "from solution import add\n" + TESTS, None),
        (ADD, "def test_add(fixture):\n    assert add(1, 1) == 2\n", None),
        (ADD, "while True:\n    pass\nassert add(1, 1)\n", None),
        ("", TESTS, 1.0),
        ("not python", "not python either", None),
    ],
)  # fmt: skip
def test_code_is_judged_by_its_tests(answer: str, tests: str, harm: float | None) -> None:
    check = CodeCheck(isolation=CHECK.isolation, timeout_s=2)
    assert check.harm(answer, [tests]) == harm


@pytest.mark.parametrize(
    "ending",
    ["import sys; sys.exit(0)", "import os; os._exit(0)", "exit()", "raise SystemExit",
     "raise KeyboardInterrupt", "import os; os.abort()", "import atexit, os\nos._exit(0)",
     "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "while True: pass",
     "x = []\nwhile True: x.append('x' * 1_000_000)",
     "def f(): f()\nf()", "import threading\nthreading.Event().wait()"],
)  # fmt: skip
def test_code_that_exits_has_not_passed(ending: str) -> None:
    check = CodeCheck(isolation=CHECK.isolation, timeout_s=1.5)
    assert check.harm(ADD + ending, [TESTS]) == 1.0


def test_code_must_meet_every_demand() -> None:
    assert CHECK.harm(ADD, [TESTS, "assert add('a', 'b') == 'ab'"]) == 0.0
    assert CHECK.harm(ADD, [TESTS, "assert add(1, 1) == 3"]) == 1.0
    assert CHECK.harm(ADD, [TESTS, "no tests at all ("]) is None
    assert CHECK.harm("pass", [TESTS, "no tests at all ("]) == 1.0


def test_code_reads_a_fence_when_told() -> None:
    fenced = f"```python\n{ADD}```"
    assert CHECK.harm(fenced, [TESTS]) == 1.0
    check = check_named(f"code fence=true isolation={CHECK.isolation}")
    assert check.harm(fenced, [TESTS]) == 0.0
    assert check.harm(ADD, [TESTS]) == 0.0
    assert check.harm(f"Sure!\n{fenced}", [TESTS]) == 1.0


def test_code_with_a_file_of_tests(tmp_path: Path) -> None:
    (tmp_path / "harness.py").write_text("def same(a, b):\n    assert a == b\n")
    options = f"isolation={CHECK.isolation}"
    check = check_named(f"code tests=harness.py {options}", tmp_path)
    assert check.harm(ADD, ["same(add(1, 2), 3)"]) == 0.0
    assert check.harm(ADD, ["same(add(1, 2), 4)"]) == 1.0
    assert check.harm(ADD, []) is None  # it demands nothing by itself
    (tmp_path / "whole.py").write_text(TESTS)
    whole = check_named(f"code tests=whole.py {options}", tmp_path)
    assert (whole.harm(ADD, []), whole.harm("add = max", [])) == (0.0, 1.0)
    (tmp_path / "broken.py").write_text("def (")
    with pytest.raises(SettingsError, match="is not Python"):
        check_named("code tests=broken.py", tmp_path)


def inside(code: str, tests: str = "assert done") -> Ran:
    """Run code in the sandbox as an answer is."""
    return CodeCheck(isolation="full", timeout_s=5).run(code, tests)


def refused(code: str, error: str = "PermissionError") -> bool:
    """Whether the last line of the code raises that error in the sandbox."""
    *setup, last = code.strip().splitlines()
    lines = [*setup, "done = False", "try:", f"    {last}", f"except {error}:", "    done = True"]
    return inside("\n".join(lines)).said == "passed"


@isolated
def test_confined_code_cannot_write_elsewhere(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    assert refused(f"open({str(kept)!r}, 'w')")
    assert refused(f"open({str(kept)!r}, 'a')")
    assert refused(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert refused(f"import os\nos.remove({str(kept)!r})")
    assert refused(f"import os\nos.rename({str(kept)!r}, 'mine')", "OSError")
    assert refused(f"import os\nos.mkdir({str(tmp_path / 'dir')!r})")
    assert refused(f"import os\nos.rmdir({str(tmp_path)!r})")
    assert refused(f"import os\nos.symlink('a', {str(tmp_path / 'link')!r})")
    assert refused(f"import os\nos.truncate({str(kept)!r}, 0)")
    assert refused(f"import os\nos.chmod({str(kept)!r}, 0)")
    assert refused(f"import shutil\nshutil.rmtree({str(tmp_path)!r})")
    assert kept.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@isolated
def test_confined_code_may_use_its_own_folder() -> None:
    code = (
        "import os, tempfile\nopen('a', 'w').write('x')\nos.mkdir('d')\nos.rename('a', 'd/b')\n"
        "with tempfile.TemporaryFile() as file:\n    file.write(b'x')\n"
        "open(os.devnull, 'w').write('x')\ndone = open('d/b').read() == 'x'"
    )
    assert inside(code).said == "passed"


@isolated
def test_confined_code_cannot_use_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert refused(f"import socket\nsocket.create_connection({address!r})")
    for family in ("AF_INET", "AF_INET6", "AF_UNIX"):
        assert refused(f"import socket\nsocket.socket(socket.{family})")


@isolated
def test_confined_code_cannot_start_or_reach_processes() -> None:
    assert refused("import os\nos.fork()")
    assert refused("import subprocess\nsubprocess.run(['true'])")
    assert refused("import os\nos.system('true') and 1 / 0", "ZeroDivisionError")
    assert refused("import os\nos.execv('/bin/true', ['true'])")
    assert refused(f"import os\nos.kill({os.getpid()}, 0)")
    threads = "import threading\nx = []\nt = threading.Thread(target=x.append, args=(1,))\n"
    assert inside(f"{threads}t.start()\nt.join()\ndone = x == [1]").said == "passed"


@isolated
def test_confined_code_cannot_raise_its_limits() -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))"
    assert refused(code, "(ValueError, PermissionError)")
    assert refused("bytearray(1 << 30)", "MemoryError")
    assert refused("open('a', 'wb').write(bytes(20_000_000))", "OSError")
    assert refused("kept = [open('/dev/null') for _ in range(200)]", "OSError")


def test_confined_code_sees_an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "abc")
    code = "import os, sys\ndone = 'SECRET_KEY' not in os.environ and 'site' not in sys.modules"
    assert CHECK.run(code, "assert done").said == "passed"


def test_code_refuses_a_machine_that_cannot_isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfined(job: object, bounds: object) -> Ran:
        return Ran(None, {"files": False, "network": True}, is_unconfined=True)

    monkeypatch.setattr("ownweights.verdict.checks.code.run_confined", unconfined)
    with pytest.raises(SettingsError, match="keep the code of an answer from: files") as info:
        CodeCheck().run("", "")
    assert "code isolation=partial" in (info.value.hint or "")


def test_run_confined_leaves_no_process_behind() -> None:
    marker = f"own-check-test-{os.getpid()}"
    code = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c',"
        f" 'import time; time.sleep(600)', {marker!r}])\nwhile True: pass"
    )
    job = {"job": "code", "answer": code, "tests": ""}
    ran = run_confined(job, Bounds(3, 1 << 30))  # without isolation it may start others
    assert ran.is_timeout and ran.said is None
    until = time.monotonic() + 20
    while (alive := running(marker)) and time.monotonic() < until:
        pass
    assert not alive


def running(marker: str) -> bool:
    """Whether a process with that word on its command line is alive."""
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if marker.encode() in words and state not in "ZX":
            return True
    return False


def simulate(program: bytes, audit: int, number: int, first: int = 0) -> int:
    """What a classic BPF program gives for a system call, run by hand."""
    words = {0: number, 4: audit, 16: first}
    steps = [program[at : at + 8] for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        code, yes, no = int.from_bytes(steps[at][:2], "little"), steps[at][2], steps[at][3]
        operand = int.from_bytes(steps[at][4:], "little")
        if code == 0x06:
            return operand
        if code == 0x20:
            value, jump = words[operand], 0
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            jump = yes if holds[code] else no
        at += 1 + jump


@pytest.mark.parametrize("machine", MACHINES)
def test_filter_program_refuses_exactly_what_it_lists(machine: str) -> None:
    audit, clone, socket_call, others = MACHINES[machine]
    program = filter_program(audit, clone, socket_call, others)
    allow, refuse, absent = 0x7FFF0000, 0x00050001, 0x00050026
    for number in range(500):
        expected = refuse if number in (socket_call, *others) else allow
        if number == 435:
            expected = absent
        if number == clone:
            assert simulate(program, audit, number, 0x10F00) == allow
            expected = refuse
        assert simulate(program, audit, number) == expected, number
    assert simulate(program, audit, 0x40000001) == refuse
    assert simulate(program, audit ^ 1, 0) == refuse
