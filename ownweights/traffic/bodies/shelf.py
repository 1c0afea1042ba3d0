"""Where the segments of a project are: on the local disk, and in an object store where one is set.

In: a Project. Out: readers that find a segment wherever it is, the sizes of all, and a way to
delete one everywhere (test_shelf_frees_a_segment_wherever_it_is).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ownweights.core.project import Project
from ownweights.traffic.bodies.objects import SUFFIX, ObjectStore
from ownweights.traffic.bodies.segment import SegmentReader, segment_path


@dataclass(frozen=True, slots=True)
class Shelf:
    """Segments in `folder` and `objects`. Where the index `is_shared` with other machines, some
    may still be on the disk of another."""

    folder: Path
    objects: ObjectStore | None = None
    is_shared: bool = False

    @classmethod
    def of(cls, project: Project) -> Shelf:
        """The shelf of a project, as its settings say."""
        objects = ObjectStore(project.bodies_url) if project.bodies_url else None
        return cls(project.bodies_dir, objects, is_shared=project.server is not None)

    @property
    def is_whole(self) -> bool:
        """Whether a segment that is not here is nowhere else."""
        return self.objects is None and not self.is_shared

    def reader(self) -> SegmentReader:
        """A reader of all segments, for one thread."""
        return SegmentReader(self.folder, self.objects, is_shared=self.is_shared)

    def files(self) -> list[Path]:
        """The segments on the local disk."""
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def sizes(self) -> dict[str, int]:
        """The bytes of each segment.

        Raises: StoreError when the object store cannot be asked
        """
        there = self.objects.sizes() if self.objects else {}
        for path in self.files():
            with contextlib.suppress(FileNotFoundError):  # it moved, or went, just now
                there[path.stem] = path.stat().st_size
        return there

    def free(self, segment: str) -> int:
        """Delete a segment; how many bytes that frees. The file goes first: a mover that just sent
        it finds that out, and takes the object back (test_mover_takes_back_what_was_freed)."""
        freed_bytes = 0
        path = segment_path(self.folder, segment)
        with contextlib.suppress(OSError):
            size_bytes = path.stat().st_size
            path.unlink()
            freed_bytes += size_bytes
        return freed_bytes + (self.objects.delete(segment) if self.objects else 0)
