"""How late the event loop takes its turns."""

from __future__ import annotations

import asyncio
import time

import pytest

from ownweights.gateway.watch import lag
from ownweights.gateway.watch.lag import LoopLag


def test_loop_lag_sees_what_blocks_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "EVERY_S", 0.001)
    lags: list[float] = []

    async def block() -> None:
        found = LoopLag(lags.append)
        found.start()
        while not lags:
            await asyncio.sleep(0)
        lags.clear()
        end_s = time.perf_counter() + 0.1
        while time.perf_counter() < end_s:
            continue
        while not lags:
            await asyncio.sleep(0)
        await found.close()

    asyncio.run(block())
    assert max(lags) >= 0.09
