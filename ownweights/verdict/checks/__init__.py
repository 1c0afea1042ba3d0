"""Did the student's answer do harm? Decided by comparing it with what the teacher answered.

In: an answer and the recorded answers to the same request. Out: 0 (no harm), 1 (harm), for a graded
check anything between, or None: could not judge, which is none of them. A certificate counts None
as harm, so that a request that nobody could judge never helps to certify
(test_certify_counts_unjudged_as_harm). An unparsable or empty answer is harm; a request none of
whose references can be read is None (test_every_check_tells_a_bad_answer_from_a_bad_reference).

  exact      the text, NFC-normalised and stripped, equals any of the references
  text       the same after letting go of case, white space, punctuation
  json       the JSON value; field by field, order-free, with tolerances, graded
  tool_call  the functions called, with their arguments
  sql        the rows that the query returns from a given SQLite file
  regex      what a pattern finds, or a pattern in the reference
  numeric    the last number, within a tolerance
  code       the answer passes the tests in the references
  custom     a Python function of yours

A check is named by one text, `json tolerance=0.01 unordered=items`: word, then key=value options.
Its canonical form is what plans and certificates carry; a file that a check reads is in it by its
sha256 (test_check_names_always_read_back).
"""

from __future__ import annotations

from ownweights.verdict.checks.json_value import read_json
from ownweights.verdict.checks.named import Check, NamedCheck, check_word
from ownweights.verdict.checks.registry import CHECKS, check_named, choose_check, describe_checks
from ownweights.verdict.checks.tool_call import judged_text

__all__ = [
    "CHECKS",
    "Check",
    "NamedCheck",
    "check_named",
    "check_word",
    "choose_check",
    "describe_checks",
    "judged_text",
    "read_json",
]
