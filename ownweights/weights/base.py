"""Where a base's weights are, and which weights they are.

In: the name a user writes for `base`. Out: a folder, and an id that changes when its weights,
configuration or tokenizer do (test_base_id_changes_with_any_of_its_files). No torch here.
"""

from __future__ import annotations

import os
from pathlib import Path

from ownweights.core.artefact import ID_CHARS, hash_file, hash_json
from ownweights.core.errors import ArtefactMissing
from ownweights.core.project import Project
from ownweights.weights.hub import PREFIX as HUB_PREFIX
from ownweights.weights.hub import hub_base

SEEDLING = "seedling"
EMBEDDED_DIR = Path(__file__).parent / SEEDLING
_NAMING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def resolve_base(project: Project, name: str) -> Path:
    """The folder of a base: the embedded one, one made in the project, one of the hub, any folder.

    A name that begins with `hub:` is fetched once, where the project does not have it yet.
    Raises: ArtefactMissing, saying where it was looked for; ModelError for one that cannot be run
    """
    if name.startswith(HUB_PREFIX):
        return hub_base(project, name)
    if name == SEEDLING:
        if (EMBEDDED_DIR / "config.json").is_file():
            return EMBEDDED_DIR
        raise ArtefactMissing(
            "this installation holds no embedded base",
            hint="reinstall the package, or point `base` at a hub checkpoint's folder",
        )
    made = project.kind_dir("base") / name
    for path in (made, project.root / os.path.expanduser(name)):
        if (path / "config.json").is_file():
            return path.resolve()
    raise ArtefactMissing(
        f"base {name!r} was not found: neither {made} nor a folder of that name has a config.json",
        hint=f"use '{SEEDLING}', a base of this project, the path of a hub checkpoint's folder,"
        f" or {HUB_PREFIX}owner/name",
    )


def base_id(folder: Path) -> str:
    """The short content hash of a base: its weights, configuration, tokenizer and chat template."""
    names = sorted(
        path.name for path in folder.iterdir()
        if path.name in _NAMING or path.suffix == ".safetensors"
        or path.name.endswith(".safetensors.index.json")
    )  # fmt: skip
    return hash_json({name: hash_file(folder / name) for name in names})[:ID_CHARS]
