"""Moves segments from the local disk to the object store, behind the writer's back.

A segment moves when no process writes to it any more: its writer holds a lock on the file, which
ends with the process, so what a killed one left moves, too
(test_mover_moves_what_a_killed_writer_left). Two movers never take the same one
(test_two_movers_do_not_take_the_same). When the object store is down, segments wait here and are
read here; that is logged in numbers, and tried again (test_mover_waits_while_the_store_is_down).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ownweights.core.errors import StoreError
from ownweights.traffic.bodies.objects import ObjectStore
from ownweights.traffic.bodies.segment import SEGMENT_MAGIC, segment_path

EVERY_S = 15.0

log = logging.getLogger("ownweights.traffic")


class Mover:
    """A thread that moves those segments it was given that are closed; `roll` closes what is old,
    before each look."""

    def __init__(
        self,
        bodies_dir: Path,
        objects: ObjectStore,
        *,
        roll: Callable[[], None] = lambda: None,
        every_s: float = EVERY_S,
    ) -> None:
        self._bodies_dir = bodies_dir
        self._objects = objects
        self._roll = roll
        self._every_s = every_s
        self._is_closing = threading.Event()
        self._moving = threading.Lock()  # held as long as a segment takes to send
        self._naming = threading.Lock()
        self._fault = ""
        self._names: set[str] = set()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not closed."""
        return self._thread is not None

    def adopt(self, segments: Iterable[str]) -> None:
        """Move these, too, once nobody writes to them."""
        with self._naming:
            self._names.update(segments)

    def start(self) -> None:
        """Begin to move in the background."""
        assert self._thread is None, "it was started before"
        self._thread = threading.Thread(target=self._run, name="own-mover", daemon=True)
        self._thread.start()

    def move(self) -> int:
        """Move every segment that nobody writes to; how many. What cannot be moved stays."""
        moved, fault = 0, ""
        with self._naming:
            names = sorted(self._names)
        with self._moving:
            for name in names:
                path = segment_path(self._bodies_dir, name)
                try:
                    moved += self._move_one(path)
                except StoreError as error:
                    fault = error.what
                except FileNotFoundError:  # someone else moved it, or freed it
                    self._forget(name)
                except OSError as error:
                    fault = f"{path.name} cannot be read or deleted: {error.strerror}"
            self._say(fault, len(self._names))
        return moved

    def close(self) -> None:
        """Move what is left, once, and end."""
        if self._thread is not None:
            self._is_closing.set()
            self._thread.join()
            self._thread = None
            self.move()

    def _run(self) -> None:
        while not self._is_closing.wait(self._every_s):
            self._roll()
            self.move()

    def _move_one(self, path: Path) -> int:
        with _held(path) as is_ours:
            if not is_ours:
                return 0
            try:
                self._objects.put(path)
                path.unlink()
            except FileNotFoundError:  # it was freed while it was sent
                self._objects.delete(path.stem)
                raise
            self._forget(path.stem)
        return 1

    def _forget(self, name: str) -> None:
        with self._naming:
            self._names.discard(name)

    def _say(self, fault: str, waiting: int) -> None:
        if fault and not self._fault:
            log.warning("bodies stay on this disk (%d segments wait): %s", waiting, fault)
        elif self._fault and not fault:
            log.warning("bodies move to the object store again")
        self._fault = fault


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold a segment that has something in it and no writer; false where that is not so."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(file)  # another mover may have taken it between our two steps
        is_ours = found.st_nlink > 0 and found.st_size > len(SEGMENT_MAGIC)
    except BlockingIOError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(file)
