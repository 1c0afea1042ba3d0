"""Segments: what was written comes back, or an error says that it is damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import StoreError
from ownweights.traffic.bodies import segment as bodies
from ownweights.traffic.bodies.segment import (
    BLOCK_BYTES,
    SEGMENT_MAGIC,
    Place,
    SegmentReader,
    SegmentWriter,
    segment_path,
    torn_tail_bytes,
)
from tests.traffic.samples import run_python

BATCHES = st.lists(st.lists(st.binary(max_size=2000), max_size=6), max_size=5)


def read_all(folder: Path, places: list[Place]) -> list[bytes]:
    reader = SegmentReader(folder)
    try:
        return [reader.read(place) for place in places]
    finally:
        reader.close()


def write_all(folder: Path, items: list[bytes], **options: int) -> list[Place]:
    writer = SegmentWriter(folder, **options)
    try:
        return writer.append(items)
    finally:
        writer.close()


@given(batches=BATCHES, order=st.randoms())
def test_segment_always_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], order: object
) -> None:
    folder = tmp_path_factory.mktemp("bodies")
    writer = SegmentWriter(folder, max_segment_bytes=3000)
    pairs = [
        pair for batch in batches for pair in zip(writer.append(batch), batch, strict=True)
    ]  # fmt: skip
    writer.close()
    order.shuffle(pairs)  # type: ignore[attr-defined]
    assert read_all(folder, [place for place, _ in pairs]) == [item for _, item in pairs]


def test_append_cuts_items_into_blocks(tmp_path: Path) -> None:
    items = [b"a" * 1000] * 600 + [b"b" * 3 * BLOCK_BYTES] + [b""]
    places = write_all(tmp_path, items)
    assert read_all(tmp_path, places) == items
    per_block = BLOCK_BYTES // 1000
    sizes = [[p.offset_bytes for p in places].count(o) for o in {p.offset_bytes for p in places}]
    assert sorted(sizes) == sorted([per_block, per_block, 600 - 2 * per_block, 1, 1])


def test_append_nothing_writes_nothing(tmp_path: Path) -> None:
    assert write_all(tmp_path / "bodies", []) == []
    assert not (tmp_path / "bodies").exists()


def test_writer_begins_a_new_segment_when_one_is_full(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, max_segment_bytes=100)
    places = [writer.append([os.urandom(200)])[0] for _ in range(3)]
    writer.close()
    assert len({place.segment for place in places}) == 3


def test_writers_never_share_a_segment(tmp_path: Path) -> None:
    places = [write_all(tmp_path, [b"x"])[0] for _ in range(5)]
    assert len({place.segment for place in places}) == 5
    assert all(place.segment.startswith(f"{os.getpid()}-") for place in places)


def test_writer_begins_a_new_segment_after_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path)
    before = writer.append([b"parent"])
    parents_file = writer._file
    monkeypatch.setattr(bodies.os, "getpid", lambda: 12345)
    after = writer.append([b"child"])
    writer.close()
    assert parents_file is not None
    os.close(parents_file)
    assert after[0].segment.startswith("12345-")
    assert read_all(tmp_path, before + after) == [b"parent", b"child"]


def test_segments_are_for_their_owner_only(tmp_path: Path) -> None:
    (place,) = write_all(tmp_path, [b"private"])
    assert segment_path(tmp_path, place.segment).stat().st_mode & 0o077 == 0


def test_segment_with_torn_tail_keeps_whole_blocks(tmp_path: Path) -> None:
    places = [write_all(tmp_path, [b"first"])[0]]
    path = segment_path(tmp_path, places[0].segment)
    whole = path.read_bytes()
    block = whole[len(SEGMENT_MAGIC) :]
    for cut in range(len(block)):
        path.write_bytes(whole + block[:cut])
        assert torn_tail_bytes(path) == cut
        assert read_all(tmp_path, places) == [b"first"]
        torn = Place(places[0].segment, len(whole), 0)
        says = f"is damaged at byte {len(whole)}: the file ends before it"
        with pytest.raises(StoreError, match=says):
            read_all(tmp_path, [torn])
    path.write_bytes(whole + block)
    assert torn_tail_bytes(path) == 0


def test_torn_tail_of_an_unfinished_header_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.seg"
    path.write_bytes(SEGMENT_MAGIC[:3])
    assert torn_tail_bytes(path) == 0
    path.write_bytes(SEGMENT_MAGIC + b"xxxxxxxxxxxxxxxxxxxxxxxx")
    assert torn_tail_bytes(path) == 24


def test_read_block_finds_a_flipped_byte(tmp_path: Path) -> None:
    items = [b"some text to be kept", b"and more of it"]
    places = write_all(tmp_path, items)
    path = segment_path(tmp_path, places[0].segment)
    whole = path.read_bytes()
    for index in range(len(SEGMENT_MAGIC), len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x40]) + whole[index + 1 :])
        with pytest.raises(StoreError, match="is damaged at byte 8: ") as caught:
            read_all(tmp_path, places)
        assert caught.value.hint == "own traffic verify lists what is affected"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (lambda p: Place("1-none", 8, 0), "segment 1-none cannot be read: No such file"),
        (lambda p: Place(p.segment, 9, 0), "at byte 9: there is no block"),
        (lambda p: Place(p.segment, 10_000, 0), "at byte 10000: the file ends before it"),
        (lambda p: Place(p.segment, 8, 2), "at byte 8: it has 2 items, number 2 was asked for"),
    ],
)
def test_read_says_what_is_not_there(
    tmp_path: Path, place: Callable[[Place], Place], says: str
) -> None:
    places = write_all(tmp_path, [os.urandom(50), b"b"])
    with pytest.raises(StoreError, match=says):
        read_all(tmp_path, [place(places[0])])


def test_reader_holds_few_blocks_and_files(tmp_path: Path) -> None:
    places = [write_all(tmp_path, [b"%d" % n])[0] for n in range(40)]
    reader = SegmentReader(tmp_path)
    assert [reader.read(place) for place in places * 2] == [b"%d" % n for n in range(40)] * 2
    assert len(reader._files) <= 32
    assert len(reader._blocks) <= 8
    reader.close()


def fill_disk(patch: pytest.MonkeyPatch, room_bytes: int) -> None:
    """Let the next writes take `room_bytes`, and none after that."""
    real_write, left = os.write, [room_bytes]

    def write(file: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(file, bytes(data)[: left[0]])
        left[0] -= written
        return written

    patch.setattr(bodies.os, "write", write)


def refuse(*given: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("may_truncate", [True, False])
def test_append_that_fails_leaves_what_was_written(tmp_path: Path, may_truncate: bool) -> None:
    writer = SegmentWriter(tmp_path)
    kept = writer.append([b"kept"])
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, 20)
        if not may_truncate:
            patch.setattr(bodies.os, "ftruncate", refuse)
        with pytest.raises(StoreError, match=r"cannot write bodies in .*: No space") as caught:
            writer.append([b"lost" * 50])
    assert "free some disk space" in str(caught.value.hint)
    after = writer.append([b"after"])
    writer.close()
    assert (after[0].segment == kept[0].segment) == may_truncate
    assert read_all(tmp_path, kept + after) == [b"kept", b"after"]
    torn = [torn_tail_bytes(path) for path in tmp_path.iterdir()]
    assert sorted(torn) == ([0] if may_truncate else [0, 20])


@pytest.mark.parametrize("room_bytes", [0, 4, 8, 30, 400_000])
@pytest.mark.parametrize("max_segment_bytes", [bodies.MAX_SEGMENT_BYTES, 100])
def test_append_that_fails_leaves_nothing_behind(
    tmp_path: Path, room_bytes: int, max_segment_bytes: int
) -> None:
    writer = SegmentWriter(tmp_path, max_segment_bytes=max_segment_bytes)
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, room_bytes)
        for _ in range(3):
            with pytest.raises(StoreError, match="No space left"):
                writer.append([os.urandom(BLOCK_BYTES)] * 3)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(SEGMENT_MAGIC)
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_segment_bytes", [bodies.MAX_SEGMENT_BYTES, 100])
def test_take_back_keeps_what_came_before(tmp_path: Path, max_segment_bytes: int) -> None:
    writer = SegmentWriter(tmp_path, max_segment_bytes=max_segment_bytes)
    kept = writer.append([b"kept" * 50])
    size_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    writer.take_back(writer.append([os.urandom(BLOCK_BYTES)] * 3))
    spare_bytes = sum(path.stat().st_size for path in tmp_path.iterdir()) - size_bytes
    assert spare_bytes in (0, len(SEGMENT_MAGIC))
    after = writer.append([b"after"])
    writer.close()
    assert read_all(tmp_path, kept + after) == [b"kept" * 50, b"after"]


def test_writer_tells_of_a_segment_before_anything_is_in_it(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    def note(segment: str) -> None:
        told.append((segment, segment_path(tmp_path, segment).stat().st_size))
        if len(told) == 1:
            raise StoreError("the index is full")

    writer = SegmentWriter(tmp_path, on_new=note)
    with pytest.raises(StoreError, match="the index is full"):
        writer.append([b"x"])
    assert list(tmp_path.iterdir()) == []
    (place,) = writer.append([b"x"])
    writer.close()
    assert told[1] == (place.segment, len(SEGMENT_MAGIC))


def test_sync_says_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path)
    writer.sync()
    writer.append([b"x"])
    monkeypatch.setattr(bodies.os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"cannot write bodies in .*: Input/output error"):
        writer.sync()
    writer.close()


def test_append_to_a_full_disk_leaves_no_empty_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def full_after_the_magic(file: int, data: bytes) -> int:
        if bytes(data) == SEGMENT_MAGIC:
            return real_write(file, data)
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = SegmentWriter(tmp_path)
    monkeypatch.setattr(bodies.os, "write", full_after_the_magic)
    for _ in range(3):
        with pytest.raises(StoreError, match="No space left"):
            writer.append([b"lost"])
    assert len(list(tmp_path.iterdir())) == 1  # still open, and written to once there is room
    writer.close()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(bodies.os, "write", real_write)
    assert read_all(tmp_path, writer.append([b"after"])) == [b"after"]
    writer.close()


LIMITED = """
import os, resource, signal, sys
from pathlib import Path
from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.segment import SegmentReader, SegmentWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
writer = SegmentWriter(Path(sys.argv[1]))
kept = writer.append([b"kept"])
try:
    writer.append([os.urandom(50_000)])
except StoreError as error:
    print(error)
more = writer.append([b"more"])
reader = SegmentReader(Path(sys.argv[1]))
print([reader.read(place) for place in kept + more])
"""


def test_append_survives_a_file_that_may_not_grow(tmp_path: Path) -> None:
    process = run_python(LIMITED, tmp_path)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "File too large" in out
    assert out.endswith("[b'kept', b'more']\n")


def test_append_says_that_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write bodies in .*: Not a directory"):
        write_all(tmp_path / "file" / "bodies", [b"x"])
