"""Stage 4: is the student good enough? Checks, confidence, and a certificate or a refusal.

The names that need scipy are loaded when first used, because the gateway scores every answer with
`Confidence` and should not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ownweights.verdict.certificate import Claim, Examples, Slice, Subject, Verdict
from ownweights.verdict.checks import Check, check_named, choose_check
from ownweights.verdict.confidence import Confidence, tune_confidence
from ownweights.verdict.judged import Judged

if TYPE_CHECKING:
    from ownweights.verdict.decision import Spend, certify
    from ownweights.verdict.report import report_text
    from ownweights.verdict.run import run_verdict, run_verdict_async
    from ownweights.verdict.store import list_verdicts, load_verdict, verify_verdict
    from ownweights.verdict.trial import RunOptions

__all__ = [
    "Check",
    "Claim",
    "Confidence",
    "Examples",
    "Judged",
    "RunOptions",
    "Slice",
    "Spend",
    "Subject",
    "Verdict",
    "certify",
    "check_named",
    "choose_check",
    "list_verdicts",
    "load_verdict",
    "report_text",
    "run_verdict",
    "run_verdict_async",
    "tune_confidence",
    "verify_verdict",
]

_LAZY = {
    "RunOptions": "trial",
    "Spend": "decision",
    "certify": "decision",
    "list_verdicts": "store",
    "load_verdict": "store",
    "report_text": "report",
    "run_verdict": "run",
    "run_verdict_async": "run",
    "verify_verdict": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
