"""Worlds of known truth: scores are uniform, and the harm of a request is a function of its score.

A threshold t then serves a share 1 - t, and both risks at it are integrals over the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ownweights.verdict.statistics import Limits

GRID = np.linspace(0.0, 1.0, 20_001)
JUST_ABOVE = 1.001


@dataclass(frozen=True)
class World:
    """P(harm | score), and the two true risks at any threshold."""

    harm: Callable[[np.ndarray], np.ndarray]

    def draw(self, rng, n):
        scores = rng.random(n)
        return scores, (rng.random(n) < self.harm(scores)).astype(np.float64)

    def risks(self, threshold):
        served = GRID[threshold <= GRID]
        mean = float(self.harm(served).mean())
        return mean * (1.0 - threshold), mean

    def breaks(self, threshold, limits):
        if threshold is None:
            return False
        risk_all, risk_served = self.risks(threshold)
        return risk_all > limits.alpha or risk_served > limits.beta


INFORMATIVE = World(lambda s: 0.6 * (1.0 - s) ** 2)  # harm .2 over all requests
USELESS = World(lambda s: np.full_like(s, 0.30))
ALWAYS_WRONG = World(np.ones_like)
ANTI_INFORMATIVE = World(lambda s: 0.25 * s)  # surer when wrong


def least_favourable_served(limits: Limits) -> World:
    """A random score, harm a hair above beta at every threshold: each one certified is wrong."""
    return World(lambda s: np.full_like(s, limits.beta * JUST_ABOVE))


def least_favourable_all(limits: Limits) -> World:
    """Just within beta down to the coverage at which alpha breaks, and harmful below it."""
    rate = limits.beta / JUST_ABOVE
    edge = 1.0 - limits.alpha / rate
    return World(lambda s: np.where(s >= edge, rate, 1.0))
