"""A verdict as one HTML file that needs nothing else: no script, no font, nothing from the network.

In: a verdict, the rows it was decided from, and, where they were kept, the answers. Out: the page:
the claim in words, the funnel, how evidence gathered, what each threshold would risk, where answers
differ, what is saved, what is assumed. It only shows; every number is the verdict's, or is counted
from its rows. Invariants: text of prompts and answers is shown, never interpreted
(test_page_shows_hostile_text_as_text); the page asks for nothing (test_page_needs_nothing_else).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ownweights.verdict.certificate import PairedClaim, Verdict, request_warnings, sentence
from ownweights.verdict.claims import difference_of, paired_rows, slice_of
from ownweights.verdict.judged import ANSWERED, FAILED, INELIGIBLE, Judged, draw_one_per_unit
from ownweights.verdict.report.chart import Axes, Series, draw_chart
from ownweights.verdict.report.text import paired_sentence, teacher_line
from ownweights.verdict.statistics import clopper_pearson_interval
from ownweights.verdict.statistics.e_process import confidence_sequence

MAX_PAIRS = 40
MAX_CHARS = 2_000
MAX_LOOKS = 2_000  # of the confidence sequence: more take long and show no more
NUM_RISKS = 60


@dataclass(frozen=True, slots=True)
class Told:
    """What the page may tell besides the verdict: texts by request id, and the teacher's price."""

    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    answers: Sequence[Mapping[str, Any]] = ()
    usd_per_request: float | None = None
    live: str = ""  # what its routes have saved so far, in words
    voided: str = ""  # that it no longer holds, in words


def report_page(verdict: Verdict, rows: Sequence[Judged], told: Told | None = None) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    told = told or Told()
    drawn = draw_one_per_unit(row for row in rows if row.split == "certify")
    pages = Environment(
        loader=PackageLoader("ownweights.verdict.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("page.html").render(
        verdict=verdict,
        sentence=sentence(verdict),
        voided=told.voided,
        warnings=request_warnings(verdict),
        teacher=teacher_line(verdict.subject),
        leaks=verdict.risks.leaks() if verdict.risks else (),
        sections=verdict.risks.sections() if verdict.risks else (),
        funnel=_funnel(verdict, drawn),
        evidence=_evidence_chart(verdict, drawn),
        risks=_risk_chart(verdict, drawn),
        paired=[_paired(verdict, one, rows) for one in verdict.paired],
        calibration=_calibration_chart(verdict),
        failing=[one for one in verdict.slices if one.is_failing],
        pairs=_pairs(verdict, drawn, told),
        has_answers=bool(told.answers),
        savings=_savings(verdict, told),
        live=told.live,
    )


def _funnel(verdict: Verdict, drawn: Sequence[Judged]) -> list[dict[str, Any]]:
    """How many certify units come through each gate."""
    answered = [row for row in drawn if row.status == ANSWERED]
    served = _served(verdict, answered)
    steps = [
        ("independent units drawn from certify", len(drawn)),
        ("that the student may answer as asked", _count(drawn, ANSWERED) + _count(drawn, FAILED)),
        ("that it answered in time", len(answered)),
        ("sure enough to be served", len(served)),
        ("served without harm", sum(row.counted_harm == 0 for row in served)),
    ]
    most = max(1, len(drawn))
    return [{"name": name, "num": num, "percent": 100 * num / most} for name, num in steps]


def _evidence_chart(verdict: Verdict, drawn: Sequence[Judged]) -> str | None:
    """The share of harm among those served, with bounds that hold at every look."""
    harms = np.array([row.counted_harm for row in _served(verdict, drawn)][:MAX_LOOKS])
    if not len(harms):
        return None
    lower, upper = (-bound for bound in reversed(confidence_sequence(-harms, verdict.claim.delta)))
    looks = np.arange(1, len(harms) + 1)
    means = np.cumsum(harms) / looks
    top = min(1.0, max(4 * verdict.claim.beta, 2 * float(means[-1])))
    band = [*zip(looks, upper, strict=True), *reversed([*zip(looks, lower, strict=True)])]
    beta = verdict.claim.beta
    return draw_chart(
        Axes("units served, in hash order", "share that came to harm", float(len(harms)), top),
        [
            Series("bounds that hold at every look", "band", _floats(band)),
            Series("share so far", "line", _floats(zip(looks, means, strict=True))),
            Series("limit beta", "limit", [(0.0, beta), (float(len(harms)), beta)]),
        ],
        title="Harm among those served, as evidence gathered",
    )


def _risk_chart(verdict: Verdict, drawn: Sequence[Judged]) -> str | None:
    """Harm among those served, at every coverage that a threshold could have given."""
    found = sorted((row for row in drawn if math.isfinite(row.score)), key=lambda row: -row.score)
    if not found or not drawn:
        return None
    harms = np.cumsum([row.counted_harm for row in found])
    counts = np.unique(np.linspace(1, len(found), NUM_RISKS).round().astype(int))
    places = [(int(count), float(harms[count - 1])) for count in counts]
    n, beta = len(drawn), verdict.claim.beta
    bounds = [(k / n, *clopper_pearson_interval(round(h), k, 0.05)) for k, h in places]
    band = [(x, high) for x, _, high in bounds] + [(x, low) for x, low, _ in reversed(bounds)]
    top = min(1.0, max(4 * beta, 1.5 * float(harms[-1]) / len(found)))
    series = [
        Series("95 % interval at each coverage alone", "band", band),
        Series("harm among those served", "line", [(k / n, h / k) for k, h in places]),
        Series("limit beta", "limit", [(0.0, beta), (1.0, beta)]),
    ]
    if verdict.issued and verdict.n_served:
        at = (verdict.coverage_frac, verdict.harms / verdict.n_served)
        series.append(Series("deployed", "mark", [at]))
    axes = Axes("coverage: share of all units served", "share that came to harm", 1.0, top)
    return draw_chart(axes, series, title="Coverage against risk")


def _paired(verdict: Verdict, one: PairedClaim, rows: Sequence[Judged]) -> dict[str, Any]:
    """An optional claim: its words, and the mean difference with bounds that hold at every look."""
    usable = slice_of(paired_rows(rows, one.name), verdict.threshold)
    found = np.array([difference_of(row, one.name) for row in usable][:MAX_LOOKS])
    if not len(found):
        return {"claim": one, "sentence": paired_sentence(one), "chart": None}
    lower, upper = confidence_sequence(found, one.delta)
    looks = np.arange(1, len(found) + 1)
    band = [*zip(looks, upper, strict=True), *reversed([*zip(looks, lower, strict=True)])]
    means, end = np.cumsum(found) / looks, float(len(found))
    reach = min(1.0, max(3 * one.margin, -1.5 * float(lower[-1]), 1.5 * float(upper[-1])))
    name = f"units {one.among}, in hash order"
    chart = draw_chart(
        Axes(name, "student - teacher", end, reach, -reach),
        [
            Series("bounds that hold at every look", "band", _floats(band)),
            Series("mean difference so far", "line", _floats(zip(looks, means, strict=True))),
            Series("margin", "limit", [(0.0, -one.margin), (end, -one.margin)]),
        ],
        title=f"Claim {one.name}, as evidence gathered",
    )
    return {"claim": one, "sentence": paired_sentence(one), "chart": chart}


def _calibration_chart(verdict: Verdict) -> str | None:
    """What develop promised for the score, against what certify showed; dashed where they agree."""
    table = sorted(verdict.calibration, key=lambda one: one.predicted)
    if len(table) < 2:
        return None
    seen = [(one.predicted, one.harms / one.n) for one in table]
    band = [(one.predicted, one.high) for one in table]
    band += [(one.predicted, one.low) for one in reversed(table)]
    right = min(1.0, max(0.05, 1.1 * table[-1].predicted))
    top = min(1.0, max(right, 1.1 * max(share for _, share in seen)))
    end = min(right, top)
    series = [
        Series("95 % interval of each range alone", "band", band),
        Series("share of harm seen", "line", seen),
        Series("seen as predicted", "limit", [(0.0, 0.0), (end, end)]),
    ]
    axes = Axes("predicted share of harm", "share that came to harm", right, top)
    return draw_chart(axes, series, title="Predicted harm against harm seen")


def _pairs(verdict: Verdict, drawn: Sequence[Judged], told: Told) -> list[dict[str, Any]]:
    """Served answers that came to harm, beside the teacher's; the surest first."""
    known = {answer["id"]: answer for answer in told.answers}
    harmed = [row for row in _served(verdict, drawn) if row.counted_harm > 0 and row.id in known]
    harmed.sort(key=lambda row: -row.score)
    return [
        {
            "id": row.id,
            "score": row.score,
            "harm": row.harm,
            "prompt": _cut(told.prompts.get(row.id, "")),
            "student": _cut(known[row.id]["answer"] or ""),
            "teacher": [_cut(text) for text in known[row.id]["references"]],
        }
        for row in harmed[:MAX_PAIRS]
    ]


def _savings(verdict: Verdict, told: Told) -> dict[str, Any] | None:
    """What the teacher is no longer asked, of a thousand requests; None for a refusal."""
    if not verdict.issued:
        return None
    shares = {"num": verdict.coverage_frac, "low": verdict.coverage_low,
              "high": verdict.coverage_high}  # fmt: skip
    if by := verdict.by_request:
        shares["as_came"] = by.coverage_frac
        if by.coverage_low is not None and by.coverage_high is not None:
            shares |= {"as_came_low": by.coverage_low, "as_came_high": by.coverage_high}
    found = {name: 1000 * share for name, share in shares.items()}
    price = told.usd_per_request
    usd = None if price is None else {name: price * num for name, num in found.items()}
    return {**found, "usd": usd, "usd_before": None if price is None else 1000 * price}


def _served(verdict: Verdict, rows: Sequence[Judged]) -> list[Judged]:
    """Those at or above the threshold deployed; for a refusal, all that were answered."""
    least = -math.inf if verdict.threshold is None else verdict.threshold
    return [row for row in rows if row.status == ANSWERED and row.score >= least]


def _count(rows: Sequence[Judged], status: str) -> int:
    assert status in (ANSWERED, FAILED, INELIGIBLE), f"{status!r} is no status"
    return sum(row.status == status for row in rows)


def _floats(points: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … ({len(text):,} characters)"
