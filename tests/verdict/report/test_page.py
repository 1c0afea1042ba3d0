"""The report page: shows the verdict's numbers, every text as text, and needs nothing else."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.verdict import RunOptions, Verdict, run_verdict
from ownweights.verdict.certificate import ByRequest, sentence
from ownweights.verdict.report.chart import HEIGHT, WIDTH, Axes, Series, draw_chart
from ownweights.verdict.report.page import Told, report_page
from ownweights.verdict.store import load_rows
from tests.verdict import worlds

HOSTILE = '</pre><script>alert(1)</script><img src="https://example.org/x.png" onerror=alert(2)>'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def made(project: Project, harm_frac: float = 0.2) -> tuple[Verdict, list, list]:
    data = worlds.dataset(200, 600)
    student = worlds.student(data, harm_frac=harm_frac)
    options = RunOptions(keeps_answers=True)
    found = run_verdict(data, student, project, "student1", options=options)
    return found, *load_rows(project, found.id)


class Tags(HTMLParser):
    """Every tag with its attributes, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_of_a_certificate_says_what_it_says(project: Project) -> None:
    found, rows, answers = made(project)
    assert found.issued
    text = Tags(report_page(found, rows, Told(answers=answers))).text
    for said in (
        "certified", sentence(found), f"{100 * found.coverage_frac:.1f} %",
        f"{found.harms:g} of {found.n_served}", *found.assumptions, *found.expires,
        f"{found.n_served:,} sure enough to be served", f"{found.n:,} independent",
        f"own verdict verify {found.id}",
    ):  # fmt: skip
        assert said in text


def test_page_of_a_refusal_says_why(project: Project) -> None:
    found, rows, answers = made(project, 1.0)
    text = Tags(report_page(found, rows, Told(answers=answers))).text
    for said in ("refused", *found.reasons, "What it would take"):
        assert said in text
    assert "What it saves" not in text


def test_page_shows_savings_with_their_interval(project: Project) -> None:
    found, rows, _ = made(project)
    text = Tags(report_page(found, rows, Told(usd_per_request=0.01))).text
    shares = (found.coverage_frac, found.coverage_low, found.coverage_high)
    saved, low, high = (f"{10 * share:.2f}" for share in shares)
    assert f"USD {saved} of 10.00 ({low} to {high})" in text


def test_page_counts_by_request_too(project: Project) -> None:
    found, rows, _ = made(project)
    assert found.by_request is not None
    text = Tags(report_page(found, rows, Told(usd_per_request=0.01))).text
    share = found.by_request.coverage_frac
    low, high = found.by_request.coverage_low, found.by_request.coverage_high
    assert low is not None and high is not None and low < share <= high
    of_units = f"(95 % interval over units: {100 * low:.1f} to {100 * high:.1f} %)"
    assert f"{100 * share:.1f} % of 600 requests answered by the student {of_units}" in text
    assert f"as often as they came, {1000 * share:.0f}, USD {10 * share:.2f} of 10.00" in text
    between = f"{1000 * low:.0f} to {1000 * high:.0f}, USD {10 * low:.2f} to {10 * high:.2f}"
    assert f"(measured on certify; 95 % interval over units: {between})" in text
    assert "Warning" not in text
    often = dataclasses.replace(found, by_request=ByRequest(2000, 800, 200.0, 10))
    text = Tags(report_page(often, rows)).text
    assert "10.5 % of all requests came to harm, more than 5 %" in text
    assert "as often as they came, 400 (measured on certify)." in text
    before = dataclasses.replace(found, by_request=None)
    assert "as often as" not in Tags(report_page(before, rows)).text


def test_page_says_what_was_saved_so_far(project: Project) -> None:
    found, rows, _ = made(project)
    live = "Saved after audits: USD 3.00 (1.00 to 5.00)."
    text = Tags(report_page(found, rows, Told(live=live))).text
    assert "What it has saved so far" in text
    assert live in text
    assert "saved so far" not in Tags(report_page(found, rows)).text


def test_page_shows_pairs_that_differ_the_surest_first(project: Project) -> None:
    found, rows, answers = made(project)
    prompts = {row.id: f"prompt of {row.id}" for row in rows}
    text = Tags(report_page(found, rows, Told(prompts, answers))).text
    harmed = [r for r in rows if r.split == "certify" and r.harm and r.score >= found.threshold]
    assert len(harmed) == found.harms > 0
    shown = re.findall(r"prompt of (\S+?)certify", text)
    assert len(shown) == len(harmed)
    surest = max(harmed, key=lambda row: row.score)
    assert text.index(f"prompt of {surest.id}") == text.index("prompt of ")
    assert "wrong" in text


def test_page_shows_the_scores_and_what_they_promise(project: Project) -> None:
    found, rows, _ = made(project)
    page = report_page(found, rows)
    text = Tags(page).text
    assert len(found.calibration) > 2
    for one in found.calibration:
        assert f"{one.harms:g} of {one.n}" in text
        assert f"{100 * one.predicted:.1f} %" in text
    for row in found.subject.compared:
        assert f"{row['area']:.4f}" in text
    assert "Predicted harm against harm seen" in page
    bare = dataclasses.replace(
        found, calibration=(), subject=dataclasses.replace(found.subject, compared=())
    )
    assert "What the score promises" not in report_page(bare, rows)
    one = dataclasses.replace(found, calibration=found.calibration[:1])
    assert "Predicted harm against" not in report_page(one, rows)
    assert "What the score promises" in report_page(one, rows)


def test_page_without_answers_says_how_to_keep_them(project: Project) -> None:
    found, rows, _ = made(project)
    assert "--keep-answers" in report_page(found, rows)


def test_page_shows_hostile_text_as_text(project: Project) -> None:
    found, rows, answers = made(project, 0.2)
    answers = [{**one, "answer": HOSTILE, "references": [HOSTILE]} for one in answers]
    subject = dataclasses.replace(found.subject, workload=HOSTILE, teachers=(HOSTILE,))
    found = dataclasses.replace(found, subject=subject, assumptions=(HOSTILE,))
    page = Tags(report_page(found, rows, Told({row.id: HOSTILE for row in rows}, answers)))
    assert {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe"} == set()
    assert page.text.count(HOSTILE) > 4


def test_page_needs_nothing_else(project: Project) -> None:
    page = report_page(*made(project)[:2])
    asked = [
        (tag, name)
        for tag, attrs in Tags(page).tags
        for name in attrs
        if name in ("src", "href", "srcset", "onload", "onclick") or (tag == "link")
    ]
    assert asked == []
    assert "@import" not in page
    assert "url(" not in page


def test_page_of_hardly_anything_is_whole(project: Project) -> None:
    found, rows, _ = made(project)
    page = report_page(dataclasses.replace(found, n=0, n_served=0, calibration=()), [])
    assert page.rstrip().endswith("</html>")
    assert "<svg" not in page
    assert "<svg" in report_page(found, rows)


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=20), st.floats(0, 10), st.floats(0, 10)
)
def test_chart_stays_inside_its_frame(points, x_max: float, y_max: float) -> None:
    kinds = [Series(kind, kind, points) for kind in ("line", "band", "mark")]
    drawn = draw_chart(Axes("x", "y", x_max, y_max), kinds, title="<chart>")
    assert 'aria-label="&lt;chart&gt;"' in drawn
    for places in re.findall(r'points="([^"]*)"', drawn):
        for place in places.split():
            x, y = map(float, place.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_chart_draws_what_it_is_given() -> None:
    axes = Axes("x", "y", 2.0, 4.0)
    (line,) = re.findall(
        r'class="line" points="([^"]*)"',
        draw_chart(axes, [Series("s", "line", [(0, 0), (1, 4), (2, 2)])], title="t"),
    )
    places = [tuple(map(float, place.split(","))) for place in line.split()]
    assert places == [
        pytest.approx(axes.place(x, y), abs=0.06) for x, y in [(0, 0), (1, 4), (2, 2)]
    ]
