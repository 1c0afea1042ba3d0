"""The operator's door: who may knock, what is shown, and what is not."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings
from ownweights.gateway.admin import rows
from ownweights.gateway.admin.app import Admin
from ownweights.gateway.admin.pages import PAGE_ROWS
from ownweights.gateway.admin.rows import RecordFilter
from ownweights.route.rollout import first_standing
from ownweights.route.route import stand
from ownweights.traffic import TrafficStore
from ownweights.traffic.record import make_record
from tests.gateway.harness import Engines
from tests.route.samples import follow
from tests.teacher.servers import asked, completion

HOSTILE = "<script>alert('private')</script>&\""
PAGES = ("/", "/workloads", "/facets", "/routes")


def get(
    admin: Admin, path: str, *, host: str = "127.0.0.1:8712", method: str = "GET"
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(admin)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers={"host": host})

    return asyncio.run(ask())


def fill(project: Project, count: int = 3, **fields: Any) -> list[str]:
    """Records of workloads a, b, a, b, ...; their ids."""
    found = [
        make_record(
            asked(HOSTILE, user="someone"), completion(HOSTILE, model=fields.get("model", "m")),
            role="teacher", workload=fields.get("workload") or "ab"[number % 2],
            session=fields.get("session"), at=1e9 + number,
        )
        for number in range(count)
    ]  # fmt: skip
    with TrafficStore.open(project) as store:
        store.add(found)
    return [record.id for record in found]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8712", 200), ("localhost", 200), ("[::1]:8712", 200), ("LOCALHOST:1", 200),
        ("127.1.2.3", 200), ("evil.example", 421), ("evil.example:8712", 421), ("10.0.0.5", 421),
        ("localhost.evil.example", 421), ("127.0.0.1.evil.example:8712", 421), ("", 421),
        ("127.0.0.1@evil.example", 421), ("[::1", 200), ("a:b:c", 421),
    ],
)  # fmt: skip
def test_admin_refuses_other_hosts(admin: Admin, host: str, status: int) -> None:
    for path in ("/health", "/metrics", "/"):
        assert get(admin, path, host=host).status_code == status


@pytest.mark.parametrize(
    ("ours", "host", "status"),
    [
        ("own.internal", "OWN.internal:8712", 200), ("own.internal", "other.internal", 421),
        ("0.0.0.0", "10.0.0.5:8712", 200), ("::", "[fd00::5]:8712", 200),
        ("0.0.0.0", "evil.example", 421), ("10.0.0.5", "10.0.0.5", 200),
        ("10.0.0.5", "10.0.0.6", 421),
    ],
)  # fmt: skip
def test_admin_answers_to_the_host_it_is_told(
    project: Project, ours: str, host: str, status: int
) -> None:
    gateway = Gateway(project, GatewaySettings(), start_engine=Engines())
    assert get(Admin(gateway, ours), "/health", host=host).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_admin_takes_gets_alone(admin: Admin, method: str) -> None:
    for path in (*PAGES, "/metrics", "/ready", "/health"):
        assert get(admin, path, method=method).status_code == 405


def test_admin_pages_forbid_scripts(admin: Admin, project: Project) -> None:
    (one,) = fill(project, 1)
    for path in (*PAGES, f"/record/{one}", "/nowhere", "/style.css", "/metrics"):
        answer = get(admin, path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'")
        assert "script" not in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script|\son\w+=|style=|https?://", answer.text)


def test_admin_escapes_what_callers_wrote(admin: Admin, project: Project) -> None:
    (one,) = fill(project, 1, model=HOSTILE, session=HOSTILE)
    pages = [get(admin, path).text for path in (*PAGES, f"/record/{one}")]
    pages.append(get(admin, f"/?model={quote(HOSTILE)}").text)
    assert all("<script" not in page for page in pages)
    assert "&lt;script&gt;alert(&#39;private&#39;)" in pages[0]
    assert sum("&lt;script&gt;" in page for page in pages) == 4


def test_admin_lists_hold_no_content(admin: Admin, project: Project) -> None:
    (one,) = fill(project, 1)
    assert all("private" not in get(admin, path).text for path in (*PAGES, "/metrics"))
    assert "private" in get(admin, f"/record/{one}").text


def test_admin_lists_and_pages_traffic(admin: Admin, project: Project) -> None:
    ids = fill(project, PAGE_ROWS * 2 + 5)
    seen: list[str] = []
    path: str | None = "/?status=ok"
    while path is not None:
        text = get(admin, path).text
        seen += re.findall(r"/record/([0-9a-f-]+)", text)
        older = re.search(r'href="([^"]+)" rel="next"', text)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("query", "count"),
    [("workload=a", 2), ("workload=b", 1), ("workload=a&status=error", 0), ("end_user=someone", 3),
     ("session=", 3), ("workload=a'%20OR%201=1--", 0)],
)  # fmt: skip
def test_admin_filters_traffic(admin: Admin, project: Project, query: str, count: int) -> None:
    fill(project, 3)
    assert get(admin, f"/?{query}").text.count("/record/") == count


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/?colour=red", 400), ("/?before=x", 400), ("/?before=-1", 400), ("/routes?a=b", 400),
        ("/workloads?before=1", 400), ("/nowhere", 404), ("/record/none", 404),
        ("/record/../../etc/passwd", 404), ("/templates/base.html", 404),
        (f"/?model={'x' * 9000}", 414), (f"/?{'&'.join(['a=1'] * 60)}", 400),
    ],
)  # fmt: skip
def test_admin_refuses_unknown_filters(
    admin: Admin, project: Project, path: str, status: int
) -> None:
    fill(project, 1)
    assert get(admin, path).status_code == status


def test_admin_pages_without_a_store(admin: Admin, project: Project) -> None:
    assert "No record matches" in get(admin, "/").text
    assert "Nothing is recorded" in get(admin, "/workloads").text
    assert get(admin, "/facets").status_code == 200
    assert "every request goes to the teacher" in get(admin, "/routes").text
    assert not project.database_path.exists()


def test_admin_counts_facets_and_workloads(admin: Admin, project: Project) -> None:
    fill(project, 5)
    facets = get(admin, "/facets").text
    assert re.search(r'workload=a">a</a></td><td class="n">3<', facets)
    cells = re.findall(r'<td class="n">([^<]+)<', get(admin, "/workloads?workload=b").text)
    assert cells[:4] == ["2", "2", "0", "0"]


def test_admin_shows_routes_and_their_standing(admin: Admin, project: Project) -> None:
    route = follow(project)
    stand(project, "tickets", first_standing(route.id, "canary"), reason="test")
    text = get(admin, "/routes").text
    for word in ("canary 5 %", route.id, route.verdict_id, "the certificate cannot be read here"):
        assert word in text


def test_admin_tells_a_store_that_fails(admin: Admin, project: Project) -> None:
    project.database_path.parent.mkdir(parents=True, exist_ok=True)
    project.database_path.write_bytes(b"not a database, " * 100)
    answer = get(admin, "/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_admin_ready_of_a_gateway_that_has_not_started(admin: Admin) -> None:
    answer = get(admin, "/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
    assert get(admin, "/health").json() == {"status": "ok"}


def test_admin_rows_page_through_everything(project: Project) -> None:
    ids = fill(project, 23)
    with TrafficStore.open(project) as store:
        by_hand = [r.id for r in store.records(is_newest_first=True) if r.workload == "a"]
        only, before, seen = RecordFilter(workload="a"), None, list[str]()
        while found := rows.page(store.database, only, before=before, limit=5):
            seen += [row.id for row in found]
            before = found[-1].seq
        assert seen == by_hand and set(seen) < set(ids)
        assert rows.facets(store.database, RecordFilter(), "workload") == [("a", 12), ("b", 11)]
        (one,) = rows.stats(store.database, only)
        assert (one.name, one.records, one.ok, one.first_at) == ("a", 12, 12, 1e9)
