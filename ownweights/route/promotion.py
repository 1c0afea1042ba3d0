"""From a certificate to the route it licenses; from a refusal to nothing.

In: a verdict's id. Out: a Route, written and active. Invariant: only a verdict that was issued, of
a student and a dataset that are still there, becomes a route (test_promote_refusal_is_refused); and
the route waits for an answer as long as the verdict did, for a later one was counted as a loss
(test_promote_waits_as_long_as_was_certified).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ownweights.core.artefact import open_artefact
from ownweights.core.errors import EXIT_REFUSED, ArtefactError, OwnError
from ownweights.core.project import Project
from ownweights.dataset.load import load_dataset
from ownweights.route.rollout import Stage
from ownweights.route.route import DEFAULT_TIMEOUT_S, JUDGE, Route, activate, write_route
from ownweights.verdict.voiding import void_reason

if TYPE_CHECKING:
    from ownweights.verdict.certificate import Verdict
    from ownweights.verdict.judged import Judged

MAX_PROMPT_HASHES = 64  # more are no fixed parts but prompts that change with every request


MIN_FOR_NEAR = 20  # served certify answers; with fewer, all are audited alike


@dataclass(frozen=True, slots=True)
class RouteTerms:
    """How a certificate is put to use: none of it changes what was certified."""

    timeout_s: float = DEFAULT_TIMEOUT_S  # no less than was certified; more is cut to that
    max_prompt_tokens: int | None = None
    audit_frac: float = 0.02
    run_length: float = 10_000.0


class NotCertified(OwnError, PermissionError):
    """The verdict refuses to replace the teacher, for `reasons`."""

    exit_code = EXIT_REFUSED

    def __init__(
        self, what: str, *, reasons: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.reasons = reasons


def promote(
    project: Project,
    verdict_id: str,
    *,
    terms: RouteTerms | None = None,
    stage: Stage = "served",
    reason: str = "promoted",
) -> Route:
    """Send a workload's requests by what the certificate `verdict_id` licenses, from `stage` on.

    Raises: NotCertified for a refusal or a certificate that is void, ArtefactError when student or
    dataset are gone or changed
    """
    known = write_route(project, licensed_route(project, verdict_id, terms or RouteTerms()))
    return activate(project, known.workload, known.id, reason=reason, stage=stage)


def check_not_void(project: Project, verdict_id: str) -> None:
    """Raises: NotCertified when the certificate no longer holds."""
    voided = void_reason(project, verdict_id)
    if voided is not None:
        raise NotCertified(
            f"certificate {verdict_id} is void: {voided.reason}",
            reasons=(voided.reason,),
            hint="certify again on fresh traffic; what was found against it stays found",
        )


def licensed_route(project: Project, verdict_id: str, terms: RouteTerms) -> Route:
    """The route that a certificate licenses, not yet on disk.

    Raises: NotCertified for a refusal, a certificate that is void, or one that gave answers more
    time than `terms` do; SettingsError where a file that its check reads is gone or changed
    """
    from ownweights.verdict.checks import check_named
    from ownweights.verdict.store import (
        check_signed,
        load_rows,
        load_verdict,
    )  # scipy: not to serve

    verdict = load_verdict(project, verdict_id)
    check_signed(project, verdict.id)
    if not verdict.issued:
        raise NotCertified(
            f"verdict {verdict.id} is a refusal: {'; '.join(verdict.reasons) or 'no reason given'}",
            reasons=verdict.reasons,
            hint="everything stays with the teacher; gather more traffic or train a better student",
        )
    if verdict.threshold is None:
        raise ArtefactError(f"certificate {verdict.id} has no threshold")
    check_not_void(project, verdict.id)
    subject = verdict.subject
    if not subject.judge:
        check_named(subject.check, project.root)  # audits need the files that it was certified with
    rows, _ = load_rows(project, verdict.id)
    open_artefact(project.kind_dir("student"), subject.student, "student", verify=True)
    dataset = load_dataset(project, subject.dataset)
    hashes: list[str] = dataset.card["facts"].get("prompt_hashes", [])
    return Route(
        workload=subject.workload,
        student_id=subject.student,
        verdict_id=verdict.id,
        threshold=verdict.threshold,
        confidence=subject.confidence,
        prompt_hashes=tuple(hashes) if len(hashes) <= MAX_PROMPT_HASHES else (),
        prune=None if dataset.prune is None else dataset.prune.to_json(),
        decoding=subject.decoding,
        timeout_s=_timeout_s(verdict, terms),
        max_prompt_tokens=terms.max_prompt_tokens,
        check=JUDGE if subject.judge else subject.check,
        alpha=verdict.claim.alpha,
        beta=verdict.claim.beta,
        delta=verdict.claim.delta,
        near=_near(rows, verdict.threshold),
        audit_frac=terms.audit_frac,
        run_length=terms.run_length,
    )


def _timeout_s(verdict: Verdict, terms: RouteTerms) -> float:
    """What each answer had in the verdict. Raises: NotCertified where the terms give less."""
    certified_s, name = verdict.subject.timeout_s, verdict.subject.workload
    if terms.timeout_s >= certified_s:
        return certified_s
    reason = f"its answers had {certified_s:g} s each, this route would wait {terms.timeout_s:g} s"
    raise NotCertified(
        f"certificate {verdict.id} does not hold for this route: {reason}",
        reasons=(reason,),
        hint=f"set timeout_s = {certified_s:g} in [route.{name}], or certify again: it takes the"
        " route's time-out unless --timeout-s says otherwise",
    )


def _near(rows: Iterable[Judged], threshold: float) -> float | None:
    """The score below which the least sure quarter of the served certify answers lies."""
    served = sorted(r.score for r in rows if r.split == "certify" and r.score >= threshold)
    return served[len(served) // 4] if len(served) >= MIN_FOR_NEAR else None
