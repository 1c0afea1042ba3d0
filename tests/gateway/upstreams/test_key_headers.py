"""Whose key goes where, for every way to show one and every kind of upstream."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.gateway import Upstream
from ownweights.gateway.keys.key import KEY_HEADERS
from ownweights.gateway.upstreams.address import request_headers
from ownweights.teacher.kinds import KINDS, Kind
from tests.gateway.harness import gateway
from tests.teacher.servers import asked, completion, json_answer, talking

BUSY = json_answer(b"{}", "503 Later")
SHOWN = {
    "bearer": (b"authorization", b"Bearer sk-mine"),
    "small bearer": (b"authorization", b"bearer sk-mine"),
    "azure": (b"api-key", b"sk-mine"),
    "anthropic": (b"x-api-key", b"sk-mine"),
    "basic": (b"authorization", b"Basic dTpw"),
    "entra": (b"authorization", b"Bearer eyJhbGciOi.x.y"),
    "oauth": (b"authorization", b"Bearer sk-ant-oat01-x"),
}
_OPENAI = (b"authorization", b"Bearer sk-mine")
_AZURE, _ANTHROPIC = (b"api-key", b"sk-mine"), (b"x-api-key", b"sk-mine")
GOES_AS: dict[str, dict[str, tuple[bytes, bytes]]] = {
    "openai": {"azure": _OPENAI, "anthropic": _OPENAI},
    "azure": dict.fromkeys(("bearer", "small bearer", "azure", "anthropic"), _AZURE),
    "anthropic": dict.fromkeys(("bearer", "small bearer", "azure", "anthropic"), _ANTHROPIC),
}  # everything else passes as it came


def keys_of(upstream: Upstream, *shown: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    found = request_headers(upstream, shown, wants_plain=False)
    return [(name, value) for name, value in found if name in KEY_HEADERS]


@pytest.mark.parametrize("how", SHOWN)
@pytest.mark.parametrize("kind", KINDS)
def test_callers_key_goes_into_the_header_that_is_read_there(kind: str, how: str) -> None:
    upstream = Upstream("a", "http://x/v1", kind=Kind(kind))
    assert keys_of(upstream, SHOWN[how]) == [GOES_AS[kind].get(how, SHOWN[how])]


@pytest.mark.parametrize("kind", KINDS)
@given(
    name=st.sampled_from(sorted(KEY_HEADERS)),
    scheme=st.sampled_from([b"", b"Bearer ", b"bearer ", b"BEARER ", b"Basic "]),
    tail=st.text("abcXYZ019-_.", min_size=8, max_size=40),
)
def test_callers_key_never_stands_beside_the_operators(
    kind: str, name: bytes, scheme: bytes, tail: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", "sk-operators")
        upstream = Upstream("a", "http://x/v1", key_env="TEST_KEY", kind=Kind(kind))
        secret = b"callers" + tail.encode()
        found = request_headers(upstream, [(name, scheme + secret)], wants_plain=True)
    wanted, value = Kind(kind).key_header("sk-operators")
    assert all(secret not in one for _, one in found)
    assert [one for one in found if one[0] in KEY_HEADERS] == [(wanted.encode(), value.encode())]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_caller_with_several_is_replaced(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-operators")
    upstream = Upstream("a", "http://x/v1", key_env="TEST_KEY", kind=Kind(kind))
    assert len(keys_of(upstream, *SHOWN.values())) == 1


@pytest.mark.parametrize("shown", [*itertools.permutations(("bearer", "azure", "anthropic"), 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_callers_keys_are_never_made_one_header_twice(kind: str, shown: tuple[str, str]) -> None:
    """As they came where the one that is read there is among them; else the first, put there."""
    upstream, pairs = Upstream("a", "http://x/v1", kind=Kind(kind)), [SHOWN[how] for how in shown]
    wanted = Kind(kind).key_header("")[0].encode()
    found = keys_of(upstream, *pairs)
    if wanted in dict(pairs):
        assert found == pairs
    else:
        assert found == [GOES_AS[kind][shown[0]]] and found[0][0] == wanted


def test_request_headers_drop_what_the_connection_names() -> None:
    """RFC 9110 section 7.6.1: such a header ends at the next hop, whatever it is."""
    shown = [(b"x-hop", b"1"), (b"connection", b"Keep-Alive, X-Hop,"), (b"x-kept", b"2"),
             (b"connection", b"x-other"), (b"x-other", b"3")]  # fmt: skip
    found = request_headers(Upstream("a", "http://x/v1"), shown, wants_plain=True)
    assert found == [(b"x-kept", b"2"), (b"accept-encoding", b"identity")]


@pytest.mark.parametrize("kind", KINDS)
def test_request_without_a_key_gets_none(kind: str) -> None:
    assert keys_of(Upstream("a", "http://x/v1", kind=Kind(kind))) == []


@pytest.mark.parametrize("sent", [None, b"2024-01-01"])
@pytest.mark.parametrize("kind", KINDS)
def test_messages_alone_are_asked_with_a_version(kind: str, sent: bytes | None) -> None:
    shown = [] if sent is None else [(b"anthropic-version", sent)]
    found = request_headers(Upstream("a", "http://x", kind=Kind(kind)), shown, wants_plain=True)
    versions = [value for name, value in found if name == b"anthropic-version"]
    added = [b"2023-06-01"] if kind == "anthropic" else []
    assert versions == ([sent] if sent else added)


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_operators_key_goes_to_its_own_teacher_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.setenv("A_KEY", "sk-of-a")
    monkeypatch.setenv("B_KEY", "sk-of-b")
    good = json_answer(json.dumps(completion("fine")).encode())
    for b_key in ("B_KEY", ""):
        with talking(BUSY) as one, talking(good) as other:
            teachers = {
                "a": Upstream("a", one.base_url, key_env="A_KEY", fallback=("b",),
                              kind=Kind(first, max_tokens=9)),
                "b": Upstream("b", other.base_url, key_env=b_key, kind=Kind(second, max_tokens=9)),
            }  # fmt: skip
            with gateway(
                Project(tmp_path), None, teachers=teachers, default_teacher="a"
            ) as running:
                running.post(asked("hello"))
                kept = running.kept.wait()
            assert b"sk-of-a" in one.requests[0] and b"sk-of-b" not in one.requests[0]
            assert b"sk-of-a" not in other.requests[0]
            assert (b"sk-of-b" in other.requests[0]) == bool(b_key)
            assert kept.upstream == "b" and "sk-of" not in repr(kept)
