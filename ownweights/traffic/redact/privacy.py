"""What of the traffic may be written down, workload by workload.

In: the kinds to mask, in general and for single workloads, and the workloads that leave no record.
Out: for each Record what the store may keep of it, or None. Invariants: keys are masked unless
`none` is said (test_keys_are_always_masked); a workload that is not recorded leaves nothing
(test_recorder_keeps_nothing_of_a_workload_that_is_not_recorded).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.traffic.record import Record
from ownweights.traffic.redact.placeholder import Placeholders
from ownweights.traffic.redact.recogniser import load_recogniser
from ownweights.traffic.redact.redactor import Redactor
from ownweights.traffic.redact.span import KINDS, PATTERN_KINDS

ALWAYS = ("key",)


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """As own.toml says it. `redact` may hold `all` (what patterns find), or `none` alone."""

    redact: tuple[str, ...] = ()
    recognizer: str = ""
    workload_redact: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict[str, "tuple[str, ...]"]
    )
    unrecorded: frozenset[str] = frozenset()


class Privacy:
    """Applies the rules of a project to its records."""

    def __init__(self, project: Project, rules: PrivacyRules | None = None) -> None:
        """Raises: SettingsError for kinds that cannot be, or a recogniser that is not there"""
        rules = rules or PrivacyRules()
        self._unrecorded = rules.unrecorded
        placeholders = Placeholders(project)
        recogniser = load_recogniser(rules.recognizer, project.root) if rules.recognizer else None

        def redactor(kinds: Sequence[str], where: str) -> Redactor | None:
            wanted = kinds_of(kinds, where=where)
            if "name" in wanted and recogniser is None:
                raise SettingsError(
                    f"{where}: names are found by a recogniser, and none is set",
                    hint='[store] needs recognizer = "package.module:function"',
                )
            if not wanted:
                return None
            return Redactor(wanted, placeholders, recogniser=recogniser)

        self._default = redactor(rules.redact, "store.redact")
        self._of_workload = {
            name: redactor(kinds, f"workload.{name}.redact")
            for name, kinds in rules.workload_redact.items()
        }

    def is_recorded(self, workload: str) -> bool:
        """Whether requests of a workload are written down at all."""
        return not isinstance(workload, str) or workload not in self._unrecorded

    def record(self, record: Record) -> Record:
        """What may be written down of a record."""
        redactor = self._of_workload.get(record.workload, self._default)
        return record if redactor is None else redactor.record(record)

    def text(self, given: str) -> str:
        """What may be written down of a text that belongs to no workload."""
        return given if self._default is None else self._default.texts([given])[0]


def kinds_of(words: Iterable[str], *, where: str = "redact") -> tuple[str, ...]:
    """The kinds that a setting means: what it names, and keys, unless it is `none`.

    Raises: SettingsError for a word that is no kind
    """
    said = tuple(words)
    if "none" in said:
        if len(said) > 1:
            raise SettingsError(f"{where}: none stands alone, got {', '.join(said)}")
        return ()
    if unknown := [word for word in said if word not in (*KINDS, "all")]:
        raise SettingsError(
            f"{where}: {unknown[0]!r} is no kind", hint=f"known are {', '.join(KINDS)}, all, none"
        )
    wanted = {*ALWAYS, *said} | (set(PATTERN_KINDS) if "all" in said else set())
    return tuple(kind for kind in KINDS if kind in wanted)
