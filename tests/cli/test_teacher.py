"""`own teacher`: replay and check, from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ownweights.cli.app import run
from ownweights.teacher.probe import QUESTION
from ownweights.teacher.serving import bind
from tests.teacher.servers import (
    asked,
    completion,
    free_port,
    json_answer,
    replay_of,
    running,
    talking,
)


def traffic(folder: Path) -> Path:
    path = folder / "traffic.jsonl"
    rows = [{"request": asked(t), "response": completion(t.upper())} for t in ("a", "b")]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{half\n")
    return path


def settings(folder: Path, text: str) -> list[str]:
    (folder / "own.toml").write_text(text)
    return ["--project", str(folder), "teacher", "check"]


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ownweights.cli", "teacher", "replay", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_teacher_replay_prints_its_base_url_and_serves(tmp_path: Path) -> None:
    with start(str(traffic(tmp_path))) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        answer = httpx.post(f"{url}/chat/completions", json=asked("b"), timeout=30)
        assert answer.json()["choices"][0]["message"]["content"] == "B"
        process.terminate()
        assert "2 recorded requests, no model behind them" in process.stderr.read()


def test_teacher_replay_json_says_what_was_skipped(tmp_path: Path) -> None:
    port = free_port()
    with start(str(traffic(tmp_path)), "--json", "--port", str(port)) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.terminate()
    assert told["url"] == f"http://127.0.0.1:{port}/v1"
    assert (told["requests"], told["skipped"]) == (2, {"broken_json": 1})
    assert told["system_fingerprint"].startswith("replay-")


def test_teacher_replay_taken_port_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["teacher", "replay", str(traffic(tmp_path)), "--port", port]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "in use by another program" in told.err
    assert "hint: " in told.err


def test_teacher_replay_without_answers_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("{}\n")
    assert run(["teacher", "replay", str(path)]) == 1
    assert "holds no recorded answer (1 no_answer)" in capsys.readouterr().err


def test_teacher_check_one_that_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(replay_of({QUESTION[0]["content"]: '{"hello": "world"}'})) as url:
        words = settings(tmp_path, f'[teacher.main]\nbase_url = "{url}/v1"\n')
        assert run([*words, "--json", "--ask"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row.pop("latency_s") > 0
    assert row.pop("fingerprint").startswith("replay-")
    assert row == {
        "teacher": "main", "base_url": f"{url}/v1", "ok": True, "models": 1,
        "answered_by": "rented-1", "logprobs": False, "seed": True, "json": None,
        "what": "answers",
    }  # fmt: skip


def test_teacher_check_one_that_lists_no_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(index: int) -> list[bytes]:
        if talk.requests[index].startswith(b"GET"):
            return json_answer(b'{"error": {"message": "no such path"}}', "404 Not Found")
        return json_answer(json.dumps(completion("no object")).encode())

    with talking(script) as talk:
        words = settings(tmp_path, f'[teacher.main]\nbase_url = "{talk.base_url}"\nmodel = "m"\n')
        assert run([*words, "--json"]) == 1
        assert "404" in json.loads(capsys.readouterr().out)["what"]
        assert run([*words, "--json", "--ask"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["models"], row["json"], row["fingerprint"]) == (True, None, False, None)


def test_teacher_check_one_that_is_down_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = settings(tmp_path, f'[teacher.main]\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n')
    assert run([*words, "main"]) == 1
    assert "cannot be reached: ConnectError" in capsys.readouterr().out


def test_teacher_check_key_that_is_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    words = settings(
        tmp_path, '[teacher.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "SOME_KEY"\n'
    )
    assert run([*words, "--json"]) == 1
    assert "SOME_KEY, which is not set" in json.loads(capsys.readouterr().out)["what"]


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("", [], "own.toml names no teacher"),
        ('[teacher.a]\nbase_url = "http://a/v1"\n', ["b"], "there is no teacher 'b' in own.toml"),
    ],
)
def test_teacher_check_nobody_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str], says: str
) -> None:
    assert run([*settings(tmp_path, text), *words]) == 2
    assert says in capsys.readouterr().err
