"""A verdict as text: the claim in words, the evidence, where it fails, what would void it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownweights.verdict.certificate import (
    PairedClaim,
    Slice,
    Subject,
    Verdict,
    request_warnings,
    sentence,
)

MAX_SLICES = 8


def report_text(verdict: Verdict, voided: str = "") -> str:
    """The whole report; `voided` says that it no longer holds, where that is so."""
    blocks = [
        [voided] if voided else [],
        [sentence(verdict)],
        request_warnings(verdict),
        verdict.risks.leaks() if verdict.risks else [],
        _evidence(verdict),
        _bulleted("Reasons", verdict.reasons),
        _needed(verdict),
        _judge(verdict),
        _paired(verdict),
        compared_lines(verdict.subject.compared),
        _calibration(verdict),
        slice_lines(verdict.slices),
        *_risks(verdict),
        _bulleted("This assumes", verdict.assumptions),
        _bulleted("Void when", verdict.expires),
        _names(verdict),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _evidence(verdict: Verdict) -> list[str]:
    at = "at the deployed threshold" if verdict.issued else "at the first threshold"
    harm_served = f"{verdict.harms:g} of {verdict.n_served} served"
    harm_all = f"{verdict.harms + verdict.losses:g} of {verdict.n} in all"
    lines = [f"Evidence {at}, from {verdict.n} independent certify units:"]
    if verdict.issued:
        lines.append(
            f"  coverage      {verdict.coverage_frac:.1%}"
            f"  (95 % interval {verdict.coverage_low:.1%} to {verdict.coverage_high:.1%})"
        )
        lines.append(
            f"  threshold     {verdict.threshold:.6g} on {verdict.subject.confidence['kind']}"
        )
    lines += [
        f"  harm, all     {harm_all}  (limit {verdict.claim.alpha:.1%}, p = {verdict.p_all:.3g})",
        f"  harm, served  {harm_served}"
        f"  (limit {verdict.claim.beta:.1%}, p = {verdict.p_served:.3g})",
        *_by_request(verdict),
        f"  error budget  delta {verdict.claim.delta:g}, attempt {verdict.attempt}"
        f" spends {verdict.delta_spent:.4g}",
        f"  not judged    {verdict.unjudged} (count as harm), failed {verdict.losses} (count as"
        f" harm), ineligible {verdict.ineligible} (the teacher's)",
        f"  method        {verdict.method}",
    ]
    return lines


def _by_request(verdict: Verdict) -> list[str]:
    found = verdict.by_request
    if found is None:
        return []
    interval = ""
    if found.coverage_low is not None and found.coverage_high is not None:
        interval = f" (95 % interval {found.coverage_low:.1%} to {found.coverage_high:.1%})"
    return [
        "  by request    as often as each came (measured, not certified):"
        f" {found.coverage_frac:.1%} of {found.n:,} served{interval}, harm"
        f" {found.harm_all_frac:.1%} of all and {found.harm_served_frac:.1%} of those served"
    ]


def _needed(verdict: Verdict) -> list[str]:
    if verdict.needed is None:
        return []
    records = verdict.needed.records
    more = "" if records is None else f", or about {records:,} fresh requests to be split"
    return [f"What it would take: {verdict.needed.reason}{more}."]


def _judge(verdict: Verdict) -> list[str]:
    """Who judged, how that was checked, and what people would say."""
    judge = verdict.subject.judge
    if not judge:
        return []
    first = f"Judged by {judge['model']} ({judge['name']}): prompt {judge['prompt']}, rubric"
    lines = [f"{first} {judge['rubric']}, answered by {', '.join(judge['answered_by'])}"]
    told = [f"{one['name']} {one['errors']}/{one['readable']}" for one in judge["probes"]]
    lines.append(f"  probes        {', '.join(told)} errors; all within their limits")
    bias = judge["bias"]
    link = "unknown" if bias["length_link"] is None else f"{bias['length_link']:+.2f}"
    lines.append(
        f"  bias          first place chosen {bias['first']} of {bias['decided']} times, orders"
        f" disagree on {bias['undecided']} of {bias['pairs']} pairs, link of length and winning"
        f" {link}"
    )
    if agreement := judge.get("agreement"):
        seen = agreement["confusion"]
        lines.append(
            f"  beside people {agreement['labelled']} labels: sees {seen['true_yes']} of"
            f" {seen['true_yes'] + seen['false_no']} harms, imagines {seen['false_yes']} in"
            f" {seen['true_no'] + seen['false_yes']}; kappa {_number(agreement['kappa'])};"
            f" {agreement.get('unsaid', 0)} more could not be said"
        )
    if found := verdict.corrected:
        lines.append(
            f"  harm of all answers  {found.judged_frac:.1%} by the judge, {found.value:.1%} by"
            f" people (estimate; 95 % interval {found.low:.1%} to {found.high:.1%})"
        )
    return lines


def paired_sentence(one: PairedClaim) -> str:
    """An optional claim in words, and whether it is proved."""
    points = f"{100 * one.margin:.3g}"
    said = {
        "C": f"the student's answers are worth no less than the teacher's minus {points} points",
        "D": "the student differs from the teacher's answer at most"
        f" {points} points more often than a second answer of the teacher does",
    }[one.name]
    word = {"not_worse": "proved", "worse": "refused", "undecided": "not proved",
            "says_nothing": "says nothing"}[one.conclusion]  # fmt: skip
    return f"{said}: {word}"


def _paired(verdict: Verdict) -> list[str]:
    """Claims C and D, with what they rest on."""
    if not verdict.paired:
        return []
    lines = ["Claimed besides:"]
    for one in verdict.paired:
        lines.append(f"  {one.name}  {paired_sentence(one)}")
        if one.conclusion != "not_worse":
            lines.append(f"     {one.reason}{_units(one)}")
        lines.append(
            f"     {one.n} units {one.among}: better {one.better}, worse {one.worse}, mean"
            f" difference {one.mean:+.4f} (sequence {one.low:+.3f} to {one.high:+.3f})"
        )
        if one.teacher_frac is not None and one.student_frac is not None:
            lines.append(
                f"     differs from the teacher's first answer: the teacher's second"
                f" {one.teacher_frac:.1%}, the student's {one.student_frac:.1%}"
            )
        tango = "" if one.tango is None else f"; Tango's p = {one.tango:.3g} certifies nothing"
        lines.append(
            f"     p = {one.p_value:.3g}, of the opposite {one.p_worse:.3g} (limit"
            f" {one.delta:.3g}, {one.num_tests} slices tested){tango}"
        )
    return lines


def _units(one: PairedClaim) -> str:
    needed = one.conclusion == "undecided" and one.units is not None
    return f"; about {one.units:,} units like these would prove it" if needed else ""


def compared_lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which score was chosen among which, and what each would cost."""
    if not table:
        return []
    title = "Scores compared on develop (mean harm among the surest: smaller sorts better):"
    return [title] + [
        f"  {one['kind']:<13}  {one['area']:.4f}  calls {one['calls']}, tokens before the first"
        f" is sent {one['wait_tokens']:.0f}{'  (chosen)' if one['is_chosen'] else ''}"
        for one in table
    ]


def _calibration(verdict: Verdict) -> list[str]:
    if not verdict.calibration:
        return []
    title = "Harm by score (predicted by develop, seen on certify; 95 % intervals):"
    return [title] + [
        f"  {one.score_low:>9.4g} to {one.score_high:<9.4g}  predicted {one.predicted:>6.1%}"
        f"  seen {one.harms:g} of {one.n}  {one.harms / one.n:>6.1%}"
        f"  ({one.low:.1%} to {one.high:.1%})"
        for one in verdict.calibration
    ]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def slice_lines(slices: Sequence[Slice]) -> list[str]:
    """The parts of the traffic where most harm is done."""
    failing = [one for one in slices if one.is_failing][:MAX_SLICES]
    if not failing:
        return []
    title = "Where the student's answers fail most (all answers, served or not; 95 % intervals):"
    width = max(len(_slice_name(one)) for one in failing)
    return [title] + [
        f"  {_slice_name(one):<{width}}  {one.harms:>4} of {one.n:<5}"
        f" {one.harm_frac:>6.1%}  ({one.low:.1%} to {one.high:.1%})"
        for one in failing
    ]


def _risks(verdict: Verdict) -> list[list[str]]:
    """Private data and refusals; a verdict from before they were looked at says so."""
    if verdict.risks is None:
        return [["Private data and refusals were not looked at."]]
    return [
        [f"{title}:", *(f"  {line}" for line in lines)] for title, lines in verdict.risks.sections()
    ]


def _slice_name(one: Slice) -> str:
    return f"{one.key} = {one.value}"


def teacher_line(subject: Subject) -> str:
    """Who the teacher was, and by what a drift of it would be seen."""
    known = subject.teacher_state
    models = ", ".join(known.get("models") or subject.teachers) or "not named"
    if not known:
        return f"model {models}; drift baseline: none taken, `own drift run`"
    prints = ", ".join(known["fingerprints"])
    told = f"system fingerprints {prints}" if prints else "no system fingerprint"
    incident = f", open incident {known['incident']}" if known.get("incident") else ""
    return f"model {models}; {told}; drift baseline {known['baseline']}{incident}"


def _names(verdict: Verdict) -> list[str]:
    subject = verdict.subject
    return [
        f"Teacher: {teacher_line(subject)}",
        f"Each answer had {subject.timeout_s:g} s, and has on a route; a later one is a loss.",
        f"verdict {verdict.id or '-'}  student {subject.student}  dataset {subject.dataset}"
        f"  check {subject.check}  teachers {', '.join(subject.teachers) or '-'}",
    ]


def _bulleted(title: str, lines: tuple[str, ...]) -> list[str]:
    return [f"{title}:", *(f"  - {line}" for line in lines)] if lines else []
