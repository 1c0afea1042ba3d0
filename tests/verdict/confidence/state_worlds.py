"""Made-up students whose prompt states say something about harm, or nothing, or only by heart."""

from __future__ import annotations

import numpy as np

from ownweights.core.chat import Completion, Features

WIDTH = 24


def features(
    logprob: float, state: np.ndarray | None = None, agreement: float | None = None
) -> Features:
    """Four tokens, all alike but for the first, and what else is known."""
    logprobs = np.array([logprob, -0.01, -0.01, -0.01], np.float32)
    told = None if state is None else state.astype(np.float32)
    return Features(
        np.arange(4, dtype=np.int32), logprobs, np.full(4, 1.0, np.float32), told, agreement
    )


def answers(
    logprobs: np.ndarray,
    states: np.ndarray | None = None,
    agreements: np.ndarray | None = None,
) -> list[Completion | None]:
    """One whole answer a row."""
    return [
        Completion("a", "stop", features=features(
            float(logprob), None if states is None else states[i],
            None if agreements is None else float(agreements[i]),
        ))
        for i, logprob in enumerate(logprobs)
    ]  # fmt: skip


def draw_states(rng, n: int, *, width: int = WIDTH) -> np.ndarray:
    """States whose spread falls from dimension to dimension, turned, far from the origin."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]
    return rng.normal(size=(n, width)) * 0.8 ** np.arange(width) @ turn + 5.0


def harms_along(rng, states: np.ndarray, strength: float) -> np.ndarray:
    """Harm whose log-odds follow the states' widest direction by so much; 0: no matter what."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(states.shape[1],) * 2))[0]
    along = (states - 5.0) @ turn[0]
    return (rng.random(len(states)) < 1 / (1 + np.exp(1.0 - strength * along))).astype(np.float64)


def units(n: int) -> list[str]:
    return [f"unit {i}" for i in range(n)]
