"""A dataset on disk: four files of examples and a card, read back as they were sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ownweights.core.artefact import Artefact, open_artefact, read_artefacts
from ownweights.core.errors import ArtefactError, UsageError
from ownweights.core.project import Project
from ownweights.dataset.example import Example
from ownweights.dataset.prune import PruneRule
from ownweights.dataset.split import SPLITS

REMOVED_FILE = "removed.jsonl"
_FACTS = {
    "counts": dict, "units": dict, "removed": dict, "skipped": dict, "teachers": list,
    "warnings": list, "split_by_reason": str,
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """An immutable dataset. Examples are read from disk when asked for."""

    id: str
    path: Path
    card: Mapping[str, Any]

    @classmethod
    def of(cls, artefact: Artefact) -> Dataset:
        """The dataset in an opened artefact.

        Raises: ArtefactError when its card does not say of which workload it is
        """
        _need(artefact, "identity", {"workload": str})
        return cls(artefact.id, artefact.path, artefact.card)

    @property
    def workload(self) -> str:
        return self.card["identity"]["workload"]

    @property
    def split_by(self) -> str:
        """What was split as one: `session`, `prompt` or `meta:<key>`."""
        return self.card["identity"]["split_by"]

    @property
    def counts(self) -> Mapping[str, int]:
        """Examples in each split."""
        return self.card["facts"]["counts"]

    @cached_property
    def prune(self) -> PruneRule | None:
        """How the student's messages differ from the request's; None when not at all."""
        rule = self.card["identity"]["prune"]
        return None if rule is None else PruneRule.from_json(rule)

    def removed(self) -> list[dict[str, str]]:
        """What was left out of train and develop as a duplicate, and of what."""
        with (self.path / REMOVED_FILE).open("rb") as file:
            return [json.loads(_text(line)) for line in file]

    def examples(self, split: str) -> list[Example]:
        """All examples of a split, in the dataset's own (hash) order."""
        return list(self.iter_examples(split))

    def iter_examples(self, split: str) -> Iterator[Example]:
        """The examples of a split, one at a time."""
        path = self.path / split_file(split)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield Example.from_json(json.loads(_text(line)), self.prune)
                except (ValueError, KeyError, TypeError) as error:
                    raise ArtefactError(
                        f"{path}:{number} is not an example: {error!r}",
                        hint="the file was changed after it was made; build the dataset again",
                    ) from None


def load_dataset(project: Project, dataset_id: str, *, verify: bool = False) -> Dataset:
    """The dataset of that id (a unique prefix will do); `verify` re-hashes every file."""
    kind_dir = project.kind_dir("dataset")
    return Dataset.of(open_artefact(kind_dir, dataset_id, "dataset", verify=verify))


def check_facts(dataset: Dataset) -> Dataset:
    """The dataset, if its card has all that is shown of a dataset; else ArtefactError."""
    _need(dataset, "identity", {"split_by": str})
    _need(dataset, "facts", _FACTS)
    return dataset


def list_datasets(
    project: Project, on_broken: Callable[[str, str], None] | None = None
) -> list[Dataset]:
    """All readable datasets of the project, oldest first; `on_broken` is told of the others."""
    return read_artefacts(project.kind_dir("dataset"), "dataset", _read_whole, on_broken)


def split_file(split: str) -> str:
    """The name of a split's file."""
    if split not in SPLITS:
        raise UsageError(f"{split!r} is not a split", hint=f"the splits are {', '.join(SPLITS)}")
    return f"{split}.jsonl"


def _read_whole(artefact: Artefact) -> Dataset:
    return check_facts(Dataset.of(artefact))


def _need(dataset: Artefact | Dataset, part: str, kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(dataset.card[part].get(key), kind):
            raise ArtefactError(
                f"dataset {dataset.id}: its card lacks {part}.{key}",
                hint="build the dataset again, which mends it, or delete its folder",
            )


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogatepass")
