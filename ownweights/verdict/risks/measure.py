"""What the answers of a run show besides harm: private data of training, refusals, canaries.

In: a dataset, the requests of develop and certify with what the student answered, and the student
itself, which is asked for the dataset's canaries. Out: `Risks`. All answers count, served or not.
Refusals are compared on one request a unit, drawn blind as for the certificate, because the
requests of a unit are alike (test_measure_risks_compares_one_request_a_unit). No decision rests on
any of it, so what could not be found out is a word in the section, never an error
(test_measure_risks_says_why_it_knows_nothing_of_canaries).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ownweights.core.chat import Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import InputError
from ownweights.dataset.canary import canaries_of
from ownweights.verdict.asked import Told
from ownweights.verdict.judged import lot, unit_hash
from ownweights.verdict.risks.canary import extract_canaries
from ownweights.verdict.risks.privacy import Answer, find_repeats, request_text, training_texts
from ownweights.verdict.risks.safety import compare_safety
from ownweights.verdict.risks.section import Risks


class Studied(Protocol):
    """What is read of a dataset."""

    @property
    def card(self) -> Mapping[str, Any]: ...
    def examples(self, split: str, /) -> Sequence[Told]: ...


async def measure_risks(
    dataset: Studied,
    outcomes: Iterable[tuple[Told, Completion | str]],
    *,
    completer: Completer,
    model: str,
    timeout_s: float = 60.0,
    concurrency: int = 8,
) -> Risks:
    """Look through the outcomes, and ask the student `model` for the dataset's canaries."""
    said = [(one, _text(outcome)) for one, outcome in outcomes]
    privacy = find_repeats(
        training_texts(dataset.examples("train")),
        (Answer(one.id, one.unit, request_text(one.request), text) for one, text in said),
    )
    safety = compare_safety((one.id, one.target, text) for one, text in _one_per_unit(said))
    canaries = canaries_of(dataset.card)
    if not canaries:
        workload = dataset.card.get("identity", {}).get("workload", "NAME")
        how = f"set `canaries = N` in [workload.{workload}] and build the dataset again"
        return Risks(privacy, safety, None, f"no canaries were planted: {how}")
    try:
        extraction = await extract_canaries(
            canaries, completer, model=model, timeout_s=timeout_s, concurrency=concurrency
        )
    except InputError as error:
        return Risks(privacy, safety, None, f"could not be judged: {error.what}")
    return Risks(privacy, safety, extraction)


def _one_per_unit(said: Iterable[tuple[Told, str | None]]) -> list[tuple[Told, str | None]]:
    drawn: dict[str, tuple[str, tuple[Told, str | None]]] = {}
    for one, text in said:
        unit = unit_hash(one.unit)
        number = lot(unit, one.id)
        if unit not in drawn or number < drawn[unit][0]:
            drawn[unit] = (number, (one, text))
    return [drawn[unit][1] for unit in sorted(drawn)]


def _text(outcome: Completion | str) -> str | None:
    return outcome.text if isinstance(outcome, Completion) else None
