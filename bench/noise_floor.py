"""Claim D on requests that people answered several times: `make bench NAME=noise_floor`.

Caveats first. The teacher is people, who each wrote one sentence from the same facts, and two
answers are alike where they name the same facts, by a list of words; how they put them is not
compared. There are 481 independent units (prompts that differ in more than digits); `own dataset
build` would give certify 44 of them, which the case `certify alone` is about. All other cases draw
481 units with replacement from these, so that the truth over all of them is known, and one request
and its answers anew in each trial. Needs OWN_TEST_DATA.

Cases, fixed, with the margin m as a share: `person m=...`, a student that answers with what one
more person said: violation is "refused", coverage the share of trials that prove it; `certify alone
m=...`, the same from 44 units; `one pair m=...`, the same comparing two answers a unit, as with a
judge; `stranger m=...`, a student that answers with what was said of other facts: violation is
"proved", coverage the share refused; `border m=...`, a student that is a stranger just so often
that it differs by m more than people do: violation is "proved"; `border naive m=...`, the same
where a z-test is looked at after every unit and believed once; `very words m=...`, the stranger
compared by its very words: violation is "proved", coverage the share that says nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from bench.result import simulation_line
from ownweights.dataset.prompt import first_user_text, prompt_key
from ownweights.verdict.floor import MAX_ANSWERS
from ownweights.verdict.statistics import attempt_delta
from ownweights.verdict.statistics.e_process import not_worse_log_stakes, worse_log_stakes
from tests.dataset.records import real_records
from tests.verdict.describe import study

BENCH = "noise_floor"
PACKAGES = ("numpy", "scipy", "ownweights")
DELTA = attempt_delta(0.05, 1) / 2  # the first attempt's, shared by A with B and D
TRIALS, QUICK_TRIALS = 2000, 200
NUM_CERTIFY = 44
FEW = 20  # a z-test is looked at from this many units on


@dataclass(frozen=True)
class Drawn:
    """Trials of a student: how often a second person and the student differ from a first one.

    Shapes: both (trials, units)
    """

    again: np.ndarray
    student: np.ndarray


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Another person, a stranger, and a student on the border of the claim."""
    folder = os.environ.get("OWN_TEST_DATA")
    if not folder:
        raise SystemExit("set OWN_TEST_DATA to the folder of the public data")
    units, worded = (read_units(Path(folder), by_words=by_words) for by_words in (False, True))
    trials = QUICK_TRIALS if is_quick else TRIALS
    for margin in (0.05, 0.1):
        person = draw(units, trials, seed)
        yield _power("person", margin, person, seed)
        yield _power("one pair", margin, draw(units, trials, seed, num_answers=2), seed)
        stranger = draw(units, trials, seed, strange=1.0)
        yield _line("stranger", margin, stranger, seed, violations=_proved(stranger, margin),
                    covered=_refused(stranger, margin))  # fmt: skip
        border = draw(units, trials, seed, strange=margin / -strange_mean(units))
        yield _line("border", margin, border, seed, violations=_proved(border, margin))
        yield _line("border naive", margin, border, seed, violations=_naive(border, margin))
        words = draw(worded, trials, seed, strange=1.0)
        nothing = ~_tells(words, margin) & ~_refused(words, margin)
        yield _line("very words", margin, words, seed, violations=_proved(words, margin),
                    covered=nothing)  # fmt: skip
    for margin in (0.1, 0.2, 0.3):
        few = draw(units, trials, seed, num_units=NUM_CERTIFY)
        yield _power("certify alone", margin, few, seed)


def read_units(data: Path, *, by_words: bool = False) -> list[list[np.ndarray]]:
    """For each unit its requests, each as one number an answer: equal where the facts (or, by
    words, the texts) are."""
    check = study(data).check
    seen: dict[frozenset[str] | str, int] = {}
    units: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for record in real_records(data, "describe"):
        ask = first_user_text(record.request)
        text = (record.answer_text or "").strip()
        said = text if by_words else check.facts(text)
        units[prompt_key(ask)][ask].append(seen.setdefault(said, len(seen)))
    return [[np.array(said) for said in unit.values() if len(said) > 2] for unit in units.values()]


def draw(
    units: Sequence[Sequence[np.ndarray]],
    trials: int,
    seed: int,
    *,
    strange: float = 0.0,
    num_answers: int = MAX_ANSWERS,
    num_units: int = 0,
) -> Drawn:
    """Trials of a student that answers as one more person or, in a share of units, a stranger."""
    rng = np.random.default_rng(seed)
    usable = [unit for unit in units if unit]
    shape = (trials, num_units or len(usable))
    again, student = np.empty(shape), np.empty(shape)
    drawn = rng.integers(len(usable), size=shape)
    for unit, requests in enumerate(usable):
        at = np.argwhere(drawn == unit)
        asked = rng.integers(len(requests), size=len(at))
        for index, said in enumerate(requests):
            rows, columns = at[asked == index].T
            order = rng.random((len(rows), len(said))).argsort(axis=1)
            mine, others = said[order[:, 0]], said[order[:, 1 : 1 + num_answers]]
            is_strange = rng.random(len(rows)) < strange
            mine = np.where(is_strange, _strangers(usable, unit, len(rows), rng), mine)
            firsts = others if num_answers > 2 else others[:, :1]
            differs = (firsts[:, :, None] != others[:, None, :]).sum(axis=(1, 2))
            again[rows, columns] = differs / (firsts.shape[1] * (others.shape[1] - 1))
            student[rows, columns] = (firsts != mine[:, None]).mean(axis=1)
    return Drawn(again, student)


def strange_mean(units: Sequence[Sequence[np.ndarray]]) -> float:
    """The true mean difference of the stranger, over all units, requests and pairs of answers."""
    usable = [unit for unit in units if unit]
    half = len(usable) // 2
    found: list[float] = []
    for index, unit in enumerate(usable):
        other = usable[index - half]
        gaps = [
            (said[:, None] != said[None, :]).sum() / (len(said) * (len(said) - 1))
            - np.mean([(said[:, None] != strange[None, :]).mean() for strange in other])
            for said in unit
        ]
        found.append(float(np.mean(gaps)))
    return float(np.mean(found))


def _strangers(
    usable: Sequence[Sequence[np.ndarray]], unit: int, num: int, rng: np.random.Generator
) -> np.ndarray:
    """What was said of other facts, a request of theirs and then an answer drawn."""
    other = usable[unit - len(usable) // 2]
    told = np.stack([rng.choice(said, num) for said in other])
    return told[rng.integers(len(other), size=num), np.arange(num)]


def _differences(drawn: Drawn) -> np.ndarray:
    return drawn.again - drawn.student


def _proved(drawn: Drawn, margin: float) -> np.ndarray:
    peaks = not_worse_log_stakes(_differences(drawn), margin).max(axis=1)
    return (peaks >= -np.log(DELTA)) & ~_refused(drawn, margin) & _tells(drawn, margin)


def _tells(drawn: Drawn, margin: float) -> np.ndarray:
    """Where a student that never agrees would be refused."""
    return worse_log_stakes(drawn.again - 1.0, margin).max(axis=1) >= -np.log(DELTA)


def _refused(drawn: Drawn, margin: float) -> np.ndarray:
    return worse_log_stakes(_differences(drawn), margin).max(axis=1) >= -np.log(DELTA)


def _naive(drawn: Drawn, margin: float) -> np.ndarray:
    """Whether z exceeds its quantile at any look."""
    found = _differences(drawn)
    looks = np.arange(1, found.shape[1] + 1)
    means = np.cumsum(found, axis=1) / looks
    spreads = np.sqrt(np.maximum(np.cumsum(found**2, axis=1) / looks - means**2, 1e-12) / looks)
    z = (means + margin) / spreads
    return (z[:, FEW:] > -special.ndtri(DELTA)).any(axis=1)


def _power(case: str, margin: float, drawn: Drawn, seed: int) -> dict[str, Any]:
    return _line(case, margin, drawn, seed, violations=_refused(drawn, margin),
                 covered=_proved(drawn, margin))  # fmt: skip


def _line(
    case: str, margin: float, drawn: Drawn, seed: int, *, violations: np.ndarray,
    covered: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    trials, size = drawn.again.shape
    told = (
        f"{size} units of 481; a second person differs in {drawn.again.mean():.4f}, the student in"
        f" {drawn.student.mean():.4f}"
    )
    return simulation_line(
        BENCH, f"{case} m={margin:g}", violations=int(violations.sum()), trials=trials,
        delta=DELTA, coverage_frac=None if covered is None else float(covered.mean()),
        workload=told, seed=seed, packages=PACKAGES,
    )  # fmt: skip
