"""Bodies in an object store: whole segments, sent once and never changed, through fsspec.

A record's body is durable on the local disk first (traffic/bodies/segment.py), and its segment
moves when it is full or old. A segment is taken from the local disk only after the object was read
back and is byte for byte the same (test_put_takes_back_nothing_it_cannot_verify), so a crash at any
moment leaves it in one place or in both, and both are the same. Stores that show half-written files
get the object under another name first. In: an address that fsspec knows (s3://, gs://, file://).
Out: byte ranges of segments; StoreError with a hint for whatever the store's own library raises.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ownweights.core.errors import StoreError

SUFFIX = ".seg"
AHEAD_BYTES = 2**20  # read at once: the blocks that follow are likely asked for next
_DRAFT = ".part"  # after the name of an object that is not whole yet
_CHUNK_BYTES = 4 * 2**20
_CACHED_WINDOWS = 4
# an object appears there whole or not at all
_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}


class ObjectStore:
    """The segments below one address. Nothing is asked of the store before it is needed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._windows: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    def put(self, path: Path) -> None:
        """Send a segment's file, and make sure that it arrived as it is.

        Raises: StoreError when it did not; the file here is as it was. FileNotFoundError when there
        is no such file
        """
        try:
            self._put(path)
        except FileNotFoundError:
            if not path.exists():
                raise
            hint = "make the bucket, or check [store] bodies; bodies wait on this disk"
            raise StoreError(f"{self.url} is not there", hint=hint) from None

    def _put(self, path: Path) -> None:
        with self._explained():
            target = self._name(path.stem)
            draft = target if self._is_whole else f"{target}{_DRAFT}"
            if not self._is_whole:
                self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(path), draft)
            if not self._is_same(path, draft):
                raise StoreError(f"{self.url} did not keep segment {path.stem} as it was sent")
            if draft != target:
                self._files.mv(draft, target)

    def read(self, segment: str, start: int, count: int) -> bytes:
        """`count` bytes of a segment from `start`, fewer at its end.

        Raises: FileNotFoundError when it is not there, StoreError when nobody can tell
        """
        first, window = self._windows.get(segment, (0, b""))
        if not first <= start <= start + count <= first + len(window):
            with self._explained():
                end = start + max(count, AHEAD_BYTES)
                first, window = start, self._files.cat_file(self._name(segment), start, end)
            self._windows[segment] = first, window
            self._windows.move_to_end(segment)
            if len(self._windows) > _CACHED_WINDOWS:
                self._windows.popitem(last=False)
        return window[start - first : start - first + count]

    def sizes(self) -> dict[str, int]:
        """The bytes of each segment that is there."""
        with self._explained():
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
            named = [(str(one["name"]).rpartition("/")[2], one["size"]) for one in found]
        return {name[: -len(SUFFIX)]: size for name, size in named if name.endswith(SUFFIX)}

    def delete(self, segment: str) -> int:
        """Take a segment away, with what a killed process had sent of it; how many bytes that
        frees."""
        name, freed_bytes = self._name(segment), 0
        self._windows.pop(segment, None)
        for one in (name, f"{name}{_DRAFT}"):
            with contextlib.suppress(FileNotFoundError), self._explained():
                size_bytes = int(self._files.info(one)["size"])
                self._files.rm_file(one)
                freed_bytes += size_bytes
        return freed_bytes

    def _name(self, segment: str) -> str:
        return f"{self._root}/{segment}{SUFFIX}"

    def _is_same(self, path: Path, name: str) -> bool:
        if self._files.info(name)["size"] != path.stat().st_size:
            return False
        start = 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                if self._files.cat_file(name, start, start + len(chunk)) != chunk:
                    return False
                start += len(chunk)
        return True

    @functools.cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise StoreError(
                "an object store is set for bodies, but fsspec is not installed",
                hint="pip install 'ownweights[objects]', and what your store needs, say s3fs",
            ) from None
        files, root = url_to_fs(self.url, use_listings_cache=False)
        return files, str(root).rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _is_whole(self) -> bool:
        named = self._files.protocol
        return bool(_WHOLE & {named} if isinstance(named, str) else _WHOLE & set(named))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, FileNotFoundError):
            raise
        except ImportError as error:
            what = f"{self.url} needs a package that is not installed: {error}"
            raise StoreError(what, hint="for s3:// pip install s3fs, for gs:// gcsfs") from None
        except ValueError as error:
            hint = "[store] bodies is an address that fsspec knows, like s3://bucket/prefix"
            raise StoreError(f"{self.url} cannot be used: {error}", hint=hint) from None
        except Exception as error:  # each store's library has errors of its own
            raise StoreError(
                f"the object store {self.url} cannot be reached ({type(error).__name__})",
                hint="check its address, your rights and the network; bodies wait on this disk",
            ) from error
