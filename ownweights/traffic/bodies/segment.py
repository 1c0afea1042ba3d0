"""Where bodies lie: append-only segment files of zstd blocks, apart from the index in the database.

    <bodies>/<pid>-<random>.seg
    ┌──────────┬───────────────────────────────┬───────────────────────────────┬── ─ ─
    │ OWNSEG1\\n│ BLK1 sizes crc │ zstd frame    │ BLK1 sizes crc │ zstd frame    │ torn tail?
    └──────────┴───────────────────────────────┴───────────────────────────────┴── ─ ─
                                 frame = count, item lengths, items

A segment has one writer process, which holds a lock on its file, and is never written again once
that process is gone; then it may move to an object store (traffic/bodies/mover.py). An item is
addressed by segment, offset of its block, and number in the block, and only blocks that were
written whole are ever addressed, so a tail torn by a crash is never read
(test_segment_with_torn_tail_keeps_whole_blocks). Every block carries a checksum: damage is found,
not returned (test_read_block_finds_a_flipped_byte). What fails leaves nothing behind
(test_append_that_fails_leaves_nothing_behind).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.objects import SUFFIX, ObjectStore

SEGMENT_MAGIC = b"OWNSEG1\n"
BLOCK_MAGIC = b"BLK1"
MAX_SEGMENT_BYTES = 64 * 2**20
BLOCK_BYTES = 256 * 2**10  # of items, before compression: what one read has to unpack
ZSTD_LEVEL = 3
_HEADER = struct.Struct("<4sIII")  # magic, bytes of the frame, bytes unpacked, crc32 of the rest
_CACHED_BLOCKS = 8
_CACHED_FILES = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Where one item lies."""

    segment: str
    offset_bytes: int
    item: int


class SegmentWriter:
    """Appends blocks to a segment of its own; a new one begins when it is full or after a fork.

    `on_new` is told the name of each segment before the first block is in it.
    """

    def __init__(
        self,
        bodies_dir: Path,
        *,
        max_segment_bytes: int = MAX_SEGMENT_BYTES,
        on_new: Callable[[str], object] = lambda segment: None,
    ) -> None:
        self._bodies_dir = bodies_dir
        self._max_segment_bytes = max_segment_bytes
        self._on_new = on_new
        self._file: int | None = None
        self._pid = 0
        self._opened_s = 0.0
        self._end_bytes = 0
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.segment = ""

    def append(self, items: Sequence[bytes]) -> list[Place]:
        """Write the items; where each one lies. A failed write leaves none of them.

        Raises: StoreError when the disk is full or cannot be written
        """
        places: list[Place] = []
        try:
            for block in _blocks_of(items):
                offset_bytes = self._append_block(block)
                places += [Place(self.segment, offset_bytes, item) for item in range(len(block))]
        except StoreError:
            self.take_back(places)
            raise
        return places

    def take_back(self, places: Sequence[Place]) -> None:
        """Free what the last append wrote; nothing may refer to it, now or ever."""
        starts: dict[str, int] = {}
        for place in places:
            starts.setdefault(place.segment, place.offset_bytes)
        for segment, start in starts.items():
            path = segment_path(self._bodies_dir, segment)
            with contextlib.suppress(OSError):
                os.truncate(path, start)
                if segment == self.segment and self._file is not None:
                    self._end_bytes = start
                elif start == len(SEGMENT_MAGIC):
                    path.unlink()

    def sync(self) -> None:
        """Wait until what was written is on the disk, so that a power cut cannot lose it."""
        if self._file is None:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._unwritten(error) from error

    def close_older_than(self, age_s: float) -> None:
        """Let go of a segment that was begun so long ago."""
        if self._file is not None and time.monotonic() - self._opened_s >= age_s:
            self.close()

    def close(self) -> None:
        """Let go of the segment, and of its file where it holds nothing; the next append begins a
        new one."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        if self._pid == os.getpid() and self._end_bytes <= len(SEGMENT_MAGIC):
            with contextlib.suppress(OSError):
                segment_path(self._bodies_dir, self.segment).unlink()

    def _append_block(self, items: Sequence[bytes]) -> int:
        raw = _pack(items)
        frame = self._compressor.compress(raw)
        checksum = _checksum(len(frame), len(raw), frame)
        data = _HEADER.pack(BLOCK_MAGIC, len(frame), len(raw), checksum) + frame
        try:
            file = self._writable_file()
            offset_bytes = self._end_bytes
            _write_all(file, data)
        except OSError as error:
            self._drop_torn_tail()
            raise self._unwritten(error) from error
        self._end_bytes += len(data)
        return offset_bytes

    def _writable_file(self) -> int:
        if self._file is not None and self._pid != os.getpid():
            self._file = None  # the parent's file: only the parent may write to it
        if self._file is not None and self._end_bytes >= self._max_segment_bytes:
            self.close()
        if self._file is None:
            self._pid = os.getpid()
            name = f"{self._pid}-{secrets.token_hex(6)}"
            self._bodies_dir.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(segment_path(self._bodies_dir, name), flags, 0o600)
            self.segment, self._end_bytes, self._opened_s = name, 0, time.monotonic()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                _write_all(self._file, SEGMENT_MAGIC)
                self._on_new(name)
            except BaseException:
                self.close()
                raise
            self._end_bytes = len(SEGMENT_MAGIC)
        return self._file

    def _drop_torn_tail(self) -> None:
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, self._end_bytes)
        except OSError:
            self.close()  # begin a new segment next time: what this one ends with is not known

    def _unwritten(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write bodies in {self._bodies_dir}: {error.strerror}",
            hint="free some disk space or mend the permissions; nothing stored so far is lost",
        )


class SegmentReader:
    """Reads items back; keeps the last few blocks and files at hand. For one thread.

    A segment that is not in `bodies_dir` is read from `objects`. Where the index `is_shared` with
    other machines, one that is nowhere may still be on the disk of another; where there is an
    object store, its address may be wrong: neither is surely lost.
    """

    def __init__(
        self, bodies_dir: Path, objects: ObjectStore | None = None, *, is_shared: bool = False
    ) -> None:
        self._bodies_dir = bodies_dir
        self._objects = objects
        self._is_shared = is_shared
        self._blocks: OrderedDict[tuple[str, int], list[bytes]] = OrderedDict()
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, place: Place) -> bytes:
        """The bytes of one item.

        Raises: StoreError when its block is missing or damaged
        """
        key = (place.segment, place.offset_bytes)
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = self._read_block(*key)
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        if place.item >= len(block):
            raise _damaged(*key, f"it has {len(block)} items, number {place.item} was asked for")
        return block[place.item]

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        self._blocks.clear()

    def _read_block(self, segment: str, offset_bytes: int) -> list[bytes]:
        header = self._bytes(segment, offset_bytes, _HEADER.size)
        if len(header) < _HEADER.size:
            raise _damaged(segment, offset_bytes, "the file ends before it")
        magic, frame_bytes, raw_bytes, checksum = _HEADER.unpack(header)
        if magic != BLOCK_MAGIC:
            raise _damaged(segment, offset_bytes, "there is no block")
        frame = self._bytes(segment, offset_bytes + _HEADER.size, frame_bytes)
        if len(frame) < frame_bytes:
            raise _damaged(segment, offset_bytes, "the file ends before it does")
        if _checksum(frame_bytes, raw_bytes, frame) != checksum:
            raise _damaged(segment, offset_bytes, "its checksum does not match")
        try:
            return _unpack(zstandard.ZstdDecompressor().decompress(frame, raw_bytes))
        except (zstandard.ZstdError, struct.error, ValueError) as error:
            raise _damaged(segment, offset_bytes, str(error)) from None

    def _bytes(self, segment: str, start: int, count: int) -> bytes:
        """Bytes of a segment, here or in the object store; fewer at its end."""
        try:
            file = self._open(segment)
            return os.pread(file, min(count, max(0, os.fstat(file).st_size - start)), start)
        except FileNotFoundError as error:
            if self._objects is None:
                raise self._missing(segment, error) from None
        except OSError as error:
            raise self._missing(segment, error) from None
        try:
            return self._objects.read(segment, start, count)
        except FileNotFoundError as error:
            raise self._missing(segment, error) from None

    def _missing(self, segment: str, error: OSError) -> StoreError:
        what = f"body segment {segment} cannot be read: {error.strerror or 'it is not there'}"
        if isinstance(error, FileNotFoundError) and (self._is_shared or self._objects):
            hint = "another machine may still hold it, or [store] bodies names another place"
            return StoreError(what, hint=hint)
        return StoreError(what, hint="own traffic verify lists what is affected", is_row=True)

    def _open(self, segment: str) -> int:
        if segment not in self._files:
            self._files[segment] = os.open(segment_path(self._bodies_dir, segment), os.O_RDONLY)
            if len(self._files) > _CACHED_FILES:
                os.close(self._files.popitem(last=False)[1])
        return self._files[segment]


def segment_path(bodies_dir: Path, segment: str) -> Path:
    """The file of a segment."""
    return bodies_dir / f"{segment}{SUFFIX}"


def torn_tail_bytes(path: Path) -> int:
    """How many bytes at the end of a segment belong to no whole block (a crash leaves them)."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        end = len(SEGMENT_MAGIC)
        while end + _HEADER.size <= size_bytes:
            file.seek(end)
            magic, frame_bytes, _, _ = _HEADER.unpack(file.read(_HEADER.size))
            if magic != BLOCK_MAGIC or end + _HEADER.size + frame_bytes > size_bytes:
                break
            end += _HEADER.size + frame_bytes
    return max(0, size_bytes - end)


def _blocks_of(items: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    start, block_bytes = 0, 0
    for index, item in enumerate(items):
        if index > start and block_bytes + len(item) > BLOCK_BYTES:
            yield items[start:index]
            start, block_bytes = index, 0
        block_bytes += len(item)
    if start < len(items):
        yield items[start:]


def _checksum(frame_bytes: int, raw_bytes: int, frame: bytes) -> int:
    return zlib.crc32(frame, zlib.crc32(struct.pack("<II", frame_bytes, raw_bytes)))


def _pack(items: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(items) + 1}I", len(items), *map(len, items))
    return lengths + b"".join(items)


def _unpack(raw: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<I", raw)
    lengths = struct.unpack_from(f"<{count}I", raw, 4)
    start = 4 + 4 * count
    if start + sum(lengths) != len(raw):
        raise ValueError("the lengths of its items do not add up")
    items: list[bytes] = []
    for length in lengths:
        items.append(raw[start : start + length])
        start += length
    return items


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _damaged(segment: str, offset_bytes: int, what: str) -> StoreError:
    return StoreError(
        f"body segment {segment} is damaged at byte {offset_bytes}: {what}",
        hint="own traffic verify lists what is affected",
        is_row=True,
    )
