"""What the gateway works with: where it listens, who the teachers are, and whose key opens it.

In: the project's Settings. Out: plain values. Invariants: a key comes from the environment alone
(test_upstream_key_that_is_not_set_says_so); what only a new start changes stays while it serves,
above all the address, which says whom it may trust (test_serve_trusts_no_address_it_is_not_at).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ownweights.core.errors import SettingsError
from ownweights.core.settings import Settings
from ownweights.core.strict import key_text
from ownweights.teacher.kinds import Kind
from ownweights.teacher.prices import OWN_TOML, Prices, billed_of, is_standard_tier, list_prices
from ownweights.traffic.redact import PrivacyRules

# what the server, the admin listener, the log and the spans were begun with
AT_START = ("host", "port", "admin_host", "admin_port", "drain_s", "log", "otel_endpoint")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A rented model's address.

    With `model` the request names that one instead of the caller's; with `key_env` the operator's
    key replaces the caller's. Without either, requests pass byte for byte. Where it fails, those
    named in `fallback` are asked in turn; `timeout_s` is how long it may take to begin then.
    """

    name: str
    base_url: str
    model: str = ""
    key_env: str = ""
    kind: Kind = field(default_factory=Kind)
    fallback: tuple[str, ...] = ()
    timeout_s: float = 60.0
    usd_per_mtok_in: float | None = None
    usd_per_mtok_out: float | None = None
    usd_per_mtok_cached: float | None = None

    def speaks(self, protocol: str) -> bool:
        """Whether it takes requests of a protocol as they are."""
        return (protocol == "messages") == self.kind.speaks_messages

    def prices(self, model: str) -> Prices | None:
        """What it takes for a model: as own.toml says, else as its maker lists it."""
        if self.usd_per_mtok_in is None and self.usd_per_mtok_out is None:
            return list_prices(self.base_url, model)
        if self.usd_per_mtok_in is None or self.usd_per_mtok_out is None:
            return None
        return Prices(self.usd_per_mtok_in, self.usd_per_mtok_out, self.usd_per_mtok_cached)

    def cost_usd(self, asked: str, response: Mapping[str, Any] | None) -> float | None:
        """What an answer cost; None where it does not say what it took, or no price is known."""
        billed = billed_of(response)
        answered = response.get("model") if response else None
        prices = self.prices(answered if isinstance(answered, str) else "") or self.prices(
            self.model or asked
        )
        if billed is None or prices is None:
            return None
        is_known = prices.source == OWN_TOML or is_standard_tier(response)
        return prices.cost(billed) if is_known else None

    def key(self) -> str | None:
        """The operator's key; SettingsError when it should be in the environment and is not."""
        return key_from(self.key_env, f"teacher.{self.name}") if self.key_env else None


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`teacher_of` maps a workload to a teacher's name; `default_teacher` takes the rest."""

    host: str = "127.0.0.1"
    port: int = 8711
    hosts: tuple[str, ...] = ()
    timeout_s: float = 120.0
    connect_timeout_s: float = 10.0
    max_body_bytes: int = 32 * 2**20
    key_env: str = ""
    teachers: Mapping[str, Upstream] = field(default_factory=dict[str, Upstream])
    teacher_of: Mapping[str, str] = field(default_factory=dict[str, str])
    default_teacher: str = ""
    on_client_gone: str = "stop"  # or drain
    on_full: str = "shed"  # or block
    max_retries: int = 0
    retry_frac: float = 0.1
    admin_host: str = ""  # empty: no admin listener
    admin_port: int = 0
    drain_s: float = 15.0
    log: str = "text"  # or json
    otel_endpoint: str = ""
    rubrics: Mapping[str, str] = field(default_factory=dict[str, str])  # by workload, of its judge
    privacy: PrivacyRules = field(default_factory=PrivacyRules)
    kept_days: tuple[float | None, float | None] = (None, None)  # of bodies, of rows

    @classmethod
    def of(cls, settings: Settings, *, key_env: str = "") -> GatewaySettings:
        """The gateway's part of the project's settings; SettingsError for a teacher not there."""
        teachers = {
            name: Upstream(
                name,
                row.base_url,
                row.model,
                row.key_env,
                Kind(row.kind, row.api_version, row.max_tokens),
                row.fallback,
                row.timeout_s,
                row.usd_per_mtok_in,
                row.usd_per_mtok_out,
                row.usd_per_mtok_cached,
            )
            for name, row in settings.teacher.items()
        }
        teacher_of = {name: row.teacher for name, row in settings.workload.items() if row.teacher}
        for workload in teacher_of:
            settings.teacher_of(workload)
        _check_addresses(settings)
        return cls(
            host=settings.gateway.host,
            port=settings.gateway.port,
            hosts=tuple(name.lower() for name in settings.gateway.hosts),
            timeout_s=settings.gateway.timeout_s,
            on_client_gone=settings.gateway.on_client_gone,
            on_full=settings.gateway.on_full,
            max_retries=settings.gateway.max_retries,
            retry_frac=settings.gateway.retry_frac,
            admin_host=settings.gateway.admin_host,
            admin_port=_admin_port(settings),
            drain_s=settings.gateway.drain_s,
            log=settings.gateway.log,
            otel_endpoint=settings.gateway.otel_endpoint,
            key_env=key_env or settings.gateway.key_env,
            teachers=teachers,
            teacher_of=teacher_of,
            default_teacher=settings.default_teacher,
            rubrics={name: row.rubric for name, row in settings.verdict.items()},
            privacy=privacy_rules(settings),
            kept_days=(settings.store.keep_bodies_days, settings.store.keep_metadata_days),
        )

    def upstream(self, named: str, workload: str) -> Upstream | None:
        """Who answers a workload: as its route names it, else its settings, else the default."""
        if named.startswith(("http://", "https://")):
            return Upstream(named, named)
        return self.teachers.get(named or self.teacher_of.get(workload) or self.default_teacher)

    def candidates(self, upstream: Upstream, protocol: str) -> list[Upstream]:
        """An upstream and those that may stand in for it; translated where that can be."""
        if not upstream.fallback:
            return [upstream]
        stand_ins = [self.teachers[name] for name in upstream.fallback]
        can_be = protocol in ("chat", "messages")
        return [upstream, *(one for one in stand_ins if can_be or one.speaks(protocol))]

    def as_started(self, started: GatewaySettings) -> tuple[GatewaySettings, list[str]]:
        """These with what only a new start changes as it was then; the names of what differs."""
        kept = {name: getattr(started, name) for name in AT_START}
        names = [name for name in AT_START if getattr(self, name) != kept[name]]
        return dataclasses.replace(self, **kept), names

    def check_keys(self) -> None:
        """SettingsError unless every key that is named is in the environment."""
        for upstream in self.teachers.values():
            upstream.key()
        self.key()

    def key(self) -> str | None:
        """The key that opens the gateway; SettingsError when it should be set and is not."""
        return key_from(self.key_env, "gateway") if self.key_env else None


def privacy_rules(settings: Settings) -> PrivacyRules:
    """The rules that the project's settings make."""
    return PrivacyRules(
        redact=settings.store.redact,
        recognizer=settings.store.recognizer,
        workload_redact={
            name: row.redact for name, row in settings.workload.items() if row.redact is not None
        },
        unrecorded=frozenset(name for name, row in settings.workload.items() if not row.record),
    )


def _check_addresses(settings: Settings) -> None:
    """SettingsError where the gateway would be its own teacher, or its own admin listener."""
    ours, admin = settings.gateway, (settings.gateway.admin_host, _admin_port(settings))
    if ours.port and ours.port == admin[1] and _is_same_host(ours.host, admin[0]):
        raise SettingsError(
            f"gateway.port and gateway.admin_port are both {ours.port}",
            hint="give each a port of its own; 0 picks a free one",
        )
    for name, row in settings.teacher.items():
        try:
            found = urlsplit(row.base_url)
            host, port = found.hostname or "", found.port
        except ValueError as error:
            raise SettingsError(f"teacher.{name}.base_url is no address: {error}") from None
        port = port or {"http": 80, "https": 443}[found.scheme]
        if port == ours.port and _is_same_host(ours.host, host):
            raise SettingsError(
                f"teacher.{name}.base_url is the gateway's own address: it would ask itself",
                hint="name the rented model's address, or give the gateway another port",
            )


def _is_same_host(ours: str, other: str) -> bool:
    """Whether both are this machine, as far as names tell; empty is none."""
    from ownweights.teacher.serving import is_loopback

    everywhere = ("0.0.0.0", "::")
    if ours in everywhere or other in everywhere:
        return all(host in everywhere or is_loopback(host) for host in (ours, other))
    alike = {"localhost": "127.0.0.1"}
    return bool(other) and alike.get(ours, ours) == alike.get(other, other)


def _admin_port(settings: Settings) -> int:
    """The admin listener's port: a free one where the gateway's is and nobody named this one."""
    source = settings.sources.get("gateway.admin_port")
    is_named = source is not None and source.kind != "default"
    return 0 if settings.gateway.port == 0 and not is_named else settings.gateway.admin_port


def key_from(name: str, where: str) -> str:
    """The secret in environment variable `name`."""
    value = key_text(name, os.environ.get(name))
    if not value:
        raise SettingsError(
            f"{where}: key_env names {name}, which is not set",
            hint=f"export {name}=…, or leave key_env out to pass each caller's own key on",
        )
    return value
