"""Where things are: `own.toml` beside a `.own/` folder, and nothing anywhere else.

The traffic store alone may lie elsewhere, where the settings say so: its rows in a Postgres
database, its bodies in an object store. A `Project` carries both addresses to whoever opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KINDS = ("base", "dataset", "student", "verdict", "route")


@dataclass(frozen=True, slots=True)
class Server:
    """A Postgres database. Its password stands in the environment variable `password_env`, or
    where Postgres looks by itself (PGPASSWORD, ~/.pgpass); never in `url`."""

    url: str
    password_env: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder. Paths are computed, folders made on demand by those who write.

    `server` holds the rows of the traffic store where it is not None, and the object store at
    `bodies_url` its bodies where that is not empty.
    """

    root: Path
    server: Server | None = None
    bodies_url: str = ""

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
    def database(self) -> Path | Server:
        """Where the rows of the traffic store, the ledger, the audits and the events are."""
        return self.server or self.database_path

    @property
    def bodies_dir(self) -> Path:
        return self.store_dir / "bodies"

    def kind_dir(self, kind: str) -> Path:
        """The folder that holds all artefacts of one kind."""
        assert kind in KINDS, f"{kind!r} is not one of {KINDS}"
        return self.store_dir / kind
