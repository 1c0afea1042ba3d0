"""Stage 4: is the student good enough? Checks, confidence, and a certificate or a refusal.

Names are loaded when first used: a gateway that starts needs few of them, and no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.verdict.certificate import Claim, Examples, Slice, Subject, Verdict
    from ownweights.verdict.checks import Check, check_named, choose_check
    from ownweights.verdict.confidence import Confidence, tune_confidence
    from ownweights.verdict.decision import Spend, certify
    from ownweights.verdict.judged import Judged
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

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(["Claim", "Examples", "Slice", "Subject", "Verdict"], "certificate"),
        **dict.fromkeys(["Check", "check_named", "choose_check"], "checks"),
        **dict.fromkeys(["Confidence", "tune_confidence"], "confidence"),
        **dict.fromkeys(["Spend", "certify"], "decision"),
        **dict.fromkeys(["list_verdicts", "load_verdict", "verify_verdict"], "store"),
        **dict.fromkeys(["run_verdict", "run_verdict_async"], "run"),
        "Judged": "judged",
        "RunOptions": "trial",
        "report_text": "report",
    },
)
