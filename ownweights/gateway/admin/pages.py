"""The pages: the traffic list, one record, statistics, facets, routes.

In: a path and its query. Out: a status and HTML. Invariants: what callers wrote is text, never
markup (test_admin_escapes_what_callers_wrote); a page that is not known is a 404, a filter that is
not known a 400 (test_admin_refuses_unknown_filters); the store is read in a thread of its own, and
never made (test_admin_pages_without_a_store).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from ownweights.core.database import has_database
from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.gateway.admin import rows
from ownweights.gateway.admin.rows import RecordFilter
from ownweights.gateway.student_turn import standing_of
from ownweights.route import read_active
from ownweights.teacher.asgi import HttpError
from ownweights.traffic.record import Record
from ownweights.traffic.store import TrafficStore

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_ROWS = 50
MAX_SHOWN_CHARS = 500_000
_STORE_TIMEOUT_S = 2.0
_FILTERS = rows.FILTERS
Page = tuple[int, str]


class Pages:
    """Renders pages from what is stored."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="own-admin")
        self._store: TrafficStore | None = None
        self._known: dict[str, Callable[[Mapping[str, str]], Page]] = {
            "/": self._traffic, "/workloads": self._workloads, "/facets": self._facets,
            "/routes": self._routes,
        }  # fmt: skip

    async def render(self, path: str, query: Mapping[str, str]) -> Page:
        """A page; HttpError 404 where there is none."""
        make = self._known.get(path)
        if make is None and path.startswith("/record/"):
            record_id = path.removeprefix("/record/")
            return await self._in_thread(lambda: self._record(record_id))
        if make is None:
            raise HttpError(404, "there is no such page here", code="unknown_url")
        return await self._in_thread(lambda: make(query))

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _in_thread(self, make: Callable[[], Page]) -> Page:
        return await asyncio.get_running_loop().run_in_executor(self._thread, make)

    def _open(self) -> TrafficStore | None:
        """The store, kept open; None while there is none."""
        if self._store is None and has_database(self._project.database):
            self._store = TrafficStore.open(
                self._project, create=False, busy_timeout_s=_STORE_TIMEOUT_S
            )
        return self._store

    def _traffic(self, query: Mapping[str, str]) -> Page:
        only, before = _asked(query, "before")
        store = self._open()
        found = rows.page(store.database, only, before=before, limit=PAGE_ROWS + 1) if store else []
        shown = found[:PAGE_ROWS]
        older = _link("/", only, before=shown[-1].seq) if len(found) > PAGE_ROWS else None
        return 200, _html(
            "traffic.html", rows=shown, only=only, older=older, is_first=before is None,
            filters=_FILTERS, all_link=_link("/", only), facets_link=_link("/facets", only),
        )  # fmt: skip

    def _record(self, record_id: str) -> Page:
        store = self._open()
        record = store.get(record_id) if store else None
        if record is None and store and (row := rows.row_of(store.database, record_id)):
            when = _moment(row.pruned_at or 0)
            what = f"the bodies of this record were taken out on {when}"
            raise HttpError(410, what, code="pruned")
        if record is None:
            raise HttpError(404, "there is no record with this id", code="unknown_record")
        bodies = {"Request": _shown(record.request), "Response": _shown(record.response)}
        return 200, _html(
            "record.html", record=record, bodies=bodies, feedback=_feedback(store, record),
            own=_facts(record.metadata.get("own")),
        )  # fmt: skip

    def _workloads(self, query: Mapping[str, str]) -> Page:
        only, _ = _asked(query)
        store = self._open()
        found = rows.stats(store.database, only) if store else []
        return 200, _html("workloads.html", stats=found, only=only, filters=_FILTERS)

    def _facets(self, query: Mapping[str, str]) -> Page:
        only, _ = _asked(query)
        store = self._open()
        found = {
            name: [
                (value, count, _link("/", only, **{name: value}) if value else None)
                for value, count in (rows.facets(store.database, only, name) if store else [])
            ]
            for name in rows.DIMENSIONS
        }
        return 200, _html("facets.html", facets=found, only=only, filters=_FILTERS,
                          all_link=_link("/", only))  # fmt: skip

    def _routes(self, query: Mapping[str, str]) -> Page:
        if query:
            raise HttpError(400, "this page takes no filter", code="invalid_query")
        routes, faults = read_active(self._project)
        found = [
            (route, standing_of(route), _certificate(self._project, route.verdict_id))
            for _, route in sorted(routes.items())
        ]
        return 200, _html("routes.html", routes=found,
                          faults={name: str(fault) for name, fault in faults.items()})  # fmt: skip


def _certificate(project: Project, verdict_id: str) -> Any:
    """A route's certificate; None where it cannot be read."""
    from ownweights.verdict.store import load_verdict

    try:
        return load_verdict(project, verdict_id)
    except OwnError:
        return None


def _asked(query: Mapping[str, str], *numbers: str) -> tuple[RecordFilter, int | None]:
    """The filter in a query, and a row number; HttpError 400 for anything else."""
    if unknown := set(query) - {*_FILTERS, *numbers}:
        known = ", ".join([*_FILTERS, *numbers])
        what = f"there are {len(unknown)} unknown filters; known are {known}"
        raise HttpError(400, what, code="invalid_query")
    before: int | None = None
    if text := query.get("before"):
        if not text.isdecimal() or len(text) > 18:
            raise HttpError(400, "before must be a row number", code="invalid_query")
        before = int(text)
    given: dict[str, Any] = {name: query.get(name) for name in _FILTERS}
    return RecordFilter(**given), before


def _link(path: str, only: RecordFilter, **more: Any) -> str:
    given = {name: getattr(only, name) for name in _FILTERS} | more
    query = urlencode({name: value for name, value in given.items() if value is not None})
    return f"{path}?{query}" if query else path


def _facts(own: Any) -> dict[str, Any]:
    """What the gateway noted of a record that the record does not say itself."""
    facts = cast("dict[str, Any]", own) if isinstance(own, dict) else {}
    return {name: value for name, value in facts.items() if name != "latency_ms"}


def _feedback(store: TrafficStore | None, record: Record) -> list[dict[str, Any]]:
    """What was said of a record or its session, as it is shown."""
    if store is None:
        return []
    said = rows.feedback_of(store.database, request_id=record.id, session=record.session)
    return [
        {"name": one.name, "at": one.at,
         "value": one.value if isinstance(one.value, str) else _shown(one.value)}
        for one in said
    ]  # fmt: skip


def _shown(body: Any) -> str | None:
    """A body as it is shown; None where there is none."""
    if body is None:
        return None
    text = json.dumps(body, indent=2, ensure_ascii=False)
    cut = len(text) - MAX_SHOWN_CHARS
    return text if cut <= 0 else f"{text[:MAX_SHOWN_CHARS]}\n… and {cut:,} characters more"


def style() -> bytes:
    """The style sheet of every page."""
    return files("ownweights.gateway.admin").joinpath("templates/style.css").read_bytes()


def _html(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("ownweights.gateway.admin"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["moment"] = _moment
    found.filters["count"] = lambda number: f"{number:,}"
    found.filters["ms"] = _ms
    found.filters["usd"] = _usd
    found.filters["size"] = _size
    return found


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))


def _ms(took_ms: float | None) -> str:
    return "" if took_ms is None else f"{took_ms:,.0f} ms"


def _usd(cost_usd: float | None) -> str:
    return "" if cost_usd is None else f"${cost_usd:,.6f}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
