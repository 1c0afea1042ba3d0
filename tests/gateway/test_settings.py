"""What the gateway takes from the project's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.gateway import GatewaySettings, Upstream

TWO_TEACHERS = """
[gateway]
host = "127.0.0.2"
port = 9000
timeout_s = 5.5
[teacher.big]
base_url = "http://big/v1"
model = "big-1"
key_env = "BIG_KEY"
[teacher.small]
base_url = "http://small/v1"
[workload.tickets]
teacher = "small"
[workload.mail]
"""


def settings_of(folder: Path, text: str) -> GatewaySettings:
    (folder / "own.toml").write_text(text)
    return GatewaySettings.of(load_settings(Project(folder), env={}), key_env="DOOR")


def test_gateway_settings_come_from_own_toml(tmp_path: Path) -> None:
    found = settings_of(tmp_path, TWO_TEACHERS)
    assert (found.host, found.port, found.timeout_s) == ("127.0.0.2", 9000, 5.5)
    assert found.key_env == "DOOR"
    assert found.teachers["big"] == Upstream("big", "http://big/v1", "big-1", "BIG_KEY")


def test_gateway_settings_several_teachers_have_no_default(tmp_path: Path) -> None:
    found = settings_of(tmp_path, TWO_TEACHERS)
    assert found.upstream("", "tickets") == found.teachers["small"]
    assert found.upstream("", "mail") is None
    assert found.upstream("big", "tickets") == found.teachers["big"]
    assert found.upstream("nobody", "tickets") is None


def test_gateway_settings_only_teacher_is_the_default(tmp_path: Path) -> None:
    found = settings_of(tmp_path, '[teacher.one]\nbase_url = "http://one/v1"\n')
    assert found.upstream("", "anything") == found.teachers["one"]


STOOD_IN = """
[teacher.one]
base_url = "http://one/v1"
fallback = ["two", "three"]
[teacher.two]
base_url = "http://two/v1"
fallback = ["three"]
[teacher.three]
base_url = "http://three/v1"
[workload.tickets]
teacher = "three"
"""


def test_gateway_settings_who_stands_in_is_nobodys_first_teacher(tmp_path: Path) -> None:
    found = settings_of(tmp_path, STOOD_IN)
    assert found.upstream("", "anything") == found.teachers["one"]
    assert found.upstream("", "tickets") == found.teachers["three"]
    judged = '[teacher.wise]\nbase_url = "http://w/v1"\n[verdict.mail]\njudge = "wise"\n'
    found = settings_of(tmp_path, STOOD_IN + judged)
    assert found.upstream("", "mail") == found.teachers["one"]
    circle = STOOD_IN.replace('["three"]', '["one"]')
    assert settings_of(tmp_path, circle).upstream("", "anything") is None
    alone = '[teacher.wise]\nbase_url = "http://w/v1"\n[verdict.mail]\njudge = "wise"\n'
    found = settings_of(tmp_path, alone)
    assert found.upstream("", "mail") == found.teachers["wise"]


@pytest.mark.parametrize(
    ("host", "base_url", "is_refused"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000/v1", True),
        ("127.0.0.1", "http://localhost:9000", True),
        ("localhost", "http://127.0.0.1:9000/v1", True), ("0.0.0.0", "http://[::1]:9000/v1", True),
        ("10.0.0.5", "http://10.0.0.5:9000/v1", True), ("127.0.0.1", "http://127.0.0.1:901", False),
        ("127.0.0.1", "http://127.0.0.2:9000/v1", False), ("0.0.0.0", "http://x:9000/v1", False),
        ("127.0.0.1", "https://api.example.com/v1", False),
    ],
)  # fmt: skip
def test_gateway_settings_refuse_a_gateway_that_asks_itself(
    tmp_path: Path, host: str, base_url: str, *, is_refused: bool
) -> None:
    text = f'[gateway]\nhost = "{host}"\nport = 9000\n[teacher.a]\nbase_url = "{base_url}"\n'
    if not is_refused:
        assert settings_of(tmp_path, text).port == 9000
        return
    with pytest.raises(SettingsError, match=r"teacher.a.base_url is the gateway's own address"):
        settings_of(tmp_path, text)


@pytest.mark.parametrize("address", ["http://x:99999/v1", "http://x:abc/v1", "http://[::1/v1"])
def test_gateway_settings_refuse_what_is_no_address(tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError, match=r"teacher.a.base_url is no address"):
        settings_of(tmp_path, f'[teacher.a]\nbase_url = "{address}"\n')


@pytest.mark.parametrize(
    ("hosts", "is_refused"),
    [(("127.0.0.1", "127.0.0.1"), True), (("0.0.0.0", "127.0.0.1"), True),
     (("localhost", "127.0.0.1"), True), (("127.0.0.1", "127.0.0.2"), False),
     (("127.0.0.1", ""), False)],
)  # fmt: skip
def test_gateway_settings_refuse_one_port_for_both_listeners(
    tmp_path: Path, hosts: tuple[str, str], *, is_refused: bool
) -> None:
    text = f'[gateway]\nhost = "{hosts[0]}"\nadmin_host = "{hosts[1]}"\nport = 9000\nadmin_port = '
    assert settings_of(tmp_path, f"{text}9001\n").port == 9000
    if is_refused:
        with pytest.raises(
            SettingsError, match=r"gateway.port and gateway.admin_port are both 9000"
        ):
            settings_of(tmp_path, f"{text}9000\n")
    else:
        assert settings_of(tmp_path, f"{text}9000\n").admin_port == 9000


def test_settings_and_gateway_know_the_same_teacher(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(STOOD_IN)
    settings = load_settings(Project(tmp_path), env={})
    gateway = GatewaySettings.of(settings)
    for workload in ("tickets", "anything"):
        upstream = gateway.upstream("", workload)
        assert upstream is not None and upstream.name == settings.teacher_of(workload)[0]


def test_gateway_settings_route_may_name_an_address() -> None:
    found = GatewaySettings().upstream("https://else/v1", "x")
    assert found == Upstream("https://else/v1", "https://else/v1")


def test_gateway_settings_teacher_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        settings_of(tmp_path, '[workload.tickets]\nteacher = "nobody"\n')


def test_upstream_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", "sk-1")
    assert Upstream("big", "http://big/v1", key_env="BIG_KEY").key() == "sk-1"
    assert Upstream("big", "http://big/v1").key() is None


@pytest.mark.parametrize("value", [None, ""])
def test_upstream_key_that_is_not_set_says_so(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("BIG_KEY", value)
    settings = GatewaySettings(teachers={"big": Upstream("big", "http://x/v1", "", "BIG_KEY")})
    with pytest.raises(SettingsError, match=r"teacher\.big: key_env names BIG_KEY, which is not"):
        settings.check_keys()


def test_upstream_prices_of_own_toml_go_before_the_list() -> None:
    url = "https://api.openai.com/v1"
    listed = Upstream("a", url).prices("gpt-4o")
    assert listed is not None and listed.source.startswith("list price of api.openai.com")
    own = Upstream("a", url, usd_per_mtok_in=1.0, usd_per_mtok_out=2.0).prices("gpt-4o")
    assert own is not None and (own.source, own.usd_per_mtok_out) == ("own.toml", 2.0)
    assert Upstream("a", url, usd_per_mtok_in=1.0).prices("gpt-4o") is None  # half a price is none
    assert Upstream("a", "http://127.0.0.1:1/v1").prices("gpt-4o") is None


def test_upstream_cost_is_that_of_the_model_that_answered() -> None:
    upstream = Upstream("a", "https://api.openai.com/v1")
    answer = {"model": "gpt-4o-2024-05-13", "usage": {"prompt_tokens": 10**6}}
    assert upstream.cost_usd("gpt-4o", answer) == 5.0
    assert upstream.cost_usd("gpt-4o", {"usage": {"prompt_tokens": 10**6}}) == 2.5
    assert upstream.cost_usd("gpt-4o", {**answer, "service_tier": "priority"}) is None
    assert upstream.cost_usd("", {"usage": {"prompt_tokens": 10**6}}) is None
    assert upstream.cost_usd("gpt-4o", {}) is upstream.cost_usd("gpt-4o", None) is None


def test_cost_is_unknown_without_prices() -> None:
    answer = {"model": "m", "usage": {"prompt_tokens": 10, "completion_tokens": 1}}
    assert Upstream("a", "http://127.0.0.1:1/v1").cost_usd("m", answer) is None
    free = Upstream("a", "http://x/v1", usd_per_mtok_in=0.0, usd_per_mtok_out=0.0)
    assert free.cost_usd("m", answer) == 0.0


def test_gateway_key_may_stand_in_own_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text('[gateway]\nkey_env = "DOOR_KEY"\n')
    found = GatewaySettings.of(load_settings(Project(tmp_path), env={}))
    monkeypatch.delenv("DOOR_KEY", raising=False)
    with pytest.raises(SettingsError, match="gateway: key_env names DOOR_KEY, which is not set"):
        found.check_keys()
    monkeypatch.setenv("DOOR_KEY", "open sesame")
    assert found.key() == "open sesame"
