"""Redaction: what is personal or secret is taken out before anything is written.

Record ─▶ body (its texts) ─▶ find (spans) ─▶ placeholder (keyed names) ─▶ Record
"""

from ownweights.traffic.redact.find import find_spans
from ownweights.traffic.redact.placeholder import Placeholders
from ownweights.traffic.redact.privacy import Privacy, PrivacyRules, kinds_of
from ownweights.traffic.redact.recogniser import load_recogniser
from ownweights.traffic.redact.redactor import Redactor
from ownweights.traffic.redact.span import KINDS, PATTERN_KINDS, Span

__all__ = [
    "KINDS",
    "PATTERN_KINDS",
    "Placeholders",
    "Privacy",
    "PrivacyRules",
    "Redactor",
    "Span",
    "find_spans",
    "kinds_of",
    "load_recogniser",
]
