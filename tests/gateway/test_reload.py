"""Settings that change while serving: taken up whole, or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.gateway import Gateway, GatewaySettings
from ownweights.gateway.reload import Reloader
from tests.gateway.harness import WAIT_S, Engines, KeptRecords, Running
from tests.teacher.servers import asked, completion, json_answer, running, talking


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownweights.gateway.reload.LOOK_S", 0.01)


def write(project: Project, url: str, more: str = "") -> None:
    project.settings_path.write_text(f'[teacher.main]\nbase_url = "{url}"\n{more}')


def until(one: Running, wanted: str | None) -> None:
    give_up_s = time.monotonic() + WAIT_S
    while (wanted or "") not in ((one.status()["settings_fault"]) or "") or (
        wanted is None and one.status()["settings_fault"]
    ):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def answer_of(text: str) -> list[bytes]:
    import json

    return json_answer(json.dumps(completion(text)).encode())


def test_gateway_keeps_its_settings_when_the_file_breaks(tmp_path: Path) -> None:
    project = Project(tmp_path)

    def load() -> GatewaySettings:
        if "fails = 1" in project.settings_path.read_text():
            raise RuntimeError("a defect of ours")
        return GatewaySettings.of(load_settings(project, env={}))

    with talking(answer_of("old")) as old, talking(answer_of("new")) as new:
        write(project, old.base_url)
        app = Gateway(project, load(), start_engine=Engines(), recorder=KeptRecords(), reload=load)
        with running(app) as url:
            one = Running(url, KeptRecords(), Engines())
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url, "nonsense = 1\n")
            until(one, "nonsense")
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url, 'key_env = "NOT_SET_ANYWHERE"\n')
            until(one, "NOT_SET_ANYWHERE")
            write(project, new.base_url, "fails = 1\n")
            until(one, "RuntimeError")
            assert one.post(asked("hello")).json() == completion("old")
            write(project, new.base_url)
            until(one, None)
            assert one.post(asked("hello")).json() == completion("new")


class Looked:
    """A reloader of a file, one look at a time, and what it took up."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.taken = path, list[str]()
        self.on_load: Callable[[], object] = lambda: None
        self._looks = asyncio.Queue[bool]()
        self._looked = asyncio.Event()
        self.reloader = Reloader(
            path, self._load, lambda settings: self.taken.append(settings.host)
        )
        monkeypatch.setattr(self.reloader, "_next_look", self._next_look)

    def _load(self) -> GatewaySettings:
        host = self.path.read_text() if self.path.exists() else "default"
        self.on_load()
        return GatewaySettings(host=host)

    async def _next_look(self) -> bool:
        self._looked.set()
        return await self._looks.get()

    async def look(self, *, is_hurried: bool = False) -> str:
        """Let it look once; the fault it finds."""
        await self._looked.wait()
        self._looked.clear()
        self._looks.put_nowait(is_hurried)
        await self._looked.wait()
        return self.reloader.fault


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looked:
    path = tmp_path / "own.toml"
    path.write_text("first")
    return Looked(path, monkeypatch)


def test_reloader_waits_for_a_file_that_is_being_written(looked: Looked) -> None:
    async def write_slowly() -> None:
        looked.reloader.start()
        for text in ("", "sec", "second"):  # as an editor writes in place
            looked.path.write_text(text)
            assert await looked.look() == ""
        assert looked.taken == []
        for _ in range(3):
            await looked.look()
        assert looked.taken == ["second"]
        await looked.reloader.close()

    asyncio.run(write_slowly())


def test_reloader_reads_again_what_is_written_while_it_reads(looked: Looked) -> None:
    async def write_meanwhile() -> None:
        looked.reloader.start()
        looked.path.write_text("half")
        looked.on_load = lambda: looked.path.write_text("whole file")
        await looked.look(is_hurried=True)
        assert looked.taken == []
        looked.on_load = lambda: None
        for _ in range(2):
            await looked.look()
        assert looked.taken == ["whole file"]
        await looked.reloader.close()

    asyncio.run(write_meanwhile())


def test_reloader_keeps_the_settings_of_a_file_that_is_gone(looked: Looked) -> None:
    async def take_away() -> None:
        looked.reloader.start()
        looked.path.unlink()
        assert await looked.look() == ""  # it may come back at once, as editors do it
        assert await looked.look() == "the file is gone"
        assert await looked.look(is_hurried=True) == "the file is gone"
        assert looked.taken == []
        looked.path.write_text("again")
        await looked.look()
        assert await looked.look() == "" and looked.taken == ["again"]
        await looked.reloader.close()

    asyncio.run(take_away())
