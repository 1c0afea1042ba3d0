"""Routes, answers and verdicts made up for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ownweights.core.artefact import Artefact, draft_folder, seal
from ownweights.core.chat import Completion, Features, Usage
from ownweights.core.project import Project
from ownweights.dataset.prune import PruneRule, system_hash
from ownweights.route import Route, activate, write_route
from ownweights.verdict import Claim, Confidence, Subject, Verdict
from ownweights.verdict.store import write_verdict

STUDENT = "abcdefabcdef"
SYSTEM = {"role": "system", "content": "Answer in one word."}
GATE = Confidence("gate", weights=(1.0, 0.0), scale=(2.0,), bias=-1.0).to_dict()
CONFIDENCE = {"kind": "mean_logprob", "answers": "text"}


def route_of(**fields: Any) -> Route:
    """A route that serves answers whose tokens have a mean logprob of at least -0.5."""
    plain: dict[str, Any] = {
        "workload": "tickets", "student_id": STUDENT, "verdict_id": "fedcbafedcba",
        "threshold": -0.5, "confidence": CONFIDENCE,
    }  # fmt: skip
    return Route(**{**plain, **fields})


def follow(project: Project, **fields: Any) -> Route:
    """A route that is written and active."""
    route = write_route(project, route_of(**fields))
    return activate(project, route.workload, route.id)


def body_of(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A request that any student may answer."""
    return {"model": "gpt-x", "messages": [{"role": "user", "content": text}], **fields}


def answer_of(
    text: str | None = "yes", *, logprob: float = -0.1, reason: str = "stop"
) -> Completion:
    """A student's answer whose three tokens all have the same logprob."""
    features = Features(
        np.arange(3, dtype=np.int32),
        np.full(3, logprob, np.float32),
        np.full(3, 1.0, np.float32),
    )
    return Completion(text, reason, "student", Usage(5, 3), features)


def read_of(state: float) -> Features:
    """What a student knows once it has read a prompt; GATE scores it twice `state` less 1."""
    nothing = np.zeros(0, np.float32)
    return Features(np.zeros(0, np.int32), nothing, nothing, np.array([state, 7.0], np.float32))


def drop_rule() -> dict[str, Any]:
    """The rule of a dataset whose system prompt the student does not see."""
    known = system_hash([SYSTEM])
    assert known is not None
    return PruneRule(known, drops_system=True).to_json()


def make_artefact(project: Project, kind: str, **card: Any) -> Artefact:
    """An artefact with one file in it."""
    with draft_folder(project.kind_dir(kind)) as draft:
        (draft / "file.txt").write_text(json.dumps(card))
        return seal(draft, kind, identity=card.get("identity", {}), facts=card.get("facts"))


def make_verdict(project: Project, *, issued: bool = True, **subject: Any) -> Verdict:
    """A verdict on disk, with the student and the dataset it is about."""
    student = make_artefact(project, "student")
    dataset = make_artefact(
        project, "dataset",
        identity={"workload": "tickets", "split_by": "prompt", "prune": drop_rule()},
        facts={"prompt_hashes": ["aaaa", "bbbb"]},
    )  # fmt: skip
    plain: dict[str, Any] = {
        "workload": "tickets", "student": student.id, "dataset": dataset.id,
        "confidence": CONFIDENCE, "decoding": {"max_tokens": 64}, "timeout_s": 2.5,
    }  # fmt: skip
    verdict = Verdict(
        issued=issued, claim=Claim(), subject=Subject(**{**plain, **subject}), attempt=1,
        delta_spent=0.03, n=500, n_served=400, harms=3.0, losses=0, unjudged=0, ineligible=0,
        num_used=0, p_all=0.01, p_served=0.01, threshold=-0.25 if issued else None,
        coverage_frac=0.8, coverage_low=0.76, coverage_high=0.84, method="test",
        assumptions=(), expires=(), reasons=() if issued else ("too few units",),
    )  # fmt: skip
    return write_verdict(project, verdict, [])


def route_file(project: Project, route_id: str) -> Path:
    """Where a route is."""
    return project.kind_dir("route") / f"{route_id}.toml"
