"""The facts about licences and terms that ship with the package, read once and checked.

In: facts.toml, which is written by hand in our own words. Out: frozen entries. Every entry has a
source, a date and how well it was checked (test_facts_are_complete).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

TRAINS = ("allowed", "denied", "human", "unknown")
OUTPUTS = (
    "silent", "allowed", "name", "notice", "derivative", "own-family", "no-compete", "no-products",
    "research", "person",
)  # fmt: skip
CHECKED = ("text", "clause", "reported", "memory")


@dataclass(frozen=True, slots=True)
class Version:
    """One wording of some terms, in force from a day on (None: for as long as anyone knows)."""

    since: date | None
    trains: str
    outputs: str
    why: str
    as_of: date


@dataclass(frozen=True, slots=True)
class Terms:
    """What one text says about training on answers; versions oldest first, at least one."""

    id: str
    provider: str
    licence: str
    models: tuple[re.Pattern[str], ...]
    obligations: tuple[str, ...]
    source: str
    checked: str
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """Someone who serves other makers' models under terms of their own."""

    id: str
    provider: str
    pattern: re.Pattern[str]
    trains: str
    why: str
    source: str
    as_of: date


@dataclass(frozen=True, slots=True)
class LicenceFact:
    """What a licence of data asks of those who train on it."""

    id: str
    other_names: tuple[str, ...]
    commercial: str
    share_alike: str
    obligations: tuple[str, ...]
    why: str
    source: str
    as_of: date
    checked: str

    def to_json(self) -> dict[str, Any]:
        """The fact as it stands on a card."""
        return {
            "id": self.id, "commercial": self.commercial, "share_alike": self.share_alike,
            "obligations": list(self.obligations), "why": self.why, "source": self.source,
            "as_of": self.as_of.isoformat(), "checked": self.checked,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """All of facts.toml."""

    terms: tuple[Terms, ...]
    hosts: tuple[Host, ...]
    licences: tuple[LicenceFact, ...]


@cache
def load_facts() -> Facts:
    """The facts that ship with the package."""
    text = resources.files("ownweights.lineage").joinpath("facts.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    return Facts(
        terms=tuple(_terms(table) for table in tables["terms"]),
        hosts=tuple(_host(table) for table in tables["host"]),
        licences=tuple(_licence(table) for table in tables["licence"]),
    )


def _terms(table: Mapping[str, Any]) -> Terms:
    versions = [_version(version) for version in table.get("versions", ())]
    return Terms(
        id=table["id"],
        provider=table["provider"],
        licence=table["licence"],
        models=tuple(re.compile(pattern) for pattern in table["models"]),
        obligations=tuple(table.get("obligations", ())),
        source=table["source"],
        checked=table["checked"],
        versions=tuple(versions) or (_version(table),),
    )


def _version(table: Mapping[str, Any]) -> Version:
    return Version(
        since=table.get("from"),
        trains=table["trains"],
        outputs=table["outputs"],
        why=table["why"],
        as_of=table["as_of"],
    )


def _host(table: Mapping[str, Any]) -> Host:
    return Host(
        id=table["id"],
        provider=table["provider"],
        pattern=re.compile(table["pattern"]),
        trains=table["trains"],
        why=table["why"],
        source=table["source"],
        as_of=table["as_of"],
    )


def _licence(table: Mapping[str, Any]) -> LicenceFact:
    return LicenceFact(
        id=table["id"],
        other_names=tuple(table["other_names"]),
        commercial=table["commercial"],
        share_alike=table["share_alike"],
        obligations=tuple(table["obligations"]),
        why=table["why"],
        source=table["source"],
        as_of=table["as_of"],
        checked=table["checked"],
    )
