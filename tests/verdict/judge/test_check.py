"""A judge in the place of a check, from asking the student to a certificate to be verified."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.artefact import CARD_NAME
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import CompleterError, InvalidJudge
from ownweights.core.project import Project
from ownweights.verdict import (
    Claim,
    RunOptions,
    Subject,
    Verdict,
    certify,
    load_verdict,
    report_text,
    run_verdict,
    verify_verdict,
)
from ownweights.verdict.judge import Cascade, Judge, JudgeCheck, People
from ownweights.verdict.judged import read_judged
from ownweights.verdict.ledger import MemoryLedger
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text
from tests.verdict import worlds
from tests.verdict.judge import judges
from tests.verdict.judge.judges import judge_who, verdict
from tests.verdict.test_store import forge


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def number_of(text: str) -> int:
    return int(text.split("question ")[1].split(":", maxsplit=1)[0])


def world(num_develop: int = 120, num_certify: int = 400) -> worlds.FakeDataset:
    """Questions with right answers in the teacher's words."""

    def example(i: int, split: str) -> worlds.FakeExample:
        prompt = f"{split} question {i}: which number?"
        answer = f"The number that was asked for is {7 * i + 1000}."
        messages = [{"role": "user", "content": prompt}]
        return worlds.FakeExample(f"{split}-{i}", prompt, {"messages": messages}, messages, answer,
                                  (answer,))  # fmt: skip

    sizes = {"develop": num_develop, "certify": num_certify}
    return worlds.FakeDataset({s: [example(i, s) for i in range(n)] for s, n in sizes.items()})


def is_wrong(number: int) -> bool:
    return number % 10 == 3


def student() -> ScriptedTeacher:
    """Right in other words but for a tenth, of which it is less sure; every fifth in the same."""

    def says(request: ChatRequest) -> Completion:
        number = number_of(last_user_text(request))
        if is_wrong(number):
            return worlds.answer("It is 5.", 2.0 + number % 7 / 10)
        told = 7 * number + 1000
        same = f"The number that was asked for is {told}."
        return worlds.answer(same if number % 5 == 0 else f"It is {told}.", 0.1 + number % 9 / 100)

    return ScriptedTeacher(says)


def run(project: Project, check: JudgeCheck, **options: Any) -> Verdict:
    return run_verdict(world(), student(), project, "student1", check=check, **options)


def test_judge_certifies_a_good_student(project: Project) -> None:
    check = JudgeCheck(judge_who(judges.careful, name="strict", rubric="Numbers alone count."))
    found = run(project, check)
    assert found.issued
    assert 0.85 < found.coverage_frac < 0.95
    assert (found.subject.check, found.unjudged) == ("judge", 0)
    judge = found.subject.judge
    assert (judge["name"], judge["model"], judge["answered_by"]) == (
        "strict",
        "judge-1",
        ["scripted"],
    )
    assert {"prompt", "rubric", "decoding", "probes", "bias"} <= judge.keys()
    assert [probe["errors"] for probe in judge["probes"]] == [0] * 5
    assert (found.corrected, judge.get("agreement")) == (None, None)
    assert any("no person has measured this judge" in line for line in found.assumptions)
    assert "harm of all answers" not in report_text(found)
    assert found == load_verdict(project, found.id)
    assert verify_verdict(project.kind_dir("verdict"), found.id).differences == ()
    card = json.loads((project.kind_dir("verdict") / found.id / CARD_NAME).read_text())
    assert card["facts"]["judge"]["calls"] == check.judge.spent.calls > 1000


def test_judge_is_not_asked_about_what_is_equal_or_empty(project: Project) -> None:
    data = world(4, 0).splits["develop"]
    seen: list[str] = []

    def note(request: str, first: str, second: str) -> str:
        seen.append(first)
        return judges.careful(request, first, second)

    given: list[Completion | str] = [
        Completion(data[0].target, "stop"), Completion("  ", "stop"), "failed",
        Completion("It is 5.", "stop"),
    ]  # fmt: skip
    check = JudgeCheck(judge_who(note))
    harms = asyncio.run(check.judge_all(data, given, stage="certify"))
    assert harms == [0.0, 1.0, None, 1.0]
    assert sorted(seen) == sorted(["It is 5.", data[3].target])


def test_judge_takes_equal_json_for_equal() -> None:
    data = [dataclasses.replace(world(1, 0).splits["develop"][0], references=('{"a": 1, "b": 2}',))]
    check = JudgeCheck(Judge(ScriptedTeacher("not asked"), "j"))
    given = [Completion('{"b":2,"a":1}', "stop")]
    assert asyncio.run(check.judge_all(data, given, stage="certify")) == [0.0]


def test_judge_cannot_compare_with_no_reference() -> None:
    data = [dataclasses.replace(world(1, 0).splits["develop"][0], references=())]
    check = JudgeCheck(Judge(ScriptedTeacher("not asked"), "j"))
    given = [Completion("It is 5.", "stop")]
    assert asyncio.run(check.judge_all(data, given, stage="certify")) == [None]


@pytest.mark.parametrize(
    "says",
    [judges.first_lover, judges.position_biased, judges.length_lover, judges.polite_lover,
     judges.tie_lover, judges.obedient, judges.mumbler, judges.parrot],
)  # fmt: skip
def test_invalid_judge_spends_no_attempt(project: Project, says: judges.Verdict) -> None:
    ledger = MemoryLedger()
    with pytest.raises(InvalidJudge, match="nothing is certified by it"):
        run(project, JudgeCheck(judge_who(says)), options=RunOptions(ledger=ledger))
    assert ledger._attempts == []
    assert not project.kind_dir("verdict").exists()


def test_judge_with_too_few_answers_to_probe_is_invalid(project: Project) -> None:
    with pytest.raises(InvalidJudge, match="only 19 of 19 could be read"):
        run_verdict(
            world(19, 30), student(), project, "s", check=JudgeCheck(judge_who(judges.careful))
        )


def test_stronger_judge_is_probed_too(project: Project) -> None:
    both = Cascade([judge_who(judges.careful), judge_who(judges.tie_lover, name="above")])
    with pytest.raises(InvalidJudge, match="the judge 'above' is invalid"):
        run(project, JudgeCheck(both))


def undecided_on(limit: int) -> judges.Verdict:
    """Careful, but decides by place where the question's number is a multiple of `limit`."""

    def says(request: str, first: str, second: str) -> str:
        is_plain = all("was asked for" in text or "It is" in text for text in (first, second))
        if number_of(request) % limit == 1 and is_plain and first.strip() != second.strip():
            return verdict("FIRST" if "hope" not in first else "TIE")
        return judges.careful(request, first, second)

    return says


def test_undecided_counts_as_harm(project: Project) -> None:
    found = run(project, JudgeCheck(judge_who(undecided_on(20))))
    rows = read_judged(project.kind_dir("verdict") / found.id / "judged.jsonl")
    unjudged = [row for row in rows if row.harm is None]
    assert {number_of(f"question {row.id.split('-')[1]}") % 20 for row in unjudged} == {1}
    assert found.unjudged == 20
    assert found.harms >= 20 or not found.issued


def test_cascade_decides_what_the_first_leaves_open(project: Project) -> None:
    both = Cascade([judge_who(undecided_on(20)), judge_who(judges.careful, name="above")])
    found = run(project, JudgeCheck(both))
    assert (found.unjudged, found.issued) == (0, True)
    assert [above["name"] for above in found.subject.judge["above"]] == ["above"]
    assert verify_verdict(project.kind_dir("verdict"), found.id).differences == ()


def test_judge_that_dies_leaves_the_attempt_open(project: Project) -> None:
    """The next run goes on where it ended, with the same attempt."""
    ledger, teacher = MemoryLedger(), judge_who(judges.careful)._completer
    calls = asyncio.run(_calls_on_develop())
    dying = Judge(
        FlakyTeacher(teacher, [None] * calls + [CompleterError("judge gone")] * 5000), "judge-1"
    )
    with pytest.raises(CompleterError, match="judge gone"):
        run(project, JudgeCheck(dying), options=RunOptions(ledger=ledger))
    assert len(ledger._attempts) == 1
    found = run(project, JudgeCheck(judge_who(judges.careful)), options=RunOptions(ledger=ledger))
    assert (found.attempt, found.issued) == (1, True)


async def _calls_on_develop() -> int:
    data, judge = world().splits["develop"], judge_who(judges.careful)
    answers = [await student().complete(ChatRequest.of(one.messages)) for one in data]
    await JudgeCheck(judge).judge_all(data, answers, stage="develop")
    return judge.spent.calls


def test_other_judge_is_another_plan(project: Project) -> None:
    ledger = MemoryLedger()
    options = RunOptions(ledger=ledger)
    first = run(project, JudgeCheck(judge_who(judges.careful)), options=options)
    assert run(project, JudgeCheck(judge_who(judges.careful)), options=options) == first
    other = JudgeCheck(judge_who(judges.careful, rubric="Only form counts."))
    second = run(project, other, options=options)
    assert (second.attempt, second.issued, second.num_used) == (2, False, 400)


# people


def label(queue: Path, label_of: Callable[[dict[str, Any]], str]) -> int:
    """Fill in what is empty; how many lines that were."""
    lines = [json.loads(text) for text in queue.read_text().split("\n") if text]
    empty = [line for line in lines if not line["label"]]
    for line in empty:
        line["label"] = label_of(line)
    queue.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(empty)


def truth(line: dict[str, Any]) -> str:
    wrong = [name for name in ("1", "2") if line[f"answer_{name}"] == "It is 5."]
    return {"1": "2", "2": "1"}[wrong[0]] if wrong else "tie"


def lenient(request: str, first: str, second: str) -> str:
    """Careful, but blind to what is wrong in a fifth of the questions."""
    is_blind = number_of(request) % 50 == 13 and "Thank you" not in first + second
    is_blind = is_blind and "Ignore the rubric" not in first + second
    return verdict("TIE") if is_blind else judges.careful(request, first, second)


def test_labels_wanted_come_before_certify(project: Project, tmp_path: Path) -> None:
    queue, ledger = tmp_path / "queue.jsonl", MemoryLedger()
    check = JudgeCheck(judge_who(lenient), People(queue, 100))
    options = RunOptions(ledger=ledger)
    with pytest.raises(InvalidJudge, match=r"of the 100 answers drawn .* no human label yet"):
        run(project, check, options=options)
    assert ledger._attempts == []
    num = label(queue, truth)
    assert 70 < num < 90  # a fifth is equal to the teacher's, and nobody need look
    found = run(project, JudgeCheck(judge_who(lenient), People(queue, 100)), options=options)
    agreement = found.subject.judge["agreement"]
    assert (agreement["labelled"], agreement["open"]) == (100, 0)
    seen = agreement["confusion"]
    assert seen["false_no"] > 0 and seen["false_yes"] == 0
    assert seen["true_yes"] + seen["false_no"] in range(5, 16)
    assert found.subject.judge["labels"]["num"] == 100
    assert verify_verdict(project.kind_dir("verdict"), found.id).differences == ()


def test_corrected_harm_is_what_people_would_find(project: Project, tmp_path: Path) -> None:
    queue = tmp_path / "queue.jsonl"
    with pytest.raises(InvalidJudge):
        run(project, JudgeCheck(judge_who(lenient), People(queue, 120)))
    label(queue, truth)
    found = run(project, JudgeCheck(judge_who(lenient), People(queue, 120)))
    corrected = found.corrected
    assert corrected is not None
    assert corrected.judged_frac == pytest.approx(0.08)  # 32 of 400: it misses a fifth
    assert corrected.value == pytest.approx(0.1, abs=0.01)  # 40 of 400 in truth
    assert corrected.low < 0.1 < corrected.high
    assert any("misses harm in at most" in line for line in found.assumptions)
    text = report_text(found)
    for words in ("Judged by judge-1", "probes", "first place chosen", "beside people 120 labels",
                  "by the judge, 10.", "people"):  # fmt: skip
        assert words in text
    assert load_verdict(project, found.id) == found


def test_cannot_say_is_a_label_but_no_verdict(project: Project, tmp_path: Path) -> None:
    queue = tmp_path / "queue.jsonl"
    check = JudgeCheck(judge_who(lenient), People(queue, 100))
    with pytest.raises(InvalidJudge):
        run(project, check)
    turn = iter(range(1000))
    label(queue, lambda line: "cannot say" if next(turn) % 4 == 0 else truth(line))
    found = run(project, JudgeCheck(judge_who(lenient), People(queue, 100)))
    assert 70 < found.subject.judge["agreement"]["labelled"] < 90


def test_judge_that_people_contradict_is_invalid(project: Project, tmp_path: Path) -> None:
    queue = tmp_path / "queue.jsonl"
    with pytest.raises(InvalidJudge):
        run(project, JudgeCheck(judge_who(judges.careful), People(queue, 60)))
    label(queue, lambda line: "tie" if truth(line) != "tie" else "1")
    with pytest.raises(InvalidJudge, match="beside people it guesses"):
        run(project, JudgeCheck(judge_who(judges.careful), People(queue, 60)))


def test_people_decide_what_the_judge_leaves_open(project: Project, tmp_path: Path) -> None:
    queue, ledger = tmp_path / "queue.jsonl", MemoryLedger()
    data = world()
    check = JudgeCheck(judge_who(undecided_on(20)), People(queue))
    first = run(project, check, options=RunOptions(ledger=ledger))
    assert first.unjudged == 20
    assert check.queued == 26  # those of develop, too
    label(queue, truth)
    again = JudgeCheck(judge_who(undecided_on(20)), People(queue))
    usable = data.splits["certify"]
    answers = [asyncio.run(student().complete(ChatRequest.of(one.messages))) for one in usable]
    harms = asyncio.run(again.judge_all(usable, answers, stage="certify"))
    assert harms == [float(is_wrong(i)) for i in range(400)]
    assert again.queued == 0
    # and labels that came after the first look make another plan, which finds its units used
    second = run(project, again, options=RunOptions(ledger=ledger))
    assert (second.attempt, second.num_used) == (2, 400)


# what no certificate accepts


def subject_of(found: Verdict, **changed: Any) -> Subject:
    return dataclasses.replace(found.subject, judge={**found.subject.judge, **changed})


def test_certify_refuses_an_invalid_judge(project: Project) -> None:
    found = run(project, JudgeCheck(judge_who(judges.careful)))
    rows = read_judged(project.kind_dir("verdict") / found.id / "judged.jsonl")
    probes = [dict(probe) for probe in found.subject.judge["probes"]]
    assert certify(Claim(), found.subject, rows).issued
    probes[0]["errors"] = 12
    for subject in (
        subject_of(found, probes=probes),
        subject_of(found, probes=probes[1:]),
        subject_of(found, probes=[]),
        dataclasses.replace(found.subject, judge={}),
    ):
        with pytest.raises(InvalidJudge):
            certify(Claim(), subject, rows)


def test_verify_finds_a_forged_probe(project: Project) -> None:
    found = run(project, JudgeCheck(judge_who(judges.careful)))

    def change(data: dict[str, Any]) -> None:
        data["subject"]["judge"]["probes"][3]["errors"] = 20

    forged = forge(project, found, change)
    wrong = verify_verdict(project.kind_dir("verdict"), forged).differences
    assert any("constant: 20 errors in 40" in line for line in wrong)


def test_judge_that_is_a_teacher_is_named_as_such(project: Project) -> None:
    own = Judge(judge_who(judges.careful)._completer, "rented-1")
    found = run(project, JudgeCheck(own))
    assert any("may prefer its own words" in line for line in found.assumptions)


def test_run_is_blind_to_who_judged_before(tmp_path: Path) -> None:
    """The same judge gives the same certificate, id and all, on another day."""
    found = [
        run(Project(tmp_path / name), JudgeCheck(judge_who(judges.careful))) for name in ("a", "b")
    ]
    assert found[0] == found[1]
