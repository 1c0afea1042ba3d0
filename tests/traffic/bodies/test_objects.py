"""Bodies in an object store: moved whole, read back from anywhere, never lost on the way."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic.bodies.mover import Mover
from ownweights.traffic.bodies.objects import ObjectStore
from ownweights.traffic.bodies.segment import Place, SegmentReader, SegmentWriter
from ownweights.traffic.bodies.shelf import Shelf
from ownweights.traffic.erase import Whose, erase
from ownweights.traffic.retention import prune
from tests.postgres import spell
from tests.traffic.samples import make, run_python, stored

fsspec = pytest.importorskip("fsspec", reason="pip install 'ownweights[objects]'")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/bucket/prefix"
    else:
        yield f"memory://{tmp_path.name}/prefix"
        fsspec.filesystem("memory").store.clear()


def write_segment(folder: Path, items: list[bytes]) -> list[Place]:
    writer = SegmentWriter(folder)
    places = writer.append(items)
    writer.close()
    return places


def only_path(folder: Path) -> Path:
    (path,) = folder.glob("*.seg")
    return path


def mover_of(folder: Path, objects: ObjectStore, **options: Any) -> Mover:
    mover = Mover(folder, objects, **options)
    mover.adopt(path.stem for path in folder.glob("*.seg"))
    return mover


class Down(ObjectStore):
    """A store that cannot be reached until `is_down` is false."""

    is_down = True

    def put(self, path: Path) -> None:
        if self.is_down:
            raise StoreError("the object store cannot be reached (Timeout)")
        super().put(path)


def test_put_then_read_gives_back_the_same_bytes(tmp_path: Path, url: str) -> None:
    places = write_segment(tmp_path / "here", [b"one" * 100, b"two", b"x" * 3_000_000, b"last"])
    objects, path = ObjectStore(url), only_path(tmp_path / "here")
    assert objects.sizes() == {}
    objects.put(path)
    objects.put(path)  # again, as after a crash before the file was deleted
    assert objects.sizes() == {path.stem: path.stat().st_size}
    whole = path.read_bytes()
    for start, count in ((0, 8), (5, 100), (len(whole) - 4, 4), (len(whole) - 4, 99), (0, 2**22)):
        assert objects.read(path.stem, start, count) == whole[start : start + count]
    reader = SegmentReader(tmp_path / "nowhere", objects)
    assert [reader.read(place) for place in places] == [
        b"one" * 100, b"two", b"x" * 3_000_000, b"last"
    ]  # fmt: skip
    assert objects.delete(path.stem) == len(whole)
    assert objects.delete(path.stem) == 0
    with pytest.raises(FileNotFoundError):
        ObjectStore(url).read(path.stem, 0, 8)


def test_put_takes_back_nothing_it_cannot_verify(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(tmp_path, [b"body" * 50])
    objects, path = ObjectStore(url), only_path(tmp_path)
    before = path.read_bytes()
    files = type(objects._files)
    for damage in (lambda raw: raw[:-1], lambda raw: b"\0" + raw[1:]):

        def put_badly(self: Any, here: str, there: str, damage: Any = damage, **_: Any) -> None:
            self.pipe_file(there, damage(Path(here).read_bytes()))

        monkeypatch.setattr(files, "put_file", put_badly)
        with pytest.raises(StoreError, match="did not keep segment"):
            objects.put(path)
        assert mover_of(tmp_path, objects).move() == 0
        assert path.read_bytes() == before
    monkeypatch.undo()
    assert mover_of(tmp_path, objects).move() == 1
    assert not path.exists()


def test_objects_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segment(tmp_path, [b"body" * 50])
    with pytest.raises(StoreError, match="cannot be used"):
        ObjectStore("nothing://bucket").put(only_path(tmp_path))
    real = builtins.__import__

    def no_module(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("fsspec"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", no_module)
    with pytest.raises(StoreError, match="fsspec is not installed") as caught:
        ObjectStore("memory://x").put(only_path(tmp_path))
    assert "ownweights[objects]" in str(caught.value.hint)


def test_objects_say_that_the_store_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(tmp_path, [b"body" * 50])
    objects = ObjectStore("memory://bucket/x")

    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError("secret-key-4711")

    monkeypatch.setattr(type(objects._files), "put_file", fail)
    with pytest.raises(StoreError, match=r"memory://bucket/x cannot be reached \(Timeout") as found:
        objects.put(only_path(tmp_path))
    assert "4711" not in str(found.value)


def test_mover_leaves_what_is_written_to(tmp_path: Path, url: str) -> None:
    writer, objects = SegmentWriter(tmp_path, max_segment_bytes=1000), ObjectStore(url)
    writer.append([b"a"])
    mover = mover_of(tmp_path, objects)
    assert mover.move() == 0
    writer.close_older_than(3600.0)
    assert mover.move() == 0
    writer.close_older_than(0.0)
    assert mover.move() == 1
    place = writer.append([b"b"])[0]  # a new one begins
    mover.adopt([place.segment, "of nobody"])
    assert list(objects.sizes()) != [place.segment]
    writer.close()
    assert (mover.move(), len(objects.sizes()), list(tmp_path.glob("*.seg"))) == (1, 2, [])


def test_two_movers_do_not_take_the_same(tmp_path: Path, url: str) -> None:
    write_segment(tmp_path, [b"a"])
    objects, rivals = ObjectStore(url), []

    class Slow(ObjectStore):
        def put(self, path: Path) -> None:
            rivals.append(mover_of(tmp_path, objects).move())
            super().put(path)

    assert mover_of(tmp_path, Slow(url)).move() == 1
    assert rivals == [0]


def test_mover_waits_while_the_store_is_down(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    places = write_segment(tmp_path, [b"private"])
    objects = Down(url)
    mover = mover_of(tmp_path, objects, every_s=0.0)
    assert (mover.move(), mover.move()) == (0, 0)
    assert SegmentReader(tmp_path, objects).read(places[0]) == b"private"
    objects.is_down = False
    mover.start()
    mover.close()
    assert list(tmp_path.glob("*.seg")) == []
    assert SegmentReader(tmp_path, objects).read(places[0]) == b"private"
    assert caplog.messages == [
        "bodies stay on this disk (1 segments wait): the object store cannot be reached (Timeout)",
        "bodies move to the object store again",
    ]


def test_store_leaves_segments_of_another_index(remote: Project) -> None:
    remote.bodies_dir.mkdir(parents=True)
    foreign = write_segment(remote.bodies_dir, [b"of another index"])[0].segment
    with TrafficStore.open(remote) as store:
        store.add([make("ours")])
        assert store.move_bodies() == 1
    assert [path.stem for path in remote.bodies_dir.glob("*")] == [foreign]


def test_delete_takes_what_a_killed_process_had_sent(tmp_path: Path) -> None:
    write_segment(tmp_path / "here", [b"one" * 100])
    path, there = only_path(tmp_path / "here"), tmp_path / "bucket"
    objects = ObjectStore(f"file://{there}")
    objects.put(path)
    (there / f"{path.name}.part").write_bytes(path.read_bytes()[:50])
    assert objects.delete(path.stem) == path.stat().st_size + 50
    assert list(there.iterdir()) == []
    (there / f"{path.name}.part").write_bytes(b"sent")  # and it was never whole
    assert objects.delete(path.stem) == 4
    assert objects.delete(path.stem) == 0


def test_shelf_frees_a_segment_wherever_it_is(tmp_path: Path, url: str) -> None:
    shelf = Shelf(tmp_path, ObjectStore(url))
    names = [write_segment(tmp_path, [b"a" * 100])[0].segment for _ in range(2)]
    sizes = shelf.sizes()
    assert set(sizes) == set(names)
    assert shelf.objects is not None
    shelf.objects.put(tmp_path / f"{names[0]}.seg")
    (tmp_path / f"{names[0]}.seg").unlink()
    assert shelf.sizes() == sizes
    assert [shelf.free(name) for name in names] == [sizes[name] for name in names]
    assert shelf.sizes() == {} and shelf.free("none") == 0


@pytest.fixture
def remote(project: Project, url: str) -> Project:
    """A project whose bodies move."""
    return replace(project, bodies_url=url)


def test_store_reads_bodies_that_moved(remote: Project, tmp_path: Path) -> None:
    records = [make(f"q{n}", "a" * n, source_id=f"s{n}") for n in range(300)]
    with TrafficStore.open(remote) as store:
        store.add(records[:200])
        assert store.move_bodies(older_than_s=3600.0) == 0
        assert store.move_bodies() == 1
        store.add(records[200:])
        assert list(store.records()) == records
        report = store.verify()
        assert (report.is_sound, report.records, report.segments) == (True, 300, 2)
    assert list(remote.bodies_dir.glob("*")) == []  # closing moved the rest
    with TrafficStore.open(remote) as store:
        assert list(store.records()) == records
        assert store.add(records) == (0, 300)
        assert store.verify().body_bytes == report.body_bytes


def test_store_reads_bodies_from_another_machine(remote: Project, tmp_path: Path) -> None:
    if remote.server is None:
        pytest.skip("another machine has no way to a file of SQLite's")
    other = replace(remote, root=tmp_path / "other")
    with TrafficStore.open(remote) as here, TrafficStore.open(other) as there:
        here.add([make("moved")])
        here.move_bodies()
        here.add([make("waits")])
        records = there.records()
        with pytest.raises(StoreError, match="cannot be read") as caught:
            list(records)
        assert "another machine may still hold it" in str(caught.value.hint)
        report = there.verify(repair=True)  # what is out of reach is not lost
        assert (len(report.faults), report.damaged, report.repaired) == (1, (), 0)
        assert here.move_bodies() == 1
        texts = [record.request["messages"][1]["content"] for record in there.records()]
        assert texts == ["moved", "waits"]
        assert there.verify().is_sound


def test_verify_repairs_nothing_while_the_store_is_down(
    remote: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrafficStore.open(remote) as store:
        store.add([make("a")])

    def fail(*_: Any, **__: Any) -> bytes:
        raise ConnectionError

    with TrafficStore.open(remote) as store:
        objects = store.shelf.objects
        assert objects is not None
        monkeypatch.setattr(type(objects._files), "cat_file", fail)
        report = store.verify(repair=True)
        assert (len(report.faults), report.damaged, report.repaired) == (2, (), 0)
        monkeypatch.undo()
        assert store.verify().is_sound


def test_verify_never_takes_out_what_an_object_store_lacks(remote: Project) -> None:
    """Its address may be wrong."""
    with TrafficStore.open(remote) as store:
        store.add([make("a", source_id="a")])
    elsewhere = replace(remote, bodies_url=f"{remote.bodies_url}/mistyped")
    with TrafficStore.open(elsewhere) as store:
        report = store.verify(repair=True)
        assert (len(report.faults), report.damaged, report.repaired) == (2, (), 0)
    with TrafficStore.open(remote) as store:
        assert store.verify().is_sound


def test_mover_says_that_the_bucket_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_segment(tmp_path, [b"body" * 50])
    objects = ObjectStore("memory://nobucket")

    def fail(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(type(objects._files), "put_file", fail)
    mover = mover_of(tmp_path, objects)
    assert mover.move() == 0
    assert "memory://nobucket is not there" in caplog.messages[0]
    monkeypatch.undo()
    assert mover.move() == 1
    objects.delete(next(iter(objects.sizes())))


def asked_by(user: str, number: int) -> list[Any]:
    return [
        make(f"<{user}> asks {n}", metadata={"user": user}, source_id=f"{user}-{n}")
        for n in range(number)
    ]


def objects_of(store: TrafficStore) -> ObjectStore:
    assert store.shelf.objects is not None
    return store.shelf.objects


def test_erase_reaches_the_object_store(remote: Project) -> None:
    with TrafficStore.open(remote) as store:
        store.add([*asked_by("eve", 20), *asked_by("bob", 20)])
        store.move_bodies()
        (before,) = objects_of(store).sizes()
        report = erase(store, Whose(user="eve"))
        assert (report.records, report.segments, report.unreadable) == (20, 1, ())
        (after,) = objects_of(store).sizes()
        assert after != before and store.shelf.files() == []
        assert [record.source_id for record in store.records()] == [f"bob-{n}" for n in range(20)]
        assert store.verify().is_sound
        assert erase(store, Whose(user="bob")).records == 20
        assert objects_of(store).sizes() == {}


def test_prune_waits_while_the_object_store_is_down(
    remote: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrafficStore.open(remote) as store:
        store.add(asked_by("eve", 3))

    def fail(*_: Any, **__: Any) -> bytes:
        raise ConnectionError

    with TrafficStore.open(remote) as store:
        monkeypatch.setattr(type(objects_of(store)._files), "cat_file", fail)
        with pytest.raises(StoreError, match="cannot be reached"):
            erase(store, Whose(user="eve"))
        monkeypatch.undo()
        assert store.count() == 3 and store.verify().is_sound
        assert erase(store, Whose(user="eve")).unreadable == ()
        assert objects_of(store).sizes() == {}


def test_erase_names_segments_that_are_elsewhere(remote: Project) -> None:
    """Nothing is said to be gone that may still lie in another place."""
    with TrafficStore.open(remote) as store:
        store.add(asked_by("eve", 3))
    with TrafficStore.open(remote) as store:
        (segment,) = objects_of(store).sizes()
    mistyped = replace(remote, bodies_url=f"{remote.bodies_url}/mistyped")
    with TrafficStore.open(mistyped) as store:
        assert erase(store, Whose(user="eve")).unreadable == (segment,)
    with TrafficStore.open(remote) as store:
        assert segment in objects_of(store).sizes()
        assert prune(store, 0.0).unreadable == ()
        assert store.verify(repair=True).faults  # what nobody could read needed a shared text
        assert prune(store, 0.0).unreadable == ()
        assert objects_of(store).sizes() == {}
        assert store.verify().is_sound


def test_mover_takes_back_what_was_freed(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(tmp_path, [b"body" * 50])
    objects, path = ObjectStore(url), only_path(tmp_path)
    shelf, put = Shelf(tmp_path, objects), objects.put

    def put_while_it_is_freed(given: Path) -> None:
        put(given)
        given.unlink()
        assert Shelf(tmp_path).free(given.stem) == 0

    monkeypatch.setattr(objects, "put", put_while_it_is_freed)
    assert mover_of(tmp_path, objects).move() == 0
    assert shelf.sizes() == {} and not path.exists()


KILLED = """
import os, sys
from ownweights.traffic import TrafficStore
from tests.postgres import spelled
from tests.traffic.samples import make
store = TrafficStore.open(spelled(sys.argv[1]))
store.add([make(str(n)) for n in range(300)])
if sys.argv[2] == "moving":
    put = store.shelf.objects.put
    def put_and_die(path):
        put(path)
        os.kill(os.getpid(), 9)
    type(store.shelf.objects).put = lambda self, path: put_and_die(path)
    store.move_bodies()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_mover_moves_what_a_killed_writer_left(project: Project, tmp_path: Path, when: str) -> None:
    remote = replace(project, bodies_url=f"file://{tmp_path}/bucket")
    process = run_python(KILLED, spell(remote), when)
    _, errors = process.communicate()
    assert process.returncode == -9, errors
    assert len(list(remote.bodies_dir.glob("*.seg"))) == 1
    with TrafficStore.open(remote) as store:
        assert store.verify().is_sound
        store.add([make("next")])
    assert list(remote.bodies_dir.glob("*")) == []
    assert len(list((tmp_path / "bucket").glob("*"))) == 2
    assert len(stored(remote)) == 301
