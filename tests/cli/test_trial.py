"""`own verdict run` and `own verdict certify` from a shell, with an engine stood in for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.cli.trial import find_student
from ownweights.cli.verdict import verdict
from ownweights.core.artefact import Artefact, draft_folder, seal
from ownweights.core.project import Project
from ownweights.dataset import build_dataset
from ownweights.traffic import TrafficStore
from ownweights.verdict.voiding import void_certificate
from tests.cli.stood_in import JUDGED_BY, StoodInClient, StoodInEngine, seal_student
from tests.dataset.records import many


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def own(project: Project, *words: object) -> int:
    return main(["--project", str(project.root), "verdict", *map(str, words)])


@pytest.fixture
def student(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset on disk, a student's card over it, and an engine that needs no weights."""
    monkeypatch.setattr("ownweights.engine.EngineProcess", StoodInEngine)
    return seal_student(project)


def test_verdict_certify_issues_and_stops_the_engine(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["issued"] is True
    assert found["subject"]["student"] == student
    assert found["subject"]["check"] == "exact"
    assert (StoodInEngine.started, StoodInEngine.is_stopped) == ((student,), True)


def test_verdict_certify_refuses_with_four(
    project: Project, student: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(StoodInEngine, "harm_frac", 1.0)
    assert own(project, "certify", "--workload", "tickets") == 4
    assert capsys.readouterr().out.startswith("Not replaceable yet")


def files_of(project: Project) -> set[Path]:
    return {path for path in project.root.rglob("*") if path.is_file()}


def test_verdict_run_spends_nothing(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(project)
    for _ in range(2):
        assert own(project, "run", "--workload", "tickets") == 0
        said = capsys.readouterr().out
        assert said.startswith("Before anything is spent, as far as develop can tell:")
        assert "300 of 300 requests answered, 0.0% of the answers came to harm" in said
        assert "attempt 1 would spend 0.0304 of the error budget" in said
        assert "300 units for this attempt, 0 used by others" in said
        assert "a certificate that covers about 100%" in said
        assert "Scores compared on develop" in said
    assert files_of(project) == before
    assert (StoodInEngine.started, StoodInEngine.is_stopped) == ((student,), True)
    assert {text.split()[0] for text in StoodInEngine.asked} == {"develop"}
    assert own(project, "certify", "--workload", "tickets", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["attempt"], found["n"], found["issued"]) == (1, 300, True)


def test_verdict_run_foretells_as_json(
    project: Project, student: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = ("run", "--workload", "tickets", "--json", "--alpha", "0.04")
    assert own(project, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["workload"], told["student"], told["check"]) == ("tickets", student, "exact")
    assert (told["attempt"], told["n"], told["num_used"], told["blocked"]) == (1, 300, 0, None)
    assert told["claim"]["alpha"] == 0.04
    assert (told["coverage_frac"], told["fewest"]) == (1.0, 86)  # ln(.0304) / ln(.96)
    assert told["needed"]["units"] > 86 and told["needed"]["records"] == 0
    assert sum(one["is_chosen"] for one in told["compared"]) == 1
    assert "to expect: a certificate that covers about 100%" in told["in_words"]
    monkeypatch.setattr(StoodInEngine, "harm_frac", 1.0)
    assert own(project, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["coverage_frac"], told["needed"]["units"]) == (0.0, None)
    assert "no number of examples would certify that" in told["needed"]["reason"]
    assert {one["key"] for one in told["slices"] if one["is_failing"]} == {"request"}


def test_verdict_certify_says_first_what_it_needs(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets") == 0
    said = capsys.readouterr()
    before, _, after = said.err.partition("Before anything is spent, as far as develop can tell:")
    assert "certify tickets" not in before and "certify tickets: 300/300" in after
    assert re.search(r"needed +about \d+ units at the observed rates, with power 90%", said.err)
    assert said.out.startswith("The student may answer 100% of requests drawn one from each")
    assert own(project, "certify", "--workload", "tickets") == 0  # the same plan again
    again = capsys.readouterr()
    assert "attempt 1 has judged exactly this: verdict" in again.err
    assert again.out == said.out


def test_verdict_certify_of_a_void_certificate_exits_with_four(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets", "--json") == 0
    known = json.loads(capsys.readouterr().out)["id"]
    void_certificate(project, known, reason="harm rose", by="route r1")
    assert own(project, "certify", "--workload", "tickets") == 4
    assert capsys.readouterr().out.startswith("Void: this certificate no longer holds. harm rose")


def test_verdict_run_refuses_a_claim_too_small_for_numbers(
    project: Project, student: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What an attempt may spend of it would be no number above zero; nobody is asked."""
    monkeypatch.setattr(StoodInEngine, "started", ())
    assert own(project, "run", "--workload", "tickets", "--delta", "5e-324") == 2
    assert "verdict delta is 5e-324, expected a share" in capsys.readouterr().err
    assert StoodInEngine.started == ()


@pytest.mark.parametrize("place", ["dataset/*/certify.jsonl", "student/*/adapter_config.json"])
def test_verdict_of_what_was_changed_is_refused(
    project: Project, student: str, place: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A verdict names student and dataset by their hashes; nobody is asked."""
    monkeypatch.setattr(StoodInEngine, "started", ())
    (path,) = project.store_dir.glob(place)
    path.write_text(path.read_text() + "\n")
    for command in ("run", "certify"):
        assert own(project, command, "--workload", "tickets") == 1
        assert f"'{path.name}' is not what its card says" in capsys.readouterr().err
    assert StoodInEngine.started == ()


def test_verdict_certify_with_a_damaged_key_books_nothing(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.store_dir / "signing_key.pem"
    path.write_text("junk")
    assert own(project, "certify", "--workload", "tickets") == 1
    assert "cannot be read as a signing key" in capsys.readouterr().err
    assert {text.split()[0] for text in StoodInEngine.asked} == {"develop"}
    path.unlink()
    assert own(project, "certify", "--workload", "tickets", "--json") == 0
    assert json.loads(capsys.readouterr().out)["attempt"] == 1


def test_verdict_certify_books_nothing_where_no_outcome_could_certify(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--workload", "tickets", "--beta", "0.01")
    before = files_of(project)
    for _ in range(2):
        assert own(project, "certify", *words) == 4
        said = capsys.readouterr()
        assert "needed" in said.err
        assert said.out.startswith("Not replaceable yet, and nothing was booked: there are 300")
        assert "the claim takes at least 348 even if no answer does harm" in said.out
        assert re.search(r"about [\d,]+ fresh requests bring those missing", said.out)
    assert own(project, "certify", *words, "--json") == 4
    told = json.loads(capsys.readouterr().out)
    assert (told["id"], told["issued"], len(told["reasons"])) == (None, False, 1)
    assert told["needed"]["units"] > 348 and told["needed"]["records"] > 0
    assert (told["preview"]["attempt"], told["preview"]["fewest"]) == (1, 348)
    assert files_of(project) == before
    assert {text.split()[0] for text in StoodInEngine.asked} == {"develop"}
    assert own(project, "run", *words) == 0  # which only tells
    assert "no outcome could certify: there are 300" in capsys.readouterr().out


def test_verdict_certify_asks_for_fresh_traffic_where_all_is_used(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets") == 0
    capsys.readouterr()
    assert own(project, "certify", "--workload", "tickets", "--alpha", "0.2") == 4
    said = capsys.readouterr()
    assert "0 units for this attempt, 300 used by others" in said.err
    assert "there are 0 certify units that no attempt has looked at" in said.out
    assert re.search(r"about [\d,]+ fresh requests bring those missing", said.out)


def test_verdict_run_and_certify_take_the_same_flags(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [{p.name for p in verdict.commands[name].params} for name in ("run", "certify")]
    assert flags[0] == flags[1]
    assert own(project, "run", "--workload", "tickets", "--keep-answers") == 0
    assert "`own verdict run` keeps nothing" in capsys.readouterr().err
    assert own(project, "certify", "--workload", "tickets", "--keep-answers", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (project.kind_dir("verdict") / found["id"] / "answers.jsonl").is_file()


def test_verdict_certify_takes_the_claim_from_flags_before_the_file(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[verdict.tickets]\nalpha = 0.2\nbeta = 0.3\n")
    assert own(project, "certify", "--workload", "tickets", "--alpha", "0.04", "--json") == 0
    claim = json.loads(capsys.readouterr().out)["claim"]
    assert (claim["alpha"], claim["beta"], claim["delta"]) == (0.04, 0.3, 0.05)


def test_verdict_certify_takes_a_check_with_options(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text('[verdict.tickets]\ncheck = "json"\n')
    words = ("certify", "--workload", "tickets", "--check", "text ignore=space,case,punctuation")
    assert own(project, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["subject"]["check"] == "text ignore=case,punctuation,space"


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("text ignor=case", "check 'text' has no option 'ignor'; it has: ignore"),
        ("sql database=absent.db", "absent.db, which cannot be read"),
        ("Text", "expected a check and its options"),
    ],
)
def test_verdict_certify_refuses_a_check_before_it_starts_anything(
    project: Project, student: str, capsys: pytest.CaptureFixture[str], check: str, says: str
) -> None:
    StoodInEngine.started = ()
    assert own(project, "certify", "--workload", "tickets", "--check", check) == 2
    assert says in capsys.readouterr().err
    assert StoodInEngine.started == ()


def test_verdict_certify_takes_claims_from_the_file_and_flags(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text('[verdict.tickets]\nclaims = ["D"]\nmargin = 0.2\n')
    words = ("certify", "--workload", "tickets", "--claims", "D,C", "--margin", "0.1", "--json")
    assert own(project, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["claim"]["paired"], found["claim"]["margin"]) == (["C", "D"], 0.1)
    assert [one["conclusion"] for one in found["paired"]] == ["not_worse", "undecided"]
    assert own(project, "certify", "--workload", "tickets", "--claims", "E") == 2
    assert "verdict.tickets.claims" in capsys.readouterr().err


def test_verdict_run_draws_samples_as_flag_or_file_say(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text("[verdict.tickets]\nagreement = 3\n")
    for words, calls in (((), 4), (("--agreement", "1"), 2), (("--agreement", "0"), None)):
        assert own(project, "run", "--workload", "tickets", *words, "--json") == 0
        compared = json.loads(capsys.readouterr().out)["compared"]
        known = {row["kind"]: row["calls"] for row in compared}
        assert known.get("agreement") == calls


def test_verdict_certify_for_streaming_says_what_it_needs(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets", "--streaming") == 2
    assert "needs the state of the prompt" in capsys.readouterr().err
    project.settings_path.write_text("[verdict.tickets]\nstreaming = true\n")
    assert own(project, "certify", "--workload", "tickets") == 2
    assert own(project, "certify", "--workload", "tickets", "--no-streaming", "--json") == 0


def test_verdict_certify_without_a_student_says_what_to_do(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets") == 1
    said = capsys.readouterr().err
    assert "there is no student of workload 'tickets'" in said
    assert "hint: own student train --workload tickets" in said


def test_verdict_certify_refuses_a_student_of_another_workload(
    project: Project, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "letters", "--student", student) == 2
    assert f"student {student} learned 'tickets', not 'letters'" in capsys.readouterr().err


# a judge in place of a check


@pytest.fixture
def jury(student: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> list[StoodInClient]:
    monkeypatch.setattr("ownweights.teacher.client.TeacherClient", StoodInClient)
    monkeypatch.setattr(StoodInClient, "made", [])
    monkeypatch.setattr(StoodInEngine, "wording", "{}!")
    monkeypatch.setenv("JURY_KEY", "key-of-the-jury")
    project.settings_path.write_text(JUDGED_BY)
    return StoodInClient.made


def test_verdict_certify_takes_a_judge(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets", "--judge", "jury", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["issued"], found["subject"]["check"]) == (True, "judge")
    assert found["subject"]["judge"]["name"] == "jury"
    assert found["subject"]["judge"]["model"] == "judge-9"
    (client,) = jury
    assert (client.base_url, client.is_closed) == ("http://127.0.0.1:2/v1", True)
    assert (client.known["api_key"], client.known["timeout_s"]) == ("key-of-the-jury", 7.0)
    assert "Numbers alone count." in client.asked[0].messages[0]["content"]
    assert re.search(r"judge: \d,\d{3} calls \(0 known from before, 0 failed\)", said.err)
    assert "key-of-the-jury" not in said.out + said.err
    assert own(project, "verify", found["id"]) == 0


def test_verdict_certify_pays_a_judge_once(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    for calls in ("1,", "0 calls"):
        assert own(project, "certify", "--workload", "tickets", "--judge", "jury") == 0
        assert f"judge: {calls}" in capsys.readouterr().err
    assert jury[1].asked == []


def test_verdict_run_pays_the_judge_for_develop_alone(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--workload", "tickets", "--judge", "jury", "--json")
    assert own(project, "run", *words) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["check"], told["coverage_frac"]) == ("judge", 1.0)
    assert "judge: " in said.err and not project.database_path.exists()
    assert own(project, "certify", *words) == 0
    develop, certify = (
        ["certify question" in str(request.messages) for request in client.asked] for client in jury
    )
    assert not any(develop) and all(certify)  # what develop cost is known from before


def test_verdict_certify_refuses_an_invalid_judge_with_three(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(StoodInClient, "says", lambda request: "VERDICT: FIRST")
    assert own(project, "certify", "--workload", "tickets", "--judge", "jury") == 3
    said = capsys.readouterr().err
    assert "the judge 'jury' is invalid, so that nothing is certified by it" in said
    assert "self: 40 errors in 40" in said
    assert own(project, "show") == 0
    assert "no verdict yet" in capsys.readouterr().err
    assert jury[0].is_closed


def test_verdict_certify_asks_people_first(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text(JUDGED_BY + "labels = 50\n")
    assert own(project, "certify", "--workload", "tickets", "--judge", "jury") == 3
    said = capsys.readouterr().err
    assert "50 of the 50 answers drawn to measure the judge by have no human label yet" in said
    queue = project.store_dir / "judge" / "tickets" / "queue.jsonl"
    assert f"fill in the empty labels in {queue}" in said
    queue.write_text(queue.read_text().replace('"label":""', '"label":"tie"'))
    assert own(project, "certify", "--workload", "tickets", "--judge", "jury", "--json") == 0
    agreement = json.loads(capsys.readouterr().out)["subject"]["judge"]["agreement"]
    assert agreement["confusion"] == {"true_yes": 0, "false_no": 0, "true_no": 50, "false_yes": 0}


def test_verdict_certify_asks_the_judge_above(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    text = JUDGED_BY.replace('judge = "main"', 'judge = "jury"')
    project.settings_path.write_text(
        text.replace('127.0.0.1:1/v1"', '127.0.0.1:1/v1"\nmodel = "strong"')
        + 'judge_above = "main"\n'
    )
    assert own(project, "certify", "--workload", "tickets", "--json") == 0
    judge = json.loads(capsys.readouterr().out)["subject"]["judge"]
    assert (judge["name"], [above["model"] for above in judge["above"]]) == ("jury", ["strong"])
    assert all(client.is_closed for client in jury)


def test_verdict_certify_refuses_agreement_beside_a_judge(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("certify", "--workload", "tickets", "--judge", "jury", "--agreement", "2")
    assert own(project, *words) == 2
    assert "verdict.tickets sets agreement and a judge" in capsys.readouterr().err
    assert jury == []


def test_verdict_certify_with_a_judge_that_cannot_be(
    project: Project, jury: list[StoodInClient], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(project, "certify", "--workload", "tickets", "--judge", "jurry") == 2
    said = capsys.readouterr().err
    assert "'jurry' is no teacher: there is no [teacher.jurry]" in said
    assert "did you mean 'jury'?" in said
    assert own(project, "certify", "--workload", "tickets") == 2  # `main` names no model
    assert "a judge must name its model" in capsys.readouterr().err


def test_find_student_passes_over_what_is_broken(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrafficStore.open(project) as store:
        store.add(many(40))
        dataset = build_dataset(store.records("w"), project, workload="w")
    folder = project.kind_dir("student")
    made: list[Artefact] = []
    for parent in (dataset.id, "gone", None):
        with draft_folder(folder) as draft:
            parents = {"dataset": parent} if parent else {}
            made.append(seal(draft, "student", identity={}, parents=parents))
    (folder / "stray").mkdir()
    assert find_student(project, "w", None) == (dataset, made[0])
    errors = capsys.readouterr().err
    assert errors.count("warning: student") == 3
    assert f"student {made[1].id} is passed over: dataset 'gone' does not exist" in errors
    assert own(project, "certify", "--workload", "w", "--student", made[1].id) == 1
