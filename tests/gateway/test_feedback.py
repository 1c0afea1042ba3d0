"""POST /v1/feedback against a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.database import open_database
from ownweights.core.project import Project, Server
from ownweights.traffic.feedback import feedback_of
from ownweights.traffic.record import make_record
from ownweights.traffic.redact import Privacy, PrivacyRules
from tests.gateway.harness import WAIT_S, Running, error_code, gateway


def say(one: Running, body: Any, **headers: str) -> httpx.Response:
    url = f"{one.base_url}/feedback"
    if isinstance(body, bytes):
        return httpx.post(url, content=body, headers=headers, timeout=WAIT_S)
    return httpx.post(url, json=body, headers=headers, timeout=WAIT_S)


def test_gateway_feedback_is_stored_before_it_is_answered(
    address: Path | Server, tmp_path: Path
) -> None:
    project = Project(tmp_path, address if isinstance(address, Server) else None)
    with gateway(project, None) as one:
        told = say(one, {"request_id": "r", "comment": "'; DROP TABLE record; --"})
        assert told.status_code == 200
        with open_database(project.database) as database:
            (kept,) = feedback_of(database, request_id="r")
        assert (kept.id, kept.value) == (told.json()["id"], "'; DROP TABLE record; --")
        assert error_code(say(one, {"request_id": "r"})) == "400 invalid_feedback"
        assert error_code(say(one, b"[]")) == "400 invalid_json"
        assert error_code(say(one, b" " * 2_000_000)) == "413 request_too_large"
        assert httpx.get(f"{one.base_url}/feedback").status_code == 405


def test_gateway_feedback_needs_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", "secret")
    with gateway(Project(tmp_path), None, key_env="GATE") as one:
        body = {"session": "s", "value": 0.5}
        assert error_code(say(one, body)) == "401 invalid_api_key"
        assert say(one, body, authorization="Bearer secret").status_code == 200


def test_gateway_feedback_that_cannot_be_stored_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with gateway(project, None) as one:
        project.store_dir.mkdir(exist_ok=True)
        project.database_path.write_bytes(b"no database" * 1000)
        told = say(one, {"session": "s", "value": 0.5})
        assert error_code(told) == "503 store_unavailable"


@pytest.mark.parametrize("as_message", [False, True])
def test_gateway_feedback_is_masked_like_a_record(tmp_path: Path, as_message: bool) -> None:
    project = Project(tmp_path)
    secret = "sk-proj-a1b2c3d4e5f6g7h8i9j0"
    text = f'use "{secret}" here'
    said: Any = {"role": "assistant", "content": text} if as_message else text
    with gateway(project, None) as one:
        assert say(one, {"request_id": "r", "demonstration": said}).status_code == 200
    with open_database(project.database_path) as database:
        (kept,) = feedback_of(database, request_id="r")
    shown = kept.value["content"] if as_message else kept.value
    assert secret not in str(kept)
    assert shown.startswith('use "<KEY_') and shown.endswith('" here')


def test_gateway_feedback_finds_a_session_that_is_masked(tmp_path: Path) -> None:
    project, named = Project(tmp_path), "chat of ana@example.org"
    rules = PrivacyRules(redact=("email", "data"))
    picture = {"url": "data:image/png;base64," + "QUJD" * 40}
    said = {"role": "assistant", "content": [{"type": "image_url", "image_url": picture}]}
    with gateway(project, None, privacy=rules) as one:
        assert say(one, {"session": named, "value": 0.5}).status_code == 200
        assert say(one, {"session": named, "demonstration": said}).status_code == 200
    record = make_record({"messages": []}, None, role="teacher", session=named)
    session = Privacy(project, rules).record(record).session
    assert session is not None and session.startswith("chat of <EMAIL_")
    with open_database(project.database_path) as database:
        number, shown = feedback_of(database, session=session)
    assert (number.session, number.value) == (session, 0.5)
    assert "QUJDQUJD" not in str(shown) and shown.value["role"] == "assistant"
