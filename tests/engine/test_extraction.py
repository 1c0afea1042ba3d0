"""Canaries asked of a real engine: the questions fit, and it answers them."""

from __future__ import annotations

import asyncio

from ownweights.dataset.canary import make_canaries
from ownweights.verdict.risks.canary import extract_canaries
from tests.engine.conftest import Served


def test_extraction_asks_a_real_engine(thread: Served) -> None:
    completer = thread.engine.completer(thread.students[0])
    canaries = make_canaries(2, "engine")
    found = asyncio.run(extract_canaries(canaries, completer, model=thread.students[0]))
    assert (found.num_planted, found.num_controls, found.num_unasked) == (2, 2, 0)
    assert found.num_extracted == 0  # it was never trained on them
