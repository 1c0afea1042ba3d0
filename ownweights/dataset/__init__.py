"""What the student will study: records selected, split, freed of duplicates, sealed with a card.

records ─► select ─► split by hash of the unit ─► remove duplicates ─► check terms ─► seal
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.dataset.build import build_dataset
    from ownweights.dataset.example import Example
    from ownweights.dataset.export import export_split
    from ownweights.dataset.load import Dataset, list_datasets, load_dataset
    from ownweights.dataset.options import DatasetOptions
    from ownweights.dataset.prune import PruneRule, apply_prune
    from ownweights.dataset.split import SPLITS, split_of
    from ownweights.dataset.unit import unit_of

__all__ = [
    "SPLITS",
    "Dataset",
    "DatasetOptions",
    "Example",
    "PruneRule",
    "apply_prune",
    "build_dataset",
    "export_split",
    "list_datasets",
    "load_dataset",
    "split_of",
    "unit_of",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(["Dataset", "list_datasets", "load_dataset"], "load"),
        **dict.fromkeys(["PruneRule", "apply_prune"], "prune"),
        **dict.fromkeys(["SPLITS", "split_of"], "split"),
        "DatasetOptions": "options",
        "Example": "example",
        "build_dataset": "build",
        "export_split": "export",
        "unit_of": "unit",
    },
)
