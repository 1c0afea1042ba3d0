"""Where things are on disk: `own.toml` beside a `.own/` folder, and nothing anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KINDS = ("base", "dataset", "student", "verdict", "route")


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder. Paths are computed, folders made on demand by those who write."""

    root: Path

    @property
    def settings_path(self) -> Path:
        return self.root / "own.toml"

    @property
    def store_dir(self) -> Path:
        return self.root / ".own"

    @property
    def database_path(self) -> Path:
        return self.store_dir / "own.db"

    @property
    def bodies_dir(self) -> Path:
        return self.store_dir / "bodies"

    def kind_dir(self, kind: str) -> Path:
        """The folder that holds all artefacts of one kind."""
        assert kind in KINDS, f"{kind!r} is not one of {KINDS}"
        return self.store_dir / kind
