"""A disk that takes no more: files of this process cannot grow beyond a size.

The kernel refuses the write, so that every library meets the error it would meet on a full disk.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def max_file_bytes(limit: int) -> Iterator[None]:
    """Until the end, a write beyond `limit` bytes of a file fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
