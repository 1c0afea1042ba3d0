"""What the teacher answered before to the request that is audited.

In: a route and a request. Out: the answers recorded for the same request in the dataset that the
route's certificate was issued on; none where there are none. An audit is harm only if the answer
fails these, as in the certificate, and the fresh one
(test_audit_knows_the_answers_that_were_certified_against). A dataset that is gone or changed is
told once; audits then go by the fresh answer alone, which finds more harm, never less
(test_audit_without_its_dataset_goes_by_the_fresh_answer).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ownweights.core.artefact import open_artefact
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.dataset.load import load_dataset
from ownweights.dataset.recorded import RecordedAnswers
from ownweights.route import Route

log = logging.getLogger("ownweights.gateway")


class References:
    """Recorded answers by certificate; a dataset is read when one of them is first wanted."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._known: dict[str, RecordedAnswers | None] = {}
        self._lock = asyncio.Lock()  # one thread reads, however many audits wait

    async def of(self, route: Route, request: Mapping[str, Any]) -> tuple[str, ...]:
        """The answers recorded for this request."""
        async with self._lock:
            return await asyncio.to_thread(self._find, route, request)

    def _find(self, route: Route, request: Mapping[str, Any]) -> tuple[str, ...]:
        name = route.verdict_id
        try:
            if name not in self._known:
                self._known[name] = self._read(name)
            answers = self._known[name]
            return () if answers is None else answers.of(request)
        except (ArtefactError, OSError) as error:
            self._known[name] = None
            log.warning("route %s: its audits know no recorded answers: %s", route.id, error)
            return ()

    def _read(self, verdict_id: str) -> RecordedAnswers:
        """The answers of the dataset that a verdict was issued on, as they were then."""
        verdict = open_artefact(self._project.kind_dir("verdict"), verdict_id, "verdict")
        dataset_id = str(verdict.card["parents"].get("dataset", ""))
        return RecordedAnswers(load_dataset(self._project, dataset_id, verify=True))
