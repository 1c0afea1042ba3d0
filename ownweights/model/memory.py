"""How much memory there is, and keeping what was used once instead of faulting it in again.

The C library returns big blocks to the kernel the moment they are freed; the next step then pays a
page fault per 4 KiB. In pre-training steps of 4,096 tokens that cost more than the arithmetic
(dev/LOG.md); in steps of half the size it no longer shows (bench/train_step.py). Call
`keep_freed_memory` before torch allocates.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_TOP_PAD_BYTES = 256 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {
        _M_ARENA_MAX: 1,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: _TOP_PAD_BYTES,
    }
    return all([bool(mallopt(option, value)) for option, value in settings.items()])  # noqa: C419
    # all of them


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this machine, or the group of processes this one is in, can still give.

    Where neither says, all the memory the machine has.
    """
    found = [_meminfo(root / "proc/meminfo"), _left_in_group(root / "sys/fs/cgroup")]
    known = [one for one in found if one is not None]
    return min(known) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _left_in_group(folder: Path) -> int | None:
    """Of the limit on the group, where there is one; file pages that can go count as free."""
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            total, taken = (int((folder / name).read_text("utf-8")) for name in (limit, used))
            stat = (folder / limit).with_name("memory.stat").read_text("utf-8").split()
        except (OSError, ValueError):  # no such group, or "max"
            continue
        pages = dict(zip(stat[::2], stat[1::2], strict=False))
        return max(0, total - taken + int(pages.get(reclaimable, 0)))
    return None
