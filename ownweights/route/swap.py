"""One swap of a pointer at a time, whoever swaps: a gateway, another, a person at a shell.

In: a project. Out: its routes to ourselves, from what is read of them to the swap that follows.
Held on the folder `route/`, so that it needs no room on a full disk, and let go of when a process
is killed (test_swap_waits_for_another_process_until_it_is_killed). Invariants: what another did
meanwhile is never undone (test_live_never_undoes_what_a_person_does_meanwhile); every swap begins
where the one before ended (test_history_always_begins_where_it_ended); a holder that stands still
holds a rollback up for `WAIT_S` at most (test_swap_goes_on_without_a_holder_that_stands_still).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ownweights.core.project import Project

try:
    import fcntl
except ImportError:  # not on Windows, where swaps do not wait for each other
    fcntl = None

WAIT_S = 5.0
_TRY_S = 0.002


class _Held(threading.local):
    """The folders that this thread holds."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()


_held = _Held()


@contextlib.contextmanager
def swapping(project: Project) -> Iterator[None]:
    """Nobody else swaps a pointer of the project meanwhile; may be nested."""
    folder = project.kind_dir("route")
    if folder in _held.folders:
        yield
        return
    with _locked(folder):
        _held.folders.add(folder)
        try:
            yield
        finally:
            _held.folders.discard(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # there is no route yet, or no folder can be opened here
        yield
        return
    try:
        _lock(held)
        yield
    finally:
        os.close(held)


def _lock(held: int) -> None:
    """Wait for our turn, but no longer than `WAIT_S`."""
    give_up_s = time.monotonic() + WAIT_S
    while fcntl is not None:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                return
            time.sleep(_TRY_S)
        except OSError:  # a file system without locks
            return
