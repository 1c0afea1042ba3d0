"""The gateways that are measured: ours, three that can be installed, and one that does nothing.

In: the port of the upstream and a folder. Out: a command that serves in front of that upstream, and
where to knock. Each peer has an environment of its own under build/peers/, made at first use.

`ours` records everything, as `own serve` does by itself. LiteLLM records nothing here: its database
needs engines that Prisma downloads from a host of its own at the first start, which an offline
machine cannot; that favours LiteLLM. Portkey's open gateway has no store, and as npm installs it
today it answers streams with a 500 (`TypeError: immutable` on Node 20), so it is left out of
those. TensorZero's gateway is started from its Python wheel with observability off (its store is
ClickHouse or Postgres), which favours it too. `floor` is uvicorn answering at once, with no
upstream and no record: what an HTTP server in Python costs before it does anything.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.load.group import Group
from bench.load.programs import Door
from bench.result import ROOT

PEERS_DIR = ROOT / "build" / "peers"
LITELLM, PORTKEY, TENSORZERO = "1.106.2", "1.15.2", "2026.6.0"
START_WITHIN_S = 180.0
_KEY = "sk-0123456789abcdef0123456789abcdef"  # LiteLLM does not start without a long one


@dataclass(frozen=True, slots=True)
class Plan:
    """How a gateway is started and asked; `model_prefix` stands before the model's name."""

    words: list[str]
    door: Door
    env: dict[str, str] = field(default_factory=dict[str, str])
    model_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers; `start_s` is from the command to its first answer, and the CPU's."""

    name: str
    plan: Plan
    group: Group
    folder: Path
    start_s: float
    start_cpu_s: float

    def close(self) -> None:
        """End it with SIGKILL."""
        self.group.kill()


Planner = Callable[[int, int, Path], Plan]  # upstream's port, own port, folder


def start(
    name: str, upstream_port: int, folder: Path, *, planner: Planner | None = None
) -> Running:
    """Start a gateway in a folder, and wait for the first answer through it."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = (planner or GATEWAYS[name])(upstream_port, _free_port(), folder)
    begun_s = time.perf_counter()
    group = Group.start(plan.words, plan.env, folder)
    try:
        while not _answers(plan := _with_own_port(plan, folder)):
            if group.process.poll() is not None or time.perf_counter() > begun_s + START_WITHIN_S:
                said = (folder / "log").read_text(errors="replace")[-2000:]
                raise SystemExit(f"{name} does not answer:\n{said}")
            time.sleep(0.01)
    except BaseException:
        group.kill()
        raise
    return Running(name, plan, group, folder, time.perf_counter() - begun_s, group.cpu_s())


def write_body(folder: Path, kind: str, model_prefix: str = "", *, model: str = "") -> Path:
    """A request of a kind (`json`, `sse`, each also ` 100kB`), as a file."""
    is_large, is_stream = "100kB" in kind, kind.startswith("sse")
    asked = "My parcel has not come since Monday, the order is 12345. "
    body = {
        "model": model_prefix + (model or ("mock-large" if is_large else "mock")),
        "messages": [
            {"role": "system", "content": "You sort tickets by what they are about. " * 4},
            {"role": "user", "content": asked * (100_000 // len(asked) if is_large else 4)},
        ],
        **({"stream": True} if is_stream else {}),
    }
    path = folder / f"{kind} {model}.json".replace(" ", "_")
    path.write_text(json.dumps(body))
    return path


def plan_ours(upstream_port: int, port: int, folder: Path) -> Plan:
    """`own serve` with a teacher set and nothing else."""
    (folder / "own.toml").write_text(
        f'[teacher.main]\nbase_url = "http://127.0.0.1:{upstream_port}/v1"\n'
    )
    words = [sys.executable, "-m", "ownweights.cli", "--project", str(folder), "serve",
             "--port", str(port), "--admin-port", "0", "--json", "--quiet"]  # fmt: skip
    return Plan(words, door_at(port), {"PYTHONPATH": str(ROOT)})


def plan_floor(upstream_port: int, port: int, folder: Path) -> Plan:
    """uvicorn and an app of ten lines."""
    words = [sys.executable, str(Path(__file__).with_name("floor.py")), str(port)]
    return Plan(words, door_at(port))


def plan_litellm(upstream_port: int, port: int, folder: Path) -> Plan:
    """LiteLLM's proxy as its documentation has it for production, one worker."""
    python = python_with("litellm", f"litellm[proxy]=={LITELLM}")
    params = {"api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "k"}
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **params}}
            for name in ("mock", "mock-large")
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    env = {"LITELLM_MASTER_KEY": _KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
           "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}  # fmt: skip
    words = [str(python.with_name("litellm")), "--config", "config.yaml", "--host", "127.0.0.1",
             "--port", str(port), "--num_workers", "1"]  # fmt: skip
    return Plan(words, door_at(port), env)


def plan_portkey(upstream_port: int, port: int, folder: Path) -> Plan:
    """Portkey's gateway on Node."""
    home = PEERS_DIR / f"portkey-{PORTKEY}"
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--silent", "--prefix", str(home)]
        subprocess.run([*words, f"@portkey-ai/gateway@{PORTKEY}"], check=True, stdout=sys.stderr)
    to = f"x-portkey-custom-host: http://127.0.0.1:{upstream_port}/v1"
    door = door_at(port, "x-portkey-provider: openai", to)
    return Plan(["node", str(program), f"--port={port}", "--headless"], door)


def plan_tensorzero(upstream_port: int, port: int, folder: Path) -> Plan:
    """TensorZero's gateway out of its Python wheel; it picks its port itself and prints it."""
    python = python_with("tensorzero", f"tensorzero=={TENSORZERO}")
    lines = ["[gateway]", "observability.enabled = false"]
    for name in ("mock", "mock-large"):
        lines += [
            f"[models.{name}]", 'routing = ["mock"]', f"[models.{name}.providers.mock]",
            'type = "openai"', f'model_name = "{name}"', 'api_key_location = "none"',
            f'api_base = "http://127.0.0.1:{upstream_port}/v1/"',
        ]  # fmt: skip
    (folder / "tensorzero.toml").write_text("\n".join(lines) + "\n")
    words = [str(python), str(Path(__file__).with_name("tensorzero_serve.py"))]
    door = Door(port, "/openai/v1/chat/completions", door_at(port).headers)
    return Plan(words, door, model_prefix="tensorzero::model_name::")


GATEWAYS: dict[str, Planner] = {
    "ours": plan_ours,
    "floor": plan_floor,
    "litellm": plan_litellm,
    "portkey": plan_portkey,
    "tensorzero": plan_tensorzero,
}
FULL_NAMES = {
    "floor": "uvicorn answering at once",
    "litellm": f"litellm {LITELLM} (not recording)",
    "portkey": f"@portkey-ai/gateway {PORTKEY} (has no store)",
    "tensorzero": f"tensorzero {TENSORZERO} (not recording)",
}


def door_at(port: int, *headers: str) -> Door:
    """Where a gateway on this port is asked for chat completions."""
    return Door(port, headers=(f"authorization: Bearer {_KEY}", *headers))


def python_with(name: str, *requirements: str) -> Path:
    """The interpreter of an environment that holds just these; made anew when they change."""
    wanted = "\n".join(requirements)
    home = PEERS_DIR / name
    python, told = home / "bin" / "python", home / "holds.txt"
    if not told.exists() or told.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*words, *requirements], check=True, stdout=sys.stderr)
        told.write_text(wanted)
    return python


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def _with_own_port(plan: Plan, folder: Path) -> Plan:
    """The plan with the port that the gateway chose, where it says so in a file."""
    told = folder / "port"
    if not told.exists():
        return plan
    return replace(plan, door=replace(plan.door, port=int(told.read_text())))


def _answers(plan: Plan) -> bool:
    """Whether a chat request gets its answer."""
    headers = {"content-type": "application/json"}
    headers |= dict(line.split(": ", 1) for line in plan.door.headers)
    body = {"model": f"{plan.model_prefix}mock", "messages": [{"role": "user", "content": "hi"}]}
    connection = http.client.HTTPConnection("127.0.0.1", plan.door.port, timeout=60)
    try:
        connection.request("POST", plan.door.path, json.dumps(body), headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
