"""Keep the memory that was used once, instead of handing it back and faulting it in again.

The C library returns big blocks to the kernel the moment they are freed; the next step then pays a
page fault per 4 KiB. In pre-training steps of 4,096 tokens that cost more than the arithmetic
(dev/LOG.md); in steps of half the size it no longer shows (bench/train_step.py). Call
`keep_freed_memory` before torch allocates.
"""

from __future__ import annotations

import ctypes
import sys

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
