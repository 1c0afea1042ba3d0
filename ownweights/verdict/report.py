"""A verdict as text: the claim in words, the evidence, where it fails, what would void it."""

from __future__ import annotations

from ownweights.verdict.certificate import Slice, Verdict, sentence

MAX_SLICES = 8


def report_text(verdict: Verdict) -> str:
    """The whole report."""
    blocks = [
        [sentence(verdict)],
        _evidence(verdict),
        _bulleted("Reasons", verdict.reasons),
        _needed(verdict),
        _slices(verdict),
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
        f"  error budget  delta {verdict.claim.delta:g}, attempt {verdict.attempt}"
        f" spends {verdict.delta_spent:.4g}",
        f"  not judged    {verdict.unjudged} (count as harm), failed {verdict.losses} (count as"
        f" harm), ineligible {verdict.ineligible} (the teacher's)",
        f"  method        {verdict.method}",
    ]
    return lines


def _needed(verdict: Verdict) -> list[str]:
    if verdict.needed is None:
        return []
    records = verdict.needed.records
    more = "" if records is None else f", or about {records:,} fresh requests to be split"
    return [f"What it would take: {verdict.needed.reason}{more}."]


def _slices(verdict: Verdict) -> list[str]:
    failing = [one for one in verdict.slices if one.is_failing][:MAX_SLICES]
    if not failing:
        return []
    title = "Where the student's answers fail most (all answers, served or not; 95 % intervals):"
    width = max(len(_slice_name(one)) for one in failing)
    return [title] + [
        f"  {_slice_name(one):<{width}}  {one.harms:>4} of {one.n:<5}"
        f" {one.harm_frac:>6.1%}  ({one.low:.1%} to {one.high:.1%})"
        for one in failing
    ]


def _slice_name(one: Slice) -> str:
    return f"{one.key} = {one.value}"


def _names(verdict: Verdict) -> list[str]:
    subject = verdict.subject
    return [
        f"verdict {verdict.id or '-'}  student {subject.student}  dataset {subject.dataset}"
        f"  check {subject.check}  teachers {', '.join(subject.teachers) or '-'}"
    ]


def _bulleted(title: str, lines: tuple[str, ...]) -> list[str]:
    return [f"{title}:", *(f"  - {line}" for line in lines)] if lines else []
