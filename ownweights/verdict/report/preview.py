"""What certifying would take and bring, as lines for a terminal: `own verdict run`."""

from __future__ import annotations

from collections.abc import Sequence

from ownweights.verdict.confidence import Compared
from ownweights.verdict.preview import Preview
from ownweights.verdict.report.text import compared_lines, slice_lines


def preview_text(seen: Preview, compared: Sequence[Compared]) -> str:
    """The preview, the scores that develop chose among, and where the student fails."""
    blocks = [
        ["Before anything is spent, as far as develop can tell:", *_table(seen)],
        compared_lines([one.to_dict() for one in compared]),
        slice_lines(seen.slices),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(seen: Preview) -> list[str]:
    answers = f"{seen.num_answered:,} of {seen.num_develop:,} requests answered"
    rows = (
        ("develop", f"{answers}, {seen.harm_frac:.1%} of the answers came to harm"),
        ("ledger", seen.attempt_in_words()),
        ("certify", f"{seen.n:,} units for this attempt, {seen.num_used:,} used by others"),
        ("to expect", seen.outlook()),
        ("needed", seen.needs()),
    )
    return [f"  {name:<9}  {text}" for name, text in rows]
