"""Who is turned away at the door: keys in addresses, pages of other sites, packed bodies."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from ownweights.core.project import Project
from tests.gateway.harness import Running, error_code, gateway
from tests.teacher.servers import asked, completion, json_answer, talking

ANSWER = json_answer(json.dumps(completion()).encode())


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway on loopback, with a public name beside."""
    with talking(ANSWER) as talk:
        project = Project(tmp_path_factory.mktemp("door"))
        with gateway(project, talk.base_url, hosts=("llm.example.org",)) as one:
            yield one


@pytest.mark.parametrize(
    "query",
    [
        "api_key=sk-123", "api-key=x", "apikey=x", "API_KEY=x", "key=x", "access_token=x", "token=",
        "api%5Fkey=x", "x-goog-api-key=x", "a=1&key=x", "anything=sk-proj-1", "q=own-123",
        "q=Bearer+abc", "authorization=Bearer%20x", "subscription-key=1", "api_key[]=x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nowhere"])
def test_admission_key_in_the_address_is_refused(
    door: Running, query: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ownweights")
    answer = httpx.post(f"{door.url}{path}?{query}", json=asked("hello"))
    assert error_code(answer) == "400 key_in_url"
    assert query.rpartition("=")[2] in ("", "1", "x") or query.rpartition("=")[2] not in answer.text
    logged = [one.getMessage() for one in caplog.records if one.name.startswith("ownweights")]
    assert logged == ["refused 400 key_in_url"]


@pytest.mark.parametrize("query", ["api-version=2024-10-21", "keyboard=1", "a&b=c", "tokens=5"])
def test_admission_other_queries_pass(door: Running, query: str) -> None:
    assert httpx.post(f"{door.chat_url}?{query}", json=asked("hello")).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "https://evil.example", "null", "", "file://", "http://localhost:1",
        "http://llm.example.org.evil.example", "chrome-extension://abc", "http://127.0.0.1:99999999",
        "http://[", "llm.example.org",
    ],
)  # fmt: skip
def test_admission_page_of_another_site_is_refused(door: Running, origin: str) -> None:
    """A page may send this without asking first: no leave is needed for text/plain."""
    headers = {"origin": origin, "content-type": "text/plain"}
    answer = httpx.post(door.chat_url, content=json.dumps(asked("hello")), headers=headers)
    assert error_code(answer) == "403 origin_not_allowed"
    assert "access-control-allow-origin" not in answer.headers


def test_admission_own_pages_pass(door: Running) -> None:
    for origin in (door.url, "https://llm.example.org", "https://LLM.example.org:8443"):
        answer = httpx.post(door.chat_url, json=asked("hello"), headers={"origin": origin})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8711", "127.0.0.1.evil.example", "localhost.evil.example",
     "LLM.example.org.evil.example", "evil.example."],
)  # fmt: skip
def test_admission_unknown_host_name_is_refused(door: Running, host: str) -> None:
    """What a page reaches whose site's name was made to point at this machine."""
    for path in ("/v1/models", "/ready", "/health"):
        answer = httpx.get(door.url + path, headers={"host": host})
        assert error_code(answer) == "421 unknown_host"
        assert "evil" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8711", "app.localhost", "127.0.0.1", "10.0.0.7:80", "[::1]:8711",
     "ownweights", "host.docker.internal:8711", "llm.example.org", "LLM.Example.org.:443"],
)  # fmt: skip
def test_admission_known_host_passes(door: Running, host: str) -> None:
    assert httpx.get(f"{door.url}/health", headers={"host": host}).status_code == 200


def test_admission_open_gateway_asks_for_its_key_instead(
    door: Running, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who listens to others trusts nobody for where they are, and is reached by any name."""
    project = Project(tmp_path_factory.mktemp("open"))
    with talking(ANSWER) as talk, gateway(project, talk.base_url, host="0.0.0.0") as one:
        headers = {"host": "llm.example.com", "origin": "https://app.example.com"}
        assert httpx.post(one.chat_url, json=asked("hello"), headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x"])
def test_admission_packed_body_is_refused(door: Running, coding: str) -> None:
    """A bomb, a cut one and a good one alike: nothing is unpacked."""
    whole = gzip.compress(json.dumps(asked("hello")).encode())
    for body in (gzip.compress(bytes(2**22)), whole[:-9], whole):
        headers = {"content-encoding": coding, "content-type": "application/json"}
        answer = httpx.post(door.chat_url, content=body, headers=headers)
        assert error_code(answer) == "415 unsupported_encoding"


def test_admission_identity_passes(door: Running) -> None:
    headers = {"content-encoding": "identity"}
    answer = httpx.post(door.chat_url, json=asked("hello"), headers=headers)
    assert answer.status_code == 200
