"""The pages whole: hostile names, every filter, and the same facts as `own traffic`."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.gateway.admin import rows
from ownweights.gateway.admin.app import MAX_QUERY_BYTES, Admin
from ownweights.gateway.admin.pages import PAGE_ROWS
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.feedback import keep_feedback, parse_feedback
from ownweights.traffic.retention import prune
from tests.gateway.admin.test_app import get
from tests.traffic.samples import make
from tests.traffic.test_query import FIRST, some_records

PAGES = ("/", "/workloads", "/facets", "/routes")
HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "' onmouseover='alert(1)",
    "javascript:alert(1)", "{{ 7*7 }}{% include 'base.html' %}", "&lt;b&gt;&amp;",
    "a&b=c#d?e+f%20g", "\u202egnp.exe", "Zürich 東京 🙂", "a" * 900, "../../etc/passwd",
    "'; DROP TABLE record; --", "null\u2028line\x7f\x1b[31m",
)  # fmt: skip


class Shown(HTMLParser):
    """What a browser makes of a page: its tags, attributes and links."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.inputs: dict[str, str] = {}
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        given = dict(attrs)
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "input":
            self.inputs[given.get("name") or ""] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.text += data


def fill(project: Project, records: list[Record]) -> list[Record]:
    with TrafficStore.open(project) as store:
        store.add(records)
        return list(store.records(is_newest_first=True))


def hostile(name: str, **fields: Any) -> Record:
    """A record that says this wherever a caller or a teacher may say something."""
    own = {"own": {"reason": name, name: name}, name: name}
    record = make(name, name, metadata=own, session=name, **fields)
    return replace(record, workload=name, model=name, upstream=name, end_user=name, key_id=name)


PLAIN_TAGS = {
    "html", "head", "meta", "title", "link", "body", "header", "strong", "nav", "a", "main", "h1",
    "h2", "form", "label", "input", "span", "button", "div", "table", "thead", "tbody", "tr", "th",
    "td", "p", "dl", "dt", "dd", "pre", "section",
}  # fmt: skip
PLAIN_ATTRIBUTES = {
    "lang", "charset", "name", "content", "rel", "href", "class", "method", "value", "autocomplete",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_admin_shows_any_name_as_text(admin: Admin, project: Project, name: str) -> None:
    (record,) = fill(project, [hostile(name)])
    query = urlencode(dict.fromkeys(("workload", "model", "session", "end_user"), name))
    paths = [*PAGES[:3], f"/record/{record.id}"]
    for path in (*paths, f"/?{query}", f"/facets?{query}", f"/workloads?{query}"):
        answer = get(admin, path)
        assert answer.status_code == 200, path
        shown = Shown(answer.text)
        assert shown.tags <= PLAIN_TAGS
        assert shown.attributes <= PLAIN_ATTRIBUTES
        assert all(link.startswith(("/", "?")) for link in shown.links)
    assert name in Shown(get(admin, "/").text).text
    assert Shown(get(admin, f"/?{query}").text).inputs["model"] == name


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_admin_links_find_what_they_name(admin: Admin, project: Project, name: str) -> None:
    (record,) = fill(project, [hostile(name)])
    for page in ("/facets", "/workloads", f"/record/{record.id}"):
        links = [link for link in Shown(get(admin, page).text).links if link.startswith("/?")]
        assert links
        for link in links:
            (value,) = next(iter(parse_qs(urlsplit(link).query).values()))
            assert value in (name, "ok", "teacher", "chat")
            assert f"/record/{record.id}" in get(admin, link).text


def test_admin_record_page_shows_the_bodies_as_they_are(admin: Admin, project: Project) -> None:
    for name in HOSTILE:
        record = hostile(name)
        fill(project, [record])
        text = get(admin, f"/record/{record.id}").text
        asked, said = (html.unescape(one) for one in re.findall(r"<pre>(.*?)</pre>", text, re.S))
        assert json.loads(asked, strict=False) == record.request
        assert json.loads(said, strict=False) == record.response


@pytest.mark.parametrize("said", [*HOSTILE[:9], True, 0.5])
def test_admin_record_page_tells_who_asked_and_what_was_said(
    admin: Admin, project: Project, said: str | float
) -> None:
    (record,) = fill(project, [hostile("someone <b>")])
    with TrafficStore.open(project) as store:
        field = "comment" if isinstance(said, str) else "value"
        for target in ({"request_id": record.id}, {"session": "someone <b>"}):
            keep_feedback(store.database, parse_feedback({**target, field: said}))
        keep_feedback(store.database, parse_feedback({"session": "other", "comment": "no"}))
    shown = Shown(get(admin, f"/record/{record.id}").text)
    assert shown.tags <= PLAIN_TAGS and shown.attributes <= PLAIN_ATTRIBUTES
    told = said if isinstance(said, str) else json.dumps(said)
    assert shown.text.count(f"Feedback: {field}, ") == shown.text.count(told) == 2
    asked = {key: parse_qs(urlsplit(link).query).get(key) for key in ("end_user", "key_id")
             for link in shown.links if f"?{key}=" in link}  # fmt: skip
    assert asked == {"end_user": ["someone <b>"], "key_id": ["someone <b>"]}


def test_admin_workloads_page_filters_and_tells_latencies(admin: Admin, project: Project) -> None:
    fill(project, [replace(make(), workload="a", latency_ms=100.0), make("other", workload="b")])
    page = get(admin, "/workloads?workload=a").text
    assert Shown(page).inputs == dict.fromkeys(rows.FILTERS, "") | {"workload": "a"}
    (row,) = cells(page)
    with TrafficStore.open(project) as store:
        (told,) = rows.stats(store.database, rows.RecordFilter(workload="a"))
    assert row[8:10] == [f"{told.latency_p50_ms:,.0f} ms", f"{told.latency_p95_ms:,.0f} ms"]
    assert "No record matches" in get(admin, "/workloads?workload=c").text


def walk(admin: Admin, path: str) -> tuple[list[str], int]:
    """The ids on a page and all older ones, and how many pages there were."""
    seen: list[str] = []
    for count in range(1, 100):
        text = get(admin, path).text
        found = re.findall(r"/record/([0-9a-f-]+)", text)
        assert len(found) <= PAGE_ROWS
        seen += found
        older = re.search(r'href="([^"]+)" rel="next"', text)
        if older is None:
            return seen, count
        path = html.unescape(older[1])
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("name", [None, *rows.FILTERS])
def test_admin_filter_and_paging_show_every_record_once(
    admin: Admin, project: Project, name: str | None
) -> None:
    stored = fill(project, some_records(260))
    if name is None:
        assert walk(admin, "/") == ([one.id for one in stored], 6)
        return
    shown: list[str] = []
    for value in {getattr(one, name) for one in stored}:
        if not value:  # an empty filter is none
            shown += [one.id for one in stored if not getattr(one, name)]
            continue
        wanted = [one.id for one in stored if getattr(one, name) == value]
        ids, pages = walk(admin, f"/?{urlencode({name: value})}")
        assert (ids, pages) == (wanted, -(-len(wanted) // PAGE_ROWS))
        shown += ids
    assert sorted(shown) == sorted(one.id for one in stored)


def test_admin_filters_are_joined(admin: Admin, project: Project) -> None:
    stored = fill(project, some_records(120))
    names = ("workload", "status", "role", "model", "upstream", "session")
    for one in stored[:12]:
        given = {name: getattr(one, name) for name in names if getattr(one, name)}
        wanted = [
            other.id for other in stored if all(getattr(other, k) == v for k, v in given.items())
        ]
        assert walk(admin, f"/?{urlencode(given)}")[0] == wanted


def test_admin_paging_is_not_moved_by_new_records(admin: Admin, project: Project) -> None:
    stored = fill(project, some_records(PAGE_ROWS + 10))
    first = get(admin, "/").text
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    fill(project, [make("newer", at=FIRST + 9e6)])
    rest, _ = walk(admin, html.unescape(older[1]))
    assert rest == [one.id for one in stored[PAGE_ROWS:]]


def own(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """What `own traffic` prints as JSON."""
    assert main(["--project", str(project.root), "traffic", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]


def cells(text: str) -> list[list[str]]:
    """The texts of each row of a page's tables."""
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in text.split("<tr>")]
    plain = [[html.unescape(re.sub(r"<[^>]+>", "", one)) for one in row] for row in found]
    return [row for row in plain if row]


@pytest.mark.parametrize("query", ["", "workload=a", "status=error&model=m1", "session=s3"])
def test_admin_pages_say_what_own_traffic_says(
    admin: Admin, project: Project, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    fill(project, some_records(PAGE_ROWS))
    options = [word for one in query.split("&") if one for word in f"--{one}".split("=")]
    listed = own(project, capsys, "list", "--limit", "1000", *options)
    assert walk(admin, f"/?{query}")[0] == [row["id"] for row in listed]
    shown = cells(get(admin, f"/?{query}").text)
    assert [[row[1], row[3], row[5]] for row in shown] == [
        [row["workload"], row["model"], row["status"]] for row in listed
    ]
    told = [
        [row["workload"], *(f"{row[name]:,}" for name in ("records", "ok", "partial", "error"))]
        for row in own(project, capsys, "stats", *options)
    ]
    assert [row[:5] for row in cells(get(admin, f"/workloads?{query}").text)] == told
    counted = [
        [row[name] or "none", f"{row['records']:,}"]
        for name in rows.DIMENSIONS
        for row in own(project, capsys, "facets", name, *options)
    ]
    assert cells(get(admin, f"/facets?{query}").text) == counted


def test_admin_record_that_was_pruned_is_gone(admin: Admin, project: Project) -> None:
    records = fill(project, [make("old", at=FIRST), make("new", at=FIRST + 86_400 * 3)])
    new, old = sorted(records, key=lambda one: -one.at)
    with TrafficStore.open(project) as store:
        prune(store, FIRST + 86_400 * 4, bodies_before=FIRST + 86_400)
    answer = get(admin, f"/record/{old.id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "pruned")
    assert "were taken out on 2024-10-08" in answer.json()["error"]["message"]
    assert get(admin, f"/record/{new.id}").status_code == 200
    assert walk(admin, "/")[0] == [one.id for one in records]
    with TrafficStore.open(project) as store:
        prune(store, FIRST + 86_400 * 4, before=FIRST + 86_400)
    assert get(admin, f"/record/{old.id}").status_code == 404
    assert walk(admin, "/")[0] == [new.id]


def test_admin_of_an_empty_store(admin: Admin, project: Project) -> None:
    fill(project, [])
    assert project.database_path.exists()
    assert "No record matches" in get(admin, "/").text
    assert "Nothing is recorded" in get(admin, "/workloads").text
    assert cells(get(admin, "/facets").text) == [["nothing"]] * len(rows.DIMENSIONS)
    assert get(admin, "/record/none").status_code == 404


def test_admin_takes_up_a_store_that_is_made_later(admin: Admin, project: Project) -> None:
    assert "No record matches" in get(admin, "/").text
    (record,) = fill(project, [make()])
    assert walk(admin, "/")[0] == [record.id]


def guarded(answer: httpx.Response) -> bool:
    policy = answer.headers["content-security-policy"]
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    return parts == {
        "default-src": "'none'", "style-src": "'self'", "form-action": "'self'",
        "base-uri": "'none'", "frame-ancestors": "'none'",
    } and "access-control-allow-origin" not in answer.headers  # fmt: skip


def test_admin_guards_every_answer(admin: Admin, project: Project) -> None:
    stored = fill(project, some_records(3))
    paths = (*PAGES, "/health", "/ready", "/metrics", "/style.css", "/nowhere", "/record/none",
             "/?colour=red", "/?before=x", f"/record/{stored[0].id}")  # fmt: skip
    for path in paths:
        assert guarded(get(admin, path)), path
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        for path in paths[:5]:
            answer = get(admin, path, method=method)
            assert answer.status_code == 405 and guarded(answer), (path, method)
    for path in paths:
        answer = get(admin, path, host="evil.example")
        assert answer.status_code == 421 and guarded(answer), path
        assert not any(one.id in answer.text for one in stored)
    project.database_path.write_bytes(b"not a database, " * 100)
    assert guarded(get(admin, "/"))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("workload=%FF%FE", 200), ("workload=%00", 200), ("workload=%F0%9F%99%82", 200),
        ("model=%ED%A0%80", 200), ("before=1_0", 400), ("before=%EF%BC%91", 200),
        ("before=1e3", 400),
        ("before=999999999999999999", 200), ("before=9999999999999999999", 400), ("before=0", 200),
        ("before=", 200), ("limit=1", 400), ("since=1", 400), ("seq=1", 400), ("=1", 400),
        ("workload=a&workload=b", 400), ("workload=a&workload=", 200),
        ("model=" + "x" * (MAX_QUERY_BYTES - 6), 200),
        ("model=" + "x" * (MAX_QUERY_BYTES - 5), 414),
    ],
    ids=range(19),
)  # fmt: skip
def test_admin_odd_queries_are_answered_or_refused(
    admin: Admin, project: Project, query: str, status: int
) -> None:
    fill(project, some_records(3))
    answer = get(admin, f"/?{query}")
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] in ("invalid_query", "query_too_long")
