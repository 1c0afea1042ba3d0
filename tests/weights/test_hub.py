"""Bases from a hub: a server on loopback that speaks as the hub does, and no network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

from ownweights.core.artefact import open_artefact
from ownweights.core.errors import ArtefactMissing, ModelError, SettingsError
from ownweights.core.project import Project
from ownweights.weights.base import base_id, resolve_base
from ownweights.weights.hub import HubName
from ownweights.weights.load import load_model
from tests.tiny import make_base

REPOSITORY = "someone/tiny-llama"
COMMIT, OLDER = "a" * 40, "b" * 40
JUNK = ("pytorch_model.bin", "modeling_evil.py", "consolidated.safetensors", "README.md")


class FakeHub:
    """One repository with two commits, on a loopback port; `asked` lists what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        self.status: int | None = None
        self.code = ""
        self.tags = ["license:apache-2.0", "llama"]
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = request.path.split("?")[0]
        self.asked.append(path)
        status, headers, body = self._found(path)
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)

    def _found(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.status is not None:
            return self.status, {"X-Error-Code": self.code} if self.code else {}, b"{}"
        about = f"/api/models/{REPOSITORY}"
        if path == about or path.startswith(f"{about}/revision/"):
            return self._about(path.removeprefix(about).removeprefix("/revision/"))
        prefix = f"/{REPOSITORY}/resolve/"
        if path.startswith(prefix):
            commit, _, name = path.removeprefix(prefix).partition("/")
            file = self.folder / name
            if file.is_file():
                content = file.read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                return 200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}, content
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def _about(self, revision: str) -> tuple[int, dict[str, str], bytes]:
        commits = {"": COMMIT, "main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}
        if revision not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        about = {
            "id": REPOSITORY, "sha": commits[revision], "tags": self.tags, "private": False,
            "siblings": [{"rfilename": path.name} for path in sorted(self.folder.iterdir())],
        }  # fmt: skip
        return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    folder = make_base(tmp_path / "upstream")
    for name in JUNK:
        (folder / name).write_bytes(b"not for us")
    found = FakeHub(folder)
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield found
    found.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


def test_hub_fetches_weights_words_and_nothing_else(hub: FakeHub, project: Project) -> None:
    folder = resolve_base(project, f"hub:{REPOSITORY}")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "card.json",
    }  # fmt: skip
    assert not any(name in path for path in hub.asked for name in JUNK)
    (hub.folder / "consolidated.safetensors").unlink()
    assert base_id(folder) == base_id(hub.folder)
    load_model(folder)


def test_hub_base_has_a_card_with_its_commit_and_licence(hub: FakeHub, project: Project) -> None:
    folder = resolve_base(project, f"hub:{REPOSITORY}")
    made = open_artefact(project.kind_dir("base"), folder.name, "base", verify=True)
    assert made.card["identity"] == {"hub": REPOSITORY, "revision": COMMIT}
    assert made.card["facts"]["licence"] == "apache-2.0"


def test_hub_is_not_asked_twice(
    hub: FakeHub, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once fetched, the same name works offline, and so do its id and its commit."""
    names = [f"hub:{REPOSITORY}", f"hub:{REPOSITORY}@v1", f"hub:{REPOSITORY}@main"]
    folders = [resolve_base(project, name) for name in names]
    assert folders[0] == folders[2] != folders[1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.status = 500
    hub.asked.clear()
    assert [resolve_base(project, name) for name in names[1:]] == folders[1:]
    assert resolve_base(project, f"hub:{REPOSITORY}@{COMMIT}") == folders[0]
    assert resolve_base(project, folders[0].name) == folders[0]
    (project.kind_dir("base") / ".hub.json").unlink()
    assert resolve_base(project, f"hub:{REPOSITORY}@{OLDER}") == folders[1]
    assert resolve_base(project, f"hub:{REPOSITORY}") in folders
    assert hub.asked == []


def test_hub_reads_the_shards_that_the_index_names(hub: FakeHub, project: Project) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(hub.folder / "model.safetensors")
    (hub.folder / "model.safetensors").unlink()
    files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, hub.folder / file)
    index = json.dumps({"weight_map": files})
    (hub.folder / "model.safetensors.index.json").write_text(index, "utf-8")
    folder = resolve_base(project, f"hub:{REPOSITORY}")
    assert {"model-0.safetensors", "model-1.safetensors"} <= {p.name for p in folder.iterdir()}
    load_model(folder)


@pytest.mark.parametrize("shard", ["../evil.safetensors", "model.bin", "gone.safetensors"])
def test_hub_refuses_a_shard_that_is_not_there(hub: FakeHub, project: Project, shard: str) -> None:
    (hub.folder / "model.safetensors").unlink()
    index = json.dumps({"weight_map": {"a": shard}})
    (hub.folder / "model.safetensors.index.json").write_text(index, "utf-8")
    with pytest.raises(ModelError, match="names the shard"):
        resolve_base(project, f"hub:{REPOSITORY}")


def test_hub_refuses_what_cannot_be_run_before_its_weights(hub: FakeHub, project: Project) -> None:
    config = {"architectures": ["MambaForCausalLM"]}
    (hub.folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=f"^hub:{REPOSITORY}: .*MambaForCausalLM") as refusal:
        resolve_base(project, f"hub:{REPOSITORY}")
    assert "vLLM or llama.cpp" in (refusal.value.hint or "")
    assert not any("model.safetensors" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("model.safetensors", r"has neither model\.safetensors nor"),
        ("tokenizer.json", r"has no tokenizer\.json"),
        ("config.json", r"has no config\.json"),
    ],
)
def test_hub_says_what_a_repository_lacks(
    hub: FakeHub, project: Project, gone: str, said: str
) -> None:
    (hub.folder / gone).unlink()
    with pytest.raises(ModelError, match=said):
        resolve_base(project, f"hub:{REPOSITORY}")


@pytest.mark.parametrize(
    ("status", "code", "said", "hint"),
    [
        (403, "GatedRepo", "is gated", "HF_TOKEN"),
        (404, "RepoNotFound", "has no .* or it is private", "spelling"),
        (401, "", "could not be asked: it answered with HTTP 401", "while online"),
        (404, "RevisionNotFound", "has no revision", "a branch, a tag or a commit"),
        (500, "", "could not be asked: it answered with HTTP 500", "while online"),
    ],
)
def test_hub_says_why_it_gives_nothing(
    hub: FakeHub, project: Project, *, status: int, code: str, said: str, hint: str
) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(ArtefactMissing, match=said) as refusal:
        resolve_base(project, f"hub:{REPOSITORY}@main")
    assert hint in (refusal.value.hint or "")


def test_hub_offline_says_so(
    hub: FakeHub, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtefactMissing, match="could not be asked: OfflineModeIsEnabled"):
        resolve_base(project, f"hub:{REPOSITORY}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ArtefactMissing, match="could not be asked: ConnectError"):
        resolve_base(project, f"hub:{REPOSITORY}")
    assert hub.asked == []


def test_hub_goes_on_with_a_fetch_that_was_cut_off(hub: FakeHub, project: Project) -> None:
    weights = hub.folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    (hub.folder / "model.safetensors").mkdir()
    with pytest.raises(ArtefactMissing, match="could not be asked"):
        resolve_base(project, f"hub:{REPOSITORY}")
    weights.rmdir()
    weights.write_bytes(content)
    hub.asked.clear()
    load_model(resolve_base(project, f"hub:{REPOSITORY}"))
    assert not any("tokenizer.json" in path for path in hub.asked)
    assert [path.name for path in project.kind_dir("base").iterdir() if "fetch" in path.name] == []


@pytest.mark.parametrize("name", ["hub:", "hub:noslash", "hub:a/b/c", "hub:a/../b", "hub:a/b@"])
def test_hub_refuses_a_name_that_is_none(project: Project, name: str) -> None:
    with pytest.raises(SettingsError, match="is not a hub name") as refusal:
        resolve_base(project, name)
    assert "hub:owner/name@revision" in (refusal.value.hint or "")


def test_hub_name_round_trip() -> None:
    for name in ("hub:a/b", "hub:a/b-c.d@refs/pr/3", f"hub:a/b@{COMMIT}"):
        assert str(HubName.parse(name)) == name
