"""A base from the hub by its name, `hub:owner/name[@revision]`: fetched once, then a base of the
project.

In: the name. Out: `.own/base/<id>/` with the weights (safetensors alone), the configuration, the
tokenizer and the chat template, and a card that says which commit they are of and under which
licence. Nothing else of a repository is fetched: no pickles, no code (test_hub_fetches_*). A
configuration that cannot be run is refused before its weights are fetched. What was fetched is
found again by the same name without a network (test_hub_is_not_asked_twice); a name without a
revision means the copy that was fetched last. The hub's own library does the fetching, with its
settings (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE); what it had begun it goes on with.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownweights.core.artefact import draft_folder, list_artefacts, seal, write_atomic
from ownweights.core.errors import ArtefactMissing, ModelError, OwnError, SettingsError
from ownweights.core.project import Project
from ownweights.model.config import read_config

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

PREFIX = "hub:"
_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
_NEEDED = ("config.json", "tokenizer.json")
_WANTED = (
    *_NEEDED, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_NAMES_FILE = ".hub.json"  # asked name → base id


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository, and the branch, tag or commit of it that was asked for."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> HubName:
        """Raises: SettingsError saying how such a name is written"""
        found = _NAME.fullmatch(name)
        if found is None or ".." in name:
            raise SettingsError(
                f"{name!r} is not a hub name",
                hint="write hub:owner/name or hub:owner/name@revision",
            )
        return cls(found[1], found[2])

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{at}"


def hub_base(project: Project, name: str) -> Path:
    """The folder of a base of the hub, fetched if this project does not have it.

    Raises: SettingsError, ArtefactMissing (offline, unknown, gated), ModelError (cannot be run)
    """
    asked = HubName.parse(name)
    folder = _fetched(project, asked)
    return folder if folder is not None else _fetch(project, asked)


def _fetched(project: Project, asked: HubName) -> Path | None:
    """The copy that this project has."""
    bases = project.kind_dir("base")
    known = _names(bases).get(str(asked))
    if known is not None and (bases / known / "config.json").is_file():
        return (bases / known).resolve()
    for artefact in reversed(list_artefacts(bases, "base")):
        of = artefact.card["identity"]
        if of.get("hub") == asked.repository and asked.revision in (None, of.get("revision")):
            return artefact.path.resolve()
    return None


def _fetch(project: Project, asked: HubName) -> Path:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ArtefactMissing(
            f"{asked} is not in this project, and the hub's library is not installed",
            hint="pip install 'ownweights[hub]', or point `base` at a checkpoint's folder",
        ) from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="ownweights")
    info = _ask(asked, lambda: api.model_info(asked.repository, revision=asked.revision))
    commit = info.sha
    if not commit:
        raise ArtefactMissing(f"the hub does not say which commit {asked} is")
    bases = project.kind_dir("base")
    # what stays here is gone on with when the fetch is asked for again
    begun = bases / f".fetch-{asked.repository.replace('/', '--')}-{commit[:12]}"
    names = _download(api, asked, info, begun)
    with draft_folder(bases) as draft:
        for one in names:
            os.replace(begun / one, draft / one)
        made = seal(
            draft, "base", identity={"hub": asked.repository, "revision": commit},
            facts={"licence": _licence(info), "asked": str(asked)},
        )  # fmt: skip
    shutil.rmtree(begun, ignore_errors=True)
    known = _names(bases) | {str(asked): made.id, f"{PREFIX}{asked.repository}": made.id}
    write_atomic(bases / _NAMES_FILE, json.dumps(known, indent=1, sort_keys=True).encode())
    return made.path.resolve()


def _download(api: HfApi, asked: HubName, info: ModelInfo, folder: Path) -> list[str]:
    """Fetch what a base needs, the configuration first; the files' names."""
    there = {sibling.rfilename for sibling in info.siblings or ()}
    for name in _NEEDED:
        if name not in there:
            raise ModelError(
                f"{asked} has no {name}", hint="choose a repository in the transformers format"
            )

    def get(names: Iterable[str]) -> list[str]:
        listed = list(names)
        for name in listed:
            _ask(asked, lambda name=name: api.hf_hub_download(
                asked.repository, name, revision=info.sha, local_dir=folder,
            ))  # fmt: skip
        return listed

    got = get(["config.json"])
    try:
        read_config(folder)
    except ModelError as error:
        raise ModelError(f"{asked}: {error.what}", hint=error.hint) from None
    got += get(name for name in _WANTED if name in there and name not in got)
    if _WEIGHTS in there:
        return got + get([_WEIGHTS])
    if _INDEX not in there:
        raise ModelError(
            f"{asked} has neither {_WEIGHTS} nor {_INDEX}",
            hint="pickled checkpoints (.bin, .pt) are never fetched; choose one in safetensors",
        )
    got += get([_INDEX])
    return got + get(_shards(folder / _INDEX, asked, there))


def _shards(index: Path, asked: HubName, there: set[str]) -> list[str]:
    try:
        shards = sorted(
            {str(one) for one in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{asked}: {_INDEX} is not a shard index: {error!r}") from None
    for shard in shards:
        if not _SHARD.fullmatch(shard) or shard not in there:
            raise ModelError(f"{asked}: {_INDEX} names the shard {shard!r:.60}, which is not there")
    return shards


def _ask(asked: HubName, do: Any) -> Any:
    """One question to the hub; what it or the network answers instead, as an error of ours."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        return do()
    except errors.GatedRepoError:
        raise ArtefactMissing(
            f"{asked} is gated: its owner gives it to those who accept its terms",
            hint="accept them on its page on the hub, and set HF_TOKEN to a token of yours",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ArtefactMissing(
            f"the hub has no {asked}, or it is private",
            hint="look at the spelling; for a private one set HF_TOKEN to a token of yours",
        ) from None
    except errors.RevisionNotFoundError:
        raise ArtefactMissing(
            f"{PREFIX}{asked.repository} has no revision {asked.revision!r}",
            hint="name a branch, a tag or a commit of it",
        ) from None
    except errors.HFValidationError as error:
        raise SettingsError(f"{asked} is not a hub name: {error}") from None
    except OwnError:
        raise
    except (OSError, HTTPError) as error:
        raise _unreachable(asked, error) from None


def _unreachable(asked: HubName, error: Exception) -> ArtefactMissing:
    status = getattr(getattr(error, "response", None), "status_code", None)
    why = f"it answered with HTTP {status}" if status else type(error).__name__
    return ArtefactMissing(
        f"{asked} is not in this project, and the hub could not be asked: {why}",
        hint="fetch it once while online (own base show NAME), or point `base` at a folder",
    )


def _licence(info: ModelInfo) -> str | None:
    """The licence that the repository's tags name."""
    tags = [tag for tag in info.tags or () if tag.startswith("license:")]
    return tags[0].removeprefix("license:") if tags else None


def _names(bases: Path) -> dict[str, str]:
    """Which base each asked name was; empty when the file is missing or damaged."""
    try:
        found = json.loads((bases / _NAMES_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str) and v.isalnum()}
