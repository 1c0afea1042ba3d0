"""Baselines and looks end to end, on endpoints whose distributions are known."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random

import pytest

from ownweights.core.chat import Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import CompleterError, InputError
from ownweights.verdict.drift.asking import Reply
from ownweights.verdict.drift.baseline import Baseline, Canary, Plan, take_baseline
from ownweights.verdict.drift.budget import CHANNELS
from ownweights.verdict.drift.monitor import Asked, DriftMonitor
from ownweights.verdict.drift.outcome import CHANGED, COULD_NOT_TELL, SAME
from ownweights.verdict.drift.report import drift_text
from tests.verdict.drift.endpoints import (
    FEW,
    NO_PROBES,
    SEQUENTIAL,
    DrawnEndpoint,
    canaries,
    down,
    failing,
    half_border,
)

HOUR = 3600.0


def baseline(
    endpoint: Completer, plan: Plan = FEW, count: int = 60, *, known: bool = False
) -> Baseline:
    return asyncio.run(
        take_baseline(
            endpoint, canaries(count, references=known), teacher="main", plan=plan, at=HOUR,
            model="rented", manner=SEQUENTIAL,
        )
    )  # fmt: skip


def looked(monitor: DriftMonitor, endpoint: Completer, times: int = 1) -> DriftMonitor:
    for _ in range(times):
        at = HOUR * (len(monitor.state.looks) + 2)
        monitor = asyncio.run(monitor.look(endpoint, at=at, manner=SEQUENTIAL))
    return monitor


def endpoint(**given: object) -> DrawnEndpoint:
    return DrawnEndpoint(**{"shares": half_border, **given})  # type: ignore[arg-type]


def outcomes(monitor: DriftMonitor) -> dict[str, str]:
    return {found.channel: found.outcome for found in monitor.state.looks[-1].findings}


def test_baseline_measures_all_channels() -> None:
    taken = baseline(endpoint())
    assert taken.budget.channels == CHANNELS
    assert taken.unmeasured == {}
    assert taken.metadata.models == ("rented-1",)
    assert len(taken.canaries) == len(taken.answers) == 60
    assert all(answers == (f"answer {i}",) * 2 for i, answers in enumerate(taken.answers))


def test_baseline_names_what_it_cannot_measure() -> None:
    taken = baseline(endpoint(), NO_PROBES, count=20)
    assert taken.budget.channels == ("length", "format", "refusal", "score")
    assert set(taken.unmeasured) == {"text", "border"}
    assert taken.unmeasured["border"] == "not asked"
    few = baseline(endpoint(), FEW, count=5)
    assert few.budget.channels == ("border",)
    assert few.unmeasured["length"] == "5 canaries were answered, and 11 are needed"


def test_baseline_leaves_out_canaries_that_were_not_answered() -> None:
    flaky = failing(endpoint(), [i % 6 == 0 for i in range(120)])
    taken = baseline(flaky, NO_PROBES)
    assert len(taken.canaries) == len(taken.answers) == 50
    assert {len(answers) for answers in taken.answers} == {2}


def test_baseline_of_a_dead_endpoint_is_an_error() -> None:
    with pytest.raises(CompleterError) as caught:
        baseline(down())
    assert "no canary was answered 2 times by teacher 'main': the teacher answered 500" in str(
        caught.value
    )
    assert "hint: own teacher check" in str(caught.value)


def test_baseline_needs_canaries_and_each_once() -> None:
    with pytest.raises(InputError, match="no recorded request to make a canary of\nhint: own"):
        baseline(endpoint(), count=0)
    twice = [canaries(1)[0]] * 2
    with pytest.raises(InputError, match="1 canaries have the id of another"):
        asyncio.run(take_baseline(endpoint(), twice, teacher="main", plan=FEW, at=0.0))


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_plan_refuses_an_impossible_rate(rate: float) -> None:
    with pytest.raises(InputError, match="lies between 0 and 1"):
        Plan(false_alarm=rate)


def test_baseline_takes_its_own_first_answer_for_yardstick_where_none_is_known() -> None:
    """An endpoint that is right half of the time by its own yardstick goes on so: no change."""

    def moody(number: int, rng: random.Random) -> str:
        return f"answer {rng.randrange(2)}"

    taken = baseline(endpoint(write=moody), NO_PROBES, count=200)
    score = taken.old_readings()[:, -1].mean()
    assert 0.35 < score < 0.65
    assert outcomes(looked(DriftMonitor(taken), endpoint(write=moody, seed=9)))["score"] == SAME


def test_baseline_uses_known_answers_where_there_are_some() -> None:
    taken = baseline(endpoint(write=lambda i, rng: "wrong"), NO_PROBES, known=True)
    assert taken.old_readings()[:, -1].mean() == 0.0


def test_monitor_says_same_of_an_endpoint_that_is() -> None:
    monitor = looked(DriftMonitor(baseline(endpoint())), endpoint(seed=1), times=3)
    assert monitor.state.outcome == SAME
    assert outcomes(monitor) == dict.fromkeys(("metadata", *CHANNELS), SAME)
    assert monitor.state.incident is None
    assert 0 < monitor.spent < 0.05
    assert [look.number for look in monitor.state.looks] == [1, 2, 3]


CHANGES = {
    "length": lambda i, rng: f"answer {i}, and more of it",
    "refusal": lambda i, rng: "I'm sorry, but I can't assist with that.",
    "format": lambda i, rng: f"```\nanswer {i}\n```",
    "score": lambda i, rng: f"anwser {i}",
    "text": lambda i, rng: f"ANSWER {i}",
}


@pytest.mark.parametrize("channel", CHANGES)
def test_monitor_names_the_channel_that_changed(channel: str) -> None:
    monitor = looked(DriftMonitor(baseline(endpoint(), NO_PROBES)), endpoint())
    monitor = looked(monitor, endpoint(write=CHANGES[channel]))
    assert monitor.state.outcome == CHANGED
    assert outcomes(monitor)[channel] == CHANGED
    incident = monitor.state.incident
    assert incident is not None
    assert channel in {found.channel for found in incident.findings}
    assert (incident.look, incident.unchanged_at, incident.opened_at) == (2, 2 * HOUR, 3 * HOUR)
    assert incident.models == ("rented-1",)


def test_monitor_tells_a_change_of_format_from_one_of_capability() -> None:
    monitor = DriftMonitor(baseline(endpoint(), NO_PROBES))
    fenced = outcomes(looked(monitor, endpoint(write=CHANGES["format"])))
    assert (fenced["format"], fenced["score"]) == (CHANGED, SAME)
    worse = outcomes(looked(monitor, endpoint(write=CHANGES["score"])))
    assert (worse["format"], worse["score"]) == (SAME, CHANGED)


def test_monitor_finds_changed_first_tokens_within_two_days() -> None:
    """Canaries stay as they are; the border alone moves."""
    plan = dataclasses.replace(FEW, num_probes=8, reference_draws=200, draws=20)
    monitor = looked(DriftMonitor(baseline(endpoint(), plan)), endpoint(seed=1), times=3)
    moved = looked(monitor, endpoint(shares=lambda prompt: 0.02, seed=2), times=2)
    assert {c for c, found in outcomes(moved).items() if found == CHANGED} == {"border"}
    assert moved.state.incident is not None


def test_monitor_takes_another_model_name_for_an_alarm_or_a_note() -> None:
    taken = baseline(endpoint(), NO_PROBES)
    loud = looked(DriftMonitor(taken), endpoint(model="rented-2"))
    assert outcomes(loud)["metadata"] == CHANGED
    quiet = dataclasses.replace(
        taken, plan=dataclasses.replace(taken.plan, alarms_on_metadata=False)
    )
    noted = looked(DriftMonitor(quiet), endpoint(model="rented-2"))
    assert (noted.state.outcome, noted.state.incident) == (SAME, None)
    assert noted.state.looks[-1].notes == ("model rented-2 where rented-1 was",)


def test_monitor_takes_another_fingerprint_for_an_alarm() -> None:
    taken = baseline(endpoint(said={"system_fingerprint": "fp_1"}), NO_PROBES)
    found = looked(DriftMonitor(taken), endpoint(said={"system_fingerprint": "fp_2"}))
    assert found.state.incident is not None
    assert found.state.incident.fingerprints == ("fp_1",)


def test_monitor_could_not_tell_when_the_teacher_is_down() -> None:
    monitor = looked(DriftMonitor(baseline(endpoint())), down())
    assert monitor.state.outcome == COULD_NOT_TELL
    assert set(outcomes(monitor).values()) == {COULD_NOT_TELL}
    assert monitor.state.incident is None
    look = monitor.state.looks[-1]
    assert look.num_failed == look.num_asked
    assert looked(monitor, endpoint(seed=3)).state.outcome == SAME


@pytest.mark.parametrize(("every", "outcome"), [(10, SAME), (2, COULD_NOT_TELL)])
def test_monitor_lives_with_few_failures_and_says_when_there_are_many(
    every: int, outcome: str
) -> None:
    """One request in ten fails: still the same. All but one in two: nobody could tell."""
    fails = [i % every == 0 if every > 2 else i % 5 != 4 for i in range(5_000)]
    monitor = looked(DriftMonitor(baseline(endpoint())), failing(endpoint(seed=4), fails))
    assert monitor.state.outcome == outcome


def test_monitor_stays_changed_until_a_new_baseline() -> None:
    monitor = looked(
        DriftMonitor(baseline(endpoint(), NO_PROBES)), endpoint(write=CHANGES["length"])
    )
    again = looked(monitor, endpoint())
    assert again.state.looks[-1].outcome == SAME
    assert again.state.outcome == CHANGED
    assert again.state.incident == monitor.state.incident
    assert DriftMonitor(baseline(endpoint(), NO_PROBES)).state.outcome == COULD_NOT_TELL


def test_monitor_adds_other_channels_to_an_open_incident() -> None:
    monitor = looked(DriftMonitor(baseline(endpoint(), NO_PROBES)), endpoint(model="rented-2"))
    assert monitor.state.incident is not None
    assert [f.channel for f in monitor.state.incident.findings] == ["metadata"]
    more = looked(monitor, endpoint(model="rented-2", write=CHANGES["score"])).state.incident
    assert more is not None
    assert [f.channel for f in more.findings][:1] == ["metadata"]
    assert "score" in {f.channel for f in more.findings}
    assert more.opened_at == monitor.state.incident.opened_at


def test_monitor_does_not_alarm_on_a_change_too_small_to_see() -> None:
    monitor = DriftMonitor(baseline(endpoint(), NO_PROBES))
    small = looked(monitor, endpoint(write=lambda i, rng: f"answer {i}" + "!" * (i < 3)))
    assert small.state.outcome == SAME


def test_monitor_alarms_falsely_within_its_rate() -> None:
    """Endpoints that vary by themselves and never change, five looks each, all canary channels."""
    trials, rate, wrong, count = 30, 0.3, 0, 30
    plan = dataclasses.replace(NO_PROBES, false_alarm=rate)
    kinds = ["yes", "no", "I'm sorry, I can't.", "```\nyes\n```", "- a\n- b", '{"a": 1}']
    for trial in range(trials):
        rng = random.Random(trial)
        ways = [rng.choices(kinds, k=2) for _ in range(count)]

        def draw(rng: random.Random = rng, ways: list[list[str]] = ways) -> list[str]:
            return [rng.choice(pair) for pair in ways]

        first, last = draw(), draw()
        taken = baseline(endpoint(), plan, count)
        answers = tuple(zip(first, last, strict=True))
        monitor = DriftMonitor(dataclasses.replace(taken, answers=answers))
        for _ in range(5):
            monitor = monitor.judge(Asked(tuple(map(reply, draw()))), at=0.0)
        wrong += monitor.state.incident is not None
    assert wrong / trials <= rate + 3 * math.sqrt(rate * (1 - rate) / trials)


def reply(text: str) -> Reply:
    return Reply(Completion(text, "stop", model="rented-1"))


def test_monitor_with_two_answers_compares_texts_by_prompt() -> None:
    plan = dataclasses.replace(NO_PROBES, answers=2)
    taken = baseline(endpoint(), plan, count=20)
    assert "text" in taken.budget.channels
    found = looked(DriftMonitor(taken), endpoint(write=CHANGES["text"]))
    assert outcomes(found)["text"] == CHANGED
    assert found.state.looks[-1].num_asked == 40


def test_canary_prompt_is_the_last_text() -> None:
    parts = [{"type": "text", "text": "hi"}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert Canary("a", "w", body).prompt == ""
    assert canaries(2)[1].prompt == "question 1"


def test_drift_text_tells_the_whole_story() -> None:
    monitor = DriftMonitor(baseline(endpoint(), NO_PROBES))
    assert drift_text(monitor).startswith(
        "teacher main: baseline of 60 canaries, answered by rented-1\n"
    )
    same = drift_text(looked(monitor, endpoint()))
    assert "teacher main: same" in same
    assert "of answers would show" in same
    assert "while nothing changes, are independent draws, whatever the day" in same
    assert "not measured  border: not asked" in same
    changed = drift_text(looked(monitor, endpoint(write=CHANGES["refusal"])))
    assert "teacher main: CHANGED" in changed
    assert "refusal   CHANGED         answers that decline 0.0 → 1.0 (p " in changed
    assert "incident main/7200 is open since look 1:" in changed
    assert "unreadable 60" in drift_text(looked(monitor, down()))
