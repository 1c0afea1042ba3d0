"""What is set: by flags, by `OWN_*` variables, in `own.toml`, or by default.

In: a project folder, flags, the environment. Out: one frozen `Settings`, and for each value where
it came from. A flag goes before a variable, a variable before the file, the file before the default
(test_load_settings_prefers_flag_then_variable_then_file). What is not known is refused with the
nearest known name, never ignored (test_load_settings_names_the_nearest_key). Secrets are never
written here: a key is the name of a variable (test_load_settings_refuses_a_secret).
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, Literal

from ownweights.core import tables
from ownweights.core.errors import SettingsError, nearest
from ownweights.core.project import Project
from ownweights.core.strict import (
    NAME_PATTERN,
    NAME_SAYS,
    KeyPath,
    Limits,
    check_value,
    find_lines,
    kind_words,
    line_of,
    parse_text,
    parse_toml,
)
from ownweights.core.tables import (
    NAMED_TABLES,
    TABLES,
    DriftSettings,
    GatewaySettings,
    RouteSettings,
    StoreSettings,
    StudentSettings,
    TeacherSettings,
    VerdictSettings,
    WorkloadSettings,
)

__all__ = [
    "DriftSettings",
    "GatewaySettings",
    "RouteSettings",
    "SettingHelp",
    "Settings",
    "Source",
    "StoreSettings",
    "StudentSettings",
    "TeacherSettings",
    "VerdictSettings",
    "WorkloadSettings",
    "check_flags",
    "describe_settings",
    "load_settings",
]

ENV_PREFIX = "OWN_"
_HOLDERS = {"key_env": "OPENAI_API_KEY", "password_env": "OWN_PASSWORD"}  # name a variable
_SECRET_KEYS = ("api_key", "key", "token", "secret", "password")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from."""

    kind: Literal["flag", "environment", "file", "default"]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is set. `sources` says for each dotted key where its value came from."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    teacher: Mapping[str, TeacherSettings] = field(default_factory=dict[str, TeacherSettings])
    workload: Mapping[str, WorkloadSettings] = field(default_factory=dict[str, WorkloadSettings])
    student: Mapping[str, StudentSettings] = field(default_factory=dict[str, StudentSettings])
    verdict: Mapping[str, VerdictSettings] = field(default_factory=dict[str, VerdictSettings])
    route: Mapping[str, RouteSettings] = field(default_factory=dict[str, RouteSettings])
    drift: DriftSettings = field(default_factory=DriftSettings)
    sources: Mapping[str, Source] = field(default_factory=dict[str, Source])

    def workload_of(self, workload: str) -> WorkloadSettings:
        """The settings of a workload, by default where it has no table."""
        return self.workload.get(workload) or WorkloadSettings()

    def student_of(self, workload: str) -> StudentSettings:
        """How the student of a workload is trained."""
        return self.student.get(workload) or StudentSettings()

    def verdict_of(self, workload: str) -> VerdictSettings:
        """What is claimed about the student of a workload."""
        return self.verdict.get(workload) or VerdictSettings()

    def route_of(self, workload: str) -> RouteSettings:
        """How the student of a workload serves."""
        return self.route.get(workload) or RouteSettings()

    @property
    def default_teacher(self) -> str:
        """The teacher of workloads that name none: the only one, leaving out those that stand in
        for another or judge; empty where there is none, or several."""
        aside = {name for row in self.teacher.values() for name in row.fallback}
        aside |= {name for row in self.verdict.values() for name in (row.judge, row.judge_above)}
        names = [name for name in self.teacher if name not in aside or len(self.teacher) == 1]
        return names[0] if len(names) == 1 else ""

    def teacher_of(self, workload: str) -> tuple[str, TeacherSettings]:
        """Name and settings of the teacher of a workload.

        Raises: SettingsError when none is set, or there are several and the workload names none
        """
        name = self.workload_of(workload).teacher or self.default_teacher
        if name not in self.teacher:
            what = (
                f"workload.{workload}.teacher is not set" if self.teacher else "no teacher is set"
            )
            raise SettingsError(what, hint="own.toml needs [teacher.main] with base_url")
        return name, self.teacher[name]

    def values(self) -> Iterator[tuple[str, Any, Source]]:
        """(dotted key, value, where from) of everything, table by table."""
        for table in TABLES:
            held = getattr(self, table)
            for name, row in held.items() if table in NAMED_TABLES else (("", held),):
                prefix = f"{table}.{name}" if name else table
                for key in fields(row):
                    path = f"{prefix}.{key.name}"
                    yield path, getattr(row, key.name), self.sources[path]


@dataclass(frozen=True, slots=True)
class SettingHelp:
    """The reference line of one setting."""

    path: str
    kind: str
    default: Any
    limits: str
    help: str
    is_required: bool


def load_settings(
    project: Project,
    *,
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force. `flags` maps dotted keys to values; None is a flag not given.

    Raises: SettingsError for what is unknown, of the wrong type or beyond its limits
    """
    given = _Given()
    given.read_file(project)
    given.read_environment(os.environ if env is None else env)
    given.read_flags(flags or {})
    return given.build()


def check_flags(flags: Mapping[str, Any]) -> None:
    """SettingsError unless the flags, alone, are settings that can be."""
    given = _Given()
    given.read_flags(flags)
    given.build()


def describe_settings() -> list[SettingHelp]:
    """The reference of every setting, in the order of the tables."""
    described: list[SettingHelp] = []
    for table, cls in TABLES.items():
        prefix = f"{table}.<{NAMED_TABLES[table]}>" if table in NAMED_TABLES else table
        helps, kinds = _field_helps(cls), _kinds(cls)
        for key in fields(cls):
            is_required = key.default is MISSING
            described.append(
                SettingHelp(
                    path=f"{prefix}.{key.name}",
                    kind=kind_words(kinds[key.name]),
                    default=None if is_required else key.default,
                    limits=str(_limits(key)),
                    help=helps[key.name],
                    is_required=is_required,
                )
            )
    return described


class _Given:
    """Values as they are given, a later source over an earlier one."""

    def __init__(self) -> None:
        self._values: dict[KeyPath, Any] = {}  # (table, key) or (table, name, key)
        self._sources: dict[KeyPath, Source] = {}
        self._names: dict[str, dict[str, None]] = {table: {} for table in NAMED_TABLES}

    def read_file(self, project: Project) -> None:
        path = project.settings_path
        try:
            text = path.read_text("utf-8-sig")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read: {error}") from None
        lines = find_lines(text)

        def where(*key_path: str) -> str:
            line = line_of(lines, key_path)
            return f"{path.name}:{line}" if line else path.name

        for table, content in parse_toml(text, str(path)).items():
            for key_path, value in self._leaves(table, content, where):
                self._take(key_path, value, Source("file", where(*key_path)))

    def read_environment(self, env: Mapping[str, str]) -> None:
        holders = {value for path, value in self._values.items() if path[-1] in _HOLDERS}
        endings = tuple(f"_{key.upper()}" for key in _HOLDERS)
        holders |= {env[variable] for variable in env if variable.endswith(endings)}
        for variable in sorted(set(env) - holders):
            key_path = self._variable_path(variable)
            if key_path is not None:
                kind = _kinds(TABLES[key_path[0]])[key_path[-1]]
                value = parse_text(env[variable], kind, variable)
                self._take(key_path, value, Source("environment", variable))

    def read_flags(self, flags: Mapping[str, Any]) -> None:
        for dotted, value in flags.items():
            if value is None:
                continue
            table, _, rest = dotted.partition(".")
            name, _, key = rest.rpartition(".")
            key_path = (table, name, key) if name else (table, key)
            kinds = _kinds(TABLES[table]) if table in TABLES else {}
            is_text = isinstance(value, str) and key in kinds
            given = parse_text(value, kinds[key], dotted) if is_text else value
            self._take(key_path, given, Source("flag", dotted))

    def build(self) -> Settings:
        """The settings, with the defaults filled in."""
        single = [table for table in TABLES if table not in NAMED_TABLES]
        rows: dict[str, Any] = {table: self._row(table, table) for table in single}
        for table, names in self._names.items():
            rows[table] = {name: self._row(table, table, name) for name in names}
        sources = {".".join(path): source for path, source in self._sources.items()}
        settings = Settings(**rows, sources=sources)
        _check_teachers(settings)
        _check_redaction(settings)
        return settings

    def _leaves(self, table: str, content: Any, where: _Where) -> Iterator[tuple[KeyPath, Any]]:
        """The keys of one table of the file, with their full paths."""
        if table not in TABLES:
            raise _unknown(where(table), table, TABLES, "is not a table of the settings")
        if not isinstance(content, dict):
            raise SettingsError(f"{where(table)}: {table} must be a table: [{table}]")
        held = typing.cast("dict[str, Any]", content)
        if table not in NAMED_TABLES:
            yield from (((table, key), value) for key, value in held.items())
            return
        for name, row in held.items():
            if not isinstance(row, dict):
                head = f"[{table}.<{NAMED_TABLES[table]}>]"
                raise SettingsError(f"{where(table, name)}: {table}.{name} stands outside {head}")
            self._name(table, name, where(table, name))
            yield from (((table, name, key), v) for key, v in typing.cast("Any", row).items())

    def _name(self, table: str, name: str, where: str) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            raise SettingsError(f"{where}: {name!r} cannot name a {table}", hint=f"use {NAME_SAYS}")
        self._names[table][name] = None

    def _variable_path(self, variable: str) -> KeyPath | None:
        """The setting a variable stands for; None for one that is not about settings."""
        if not variable.startswith(ENV_PREFIX):
            return None
        word, _, rest = variable.removeprefix(ENV_PREFIX).partition("_")
        table = word.lower()
        if table not in TABLES:
            if guess := nearest(table, TABLES):
                hint = f"did you mean {ENV_PREFIX}{guess.upper()}_...?"
                raise SettingsError(f"the variable {variable} sets nothing", hint=hint)
            return None
        keys = [field.name for field in fields(TABLES[table])]
        if table not in NAMED_TABLES:
            if rest.lower() in keys:
                return table, rest.lower()
            raise _unknown(variable, rest.lower(), keys, f"is not a setting of [{table}]")
        for key in sorted(keys, key=len, reverse=True):
            name, _, tail = rest.lower().rpartition(f"_{key}")
            if name and not tail:
                return table, self._known_name(table, name), key
        pattern = f"{ENV_PREFIX}{word}_<{NAMED_TABLES[table].upper()}>_<KEY>"
        raise SettingsError(
            f"the variable {variable} sets nothing",
            hint=f"it would be {pattern}, with a key of {', '.join(keys)}",
        )

    def _known_name(self, table: str, spelled: str) -> str:
        for name in self._names[table]:
            if re.sub(r"[^a-z0-9]", "_", name.lower()) == spelled:
                return name
        return spelled

    def _take(self, key_path: KeyPath, value: Any, source: Source) -> None:
        """Check one value and keep it."""
        table, key, dotted = key_path[0], key_path[-1], ".".join(key_path)
        if table not in TABLES:
            raise _unknown(source.where, table, TABLES, "is not a table of the settings")
        keys = {item.name: item for item in fields(TABLES[table])}
        if len(key_path) != 2 + (table in NAMED_TABLES) or key not in keys:
            raise _unknown(source.where, key, keys, f"is not a setting of [{table}]")
        if table in NAMED_TABLES:
            self._name(table, key_path[1], source.where)
        where = dotted if source.where == dotted else f"{source.where}: {dotted}"
        kind = _kinds(TABLES[table])[key]
        if key in _HOLDERS and not _is_variable_name(value):
            secret, name = key.removesuffix("_env"), _HOLDERS[key]
            raise SettingsError(
                f"{where}: expected the name of an environment variable, not the {secret} itself",
                hint=f'export {name}=... and write {key} = "{name}"',
            )
        self._values[key_path] = check_value(value, kind, _limits(keys[key]), where)
        self._sources[key_path] = source

    def _row(self, table: str, *prefix: str) -> Any:
        cls = TABLES[table]
        given: dict[str, Any] = {}
        for key in fields(cls):
            path = (*prefix, key.name)
            if path in self._values:
                given[key.name] = self._values[path]
            elif key.default is MISSING:
                raise SettingsError(f"[{'.'.join(prefix)}] lacks {key.name}")
            self._sources.setdefault(path, Source("default"))
        return cls(**given)


_Where = typing.Callable[..., str]


def _check_teachers(settings: Settings) -> None:
    for name, workload in settings.workload.items():
        if workload.teacher and workload.teacher not in settings.teacher:
            where = settings.sources[f"workload.{name}.teacher"].where
            what = f"is no teacher: there is no [teacher.{workload.teacher}]"
            raise _unknown(where, workload.teacher, settings.teacher, what)
    for name, teacher in settings.teacher.items():
        for other in teacher.fallback:
            if other not in settings.teacher or other == name:
                where = settings.sources[f"teacher.{name}.fallback"].where
                others = [one for one in settings.teacher if one != name]
                raise _unknown(where, other, others, "is no other teacher to fall back on")
    for name, verdict in settings.verdict.items():
        for key in ("judge", "judge_above"):
            if (judge := getattr(verdict, key)) and judge not in settings.teacher:
                where = settings.sources[f"verdict.{name}.{key}"].where
                what = f"is no teacher: there is no [teacher.{judge}]"
                raise _unknown(where, judge, settings.teacher, what)
        if verdict.judge and verdict.agreement:
            raise SettingsError(
                f"verdict.{name} sets agreement and a judge: sampled answers are compared by a"
                " check, which asks nobody",
                hint=f"leave agreement or judge out of [verdict.{name}]",
            )
        if not verdict.judge and (verdict.judge_above or verdict.rubric or verdict.labels):
            raise SettingsError(
                f"verdict.{name} sets judge_above, rubric or labels, but no judge",
                hint=f'[verdict.{name}] needs judge = "..."',
            )


def _check_redaction(settings: Settings) -> None:
    said = [("store.redact", settings.store.redact)]
    said += [(f"workload.{name}.redact", row.redact) for name, row in settings.workload.items()
             if row.redact is not None]  # fmt: skip
    for where, words in said:
        if "none" in words and len(words) > 1:
            raise SettingsError(f"{where}: none stands alone, got {', '.join(words)}")
        if "name" in words and not settings.store.recognizer:
            raise SettingsError(
                f"{where} has name, but nothing is set that finds names",
                hint='[store] needs recognizer = "package.module:function"',
            )


def _unknown(where: str, word: str, known: Iterable[str], what: str) -> SettingsError:
    names = list(known)
    guess = nearest(word, names)
    hint = f"known are {', '.join(names)}" if names else None
    if word in _SECRET_KEYS:
        hint = 'secrets are read from the environment: key_env = "OPENAI_API_KEY"'
    elif guess:
        hint = f"did you mean {guess!r}?"
    return SettingsError(f"{where}: {word!r} {what}", hint=hint)


def _is_variable_name(value: Any) -> bool:
    return (
        not isinstance(value, str) or re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", value) is not None
    )


def _limits(key: Field[Any]) -> Limits:
    return key.metadata["limits"]


@cache
def _kinds(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@cache
def _all_helps() -> dict[str, dict[str, str]]:
    """Class → field → the docstring under it."""
    helps: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(tables)).body:
        if isinstance(node, ast.ClassDef):
            for above, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name):
                    held = below.value if isinstance(below, ast.Expr) else None
                    if isinstance(held, ast.Constant) and isinstance(held.value, str):
                        text = " ".join(held.value.split())
                        helps.setdefault(node.name, {})[above.target.id] = text
    return helps


def _field_helps(cls: type[Any]) -> dict[str, str]:
    return _all_helps()[cls.__name__]
