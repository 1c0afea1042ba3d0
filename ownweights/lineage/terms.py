"""What may be trained on whose answers: by the model's name, and by the day it answered.

In: the model as the response names it, and when. Out: a TermsFact. The wording in force on that day
decides (test_teacher_terms_of_mistral_depend_on_the_day); where nobody knows the day, the latest,
and the fact says so. A model served by someone else is bound by both texts, the stricter of which
holds. A model that no entry knows is `unknown`: fine to try in private, told with every use, and a
conflict once something is distributed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from ownweights.core.errors import UsageError, nearest
from ownweights.lineage.facts import Host, LicenceFact, Terms, Version, load_facts

DECLARABLE = ("allowed", "denied", "unknown")
STRICTNESS = ("allowed", "human", "unknown", "denied")


@dataclass(frozen=True, slots=True)
class TermsFact:
    """What holds for one model's answers. `note` says what was assumed, if anything was."""

    model: str
    id: str
    provider: str
    licence: str
    trains: str
    outputs: str
    obligations: tuple[str, ...]
    why: str
    source: str
    as_of: str
    checked: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fact as it stands on a card."""
        return {
            "model": self.model, "id": self.id, "provider": self.provider, "licence": self.licence,
            "trains": self.trains, "outputs": self.outputs, "obligations": list(self.obligations),
            "why": self.why, "source": self.source, "as_of": self.as_of, "checked": self.checked,
            "note": self.note,
        }  # fmt: skip


def teacher_terms(model: str, at: float | None, declared: str | None = None) -> TermsFact:
    """What the terms say about training on answers that `model` gave at `at` (unix seconds).

    `declared` says what holds where the model's name does not tell, or a contract says otherwise:
    the id of an entry, or allowed, denied or unknown.
    Raises: UsageError when `declared` is none of these
    """
    if declared in DECLARABLE:
        return _declared_outcome(model, declared)
    host, bare = _host_of(model)
    terms = _declared(declared) if declared is not None else _terms_of(bare)
    fact = _unknown(model) if terms is None else _fact(model, terms, at)
    return fact if host is None else _stricter(fact, host)


def licence_fact(name: str) -> LicenceFact | None:
    """The facts about a licence of data, by its SPDX id or another of its names."""
    wanted = name.strip().lower()
    for fact in load_facts().licences:
        if wanted in (fact.id.lower(), *(other.lower() for other in fact.other_names)):
            return fact
    return None


def bare_name(model: str) -> str:
    """The maker's own name of a model: without a fine-tuning prefix, lower-cased."""
    name = model.strip().lower()
    return (
        name.split(":")[1]
        if name.startswith("ft:") and ":" in name[3:]
        else name.removeprefix("ft:")
    )


def _host_of(model: str) -> tuple[Host | None, str]:
    name = bare_name(model)
    for host in load_facts().hosts:
        found = host.pattern.fullmatch(name)
        if found is not None:
            return host, found["model"]
    return None, name


def _terms_of(name: str) -> Terms | None:
    spellings = (name, name.rsplit("/", 1)[-1])
    for terms in load_facts().terms:
        if any(_matches(pattern, spellings) for pattern in terms.models):
            return terms
    return None


def _matches(pattern: re.Pattern[str], spellings: tuple[str, ...]) -> bool:
    return any(pattern.match(spelling) is not None for spelling in spellings)


def _declared(terms_id: str) -> Terms:
    known = {terms.id: terms for terms in load_facts().terms}
    if terms_id in known:
        return known[terms_id]
    like = nearest(terms_id, known)
    hint = f"did you mean {like!r}?" if like else f"known are: {', '.join(sorted(known))}"
    raise UsageError(f"there are no terms {terms_id!r}", hint=hint)


def _fact(model: str, terms: Terms, at: float | None) -> TermsFact:
    version = _in_force(terms.versions, at)
    varies = len({one.trains for one in terms.versions}) > 1
    note = "the day of the answer is not known, so the latest wording was taken"
    return TermsFact(
        model=model, id=terms.id, provider=terms.provider, licence=terms.licence,
        trains=version.trains, outputs=version.outputs, obligations=terms.obligations,
        why=version.why, source=terms.source, as_of=version.as_of.isoformat(),
        checked=terms.checked, note=note if varies and at is None else "",
    )  # fmt: skip


def _in_force(versions: tuple[Version, ...], at: float | None) -> Version:
    """The version of a day; the first one for days before it, the last one for no day."""
    if at is None:
        return versions[-1]
    day = day_of(at)
    begun = [one for one in versions if one.since is None or one.since <= day]
    return begun[-1] if begun else versions[0]


def day_of(at: float) -> date:
    """The day (UTC) of a moment in unix seconds."""
    return datetime.fromtimestamp(at, UTC).date()


def _stricter(fact: TermsFact, host: Host) -> TermsFact:
    """The fact with its host's terms on top."""
    trains = max(fact.trains, host.trains, key=STRICTNESS.index)
    return replace(
        fact,
        provider=f"{fact.provider} at {host.provider}",
        trains=trains,
        why=f"{fact.why}. {host.why}",
        source=f"{fact.source}; {host.source}",
    )


def _declared_outcome(model: str, trains: str) -> TermsFact:
    return replace(
        _unknown(model),
        id="declared",
        licence="a contract of your own",
        trains=trains,
        why="declared so in the settings",
        source="settings",
    )


def _unknown(model: str) -> TermsFact:
    return TermsFact(
        model=model, id="unknown", provider="unknown", licence="unknown", trains="unknown",
        outputs="silent", obligations=(), why="no entry knows this model", source="none",
        as_of="", checked="memory",
    )  # fmt: skip
