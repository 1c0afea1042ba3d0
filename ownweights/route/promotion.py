"""From a certificate to the route it licenses; from a refusal to nothing.

In: a verdict's id. Out: a Route, written and active. Invariant: only a verdict that was issued, of
a student and a dataset that are still there, becomes a route (test_promote_refusal_is_refused).
"""

from __future__ import annotations

from ownweights.core.artefact import open_artefact
from ownweights.core.errors import EXIT_REFUSED, ArtefactError, OwnError
from ownweights.core.project import Project
from ownweights.dataset.load import load_dataset
from ownweights.route.route import DEFAULT_TIMEOUT_S, Route, activate, write_route

MAX_PROMPT_HASHES = 64  # more are no fixed parts but prompts that change with every request


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
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_prompt_tokens: int | None = None,
    reason: str = "promoted",
) -> Route:
    """Send a workload's requests by what the certificate `verdict_id` licenses.

    Raises: NotCertified for a refusal, ArtefactError when student or dataset are gone or changed
    """
    route = licensed_route(
        project, verdict_id, timeout_s=timeout_s, max_prompt_tokens=max_prompt_tokens
    )
    known = write_route(project, route)
    return activate(project, known.workload, known.id, reason=reason)


def licensed_route(
    project: Project, verdict_id: str, *, timeout_s: float, max_prompt_tokens: int | None
) -> Route:
    """The route that a certificate licenses, not yet on disk."""
    from ownweights.verdict.store import load_verdict  # loads scipy, which serving never needs

    verdict = load_verdict(project, verdict_id)
    if not verdict.issued:
        raise NotCertified(
            f"verdict {verdict.id} is a refusal: {'; '.join(verdict.reasons) or 'no reason given'}",
            reasons=verdict.reasons,
            hint="everything stays with the teacher; gather more traffic or train a better student",
        )
    if verdict.threshold is None:
        raise ArtefactError(f"certificate {verdict.id} has no threshold")
    subject = verdict.subject
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
        timeout_s=timeout_s,
        max_prompt_tokens=max_prompt_tokens,
    )
