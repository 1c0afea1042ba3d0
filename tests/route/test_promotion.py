"""Certificates become routes; refusals do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ownweights.core.artefact import draft_folder, read_card, seal
from ownweights.core.errors import ArtefactError, ArtefactMissing, SettingsError
from ownweights.core.project import Project
from ownweights.core.tables import RouteSettings
from ownweights.route import NotCertified, active_routes, list_routes, promote
from ownweights.route.promotion import MAX_PROMPT_HASHES, RouteTerms
from ownweights.verdict import RunOptions, check_named
from tests.route.samples import CONFIDENCE, drop_rule, make_artefact, make_verdict


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_promote_takes_everything_from_the_certificate(project: Project) -> None:
    verdict = make_verdict(project)
    route = promote(project, verdict.id, terms=RouteTerms(2.5, 500))
    assert active_routes(project) == {"tickets": route}
    assert (route.workload, route.student_id) == ("tickets", verdict.subject.student)
    assert (route.verdict_id, route.threshold) == (verdict.id, -0.25)
    assert route.confidence == CONFIDENCE
    assert route.prompt_hashes == ("aaaa", "bbbb")
    assert route.prune == drop_rule()
    assert route.decoding == {"max_tokens": 64}
    assert (route.timeout_s, route.max_prompt_tokens) == (2.5, 500)


def test_promote_refusal_is_refused(project: Project) -> None:
    verdict = make_verdict(project, issued=False)
    with pytest.raises(NotCertified, match="is a refusal: too few units") as caught:
        promote(project, verdict.id)
    assert caught.value.exit_code == 4
    assert caught.value.reasons == ("too few units",)
    assert list_routes(project) == []


def test_promote_waits_as_long_as_was_certified(project: Project) -> None:
    """Less, and answers that were certified would be cut off; more, and others would be sent."""
    verdict = make_verdict(project, timeout_s=2.5)
    with pytest.raises(NotCertified, match=r"had 2.5 s each, this route would wait 2 s") as caught:
        promote(project, verdict.id, terms=RouteTerms(2.0))
    assert "set timeout_s = 2.5 in [route.tickets]" in str(caught.value.hint)
    assert list_routes(project) == []
    for timeout_s in (2.5, 60.0):
        assert promote(project, verdict.id, terms=RouteTerms(timeout_s)).timeout_s == 2.5


def test_promote_default_time_out_is_that_of_verdicts_and_settings() -> None:
    assert RouteTerms().timeout_s == RunOptions().timeout_s == RouteSettings().timeout_s


def test_promote_unknown_verdict_is_missing(project: Project) -> None:
    with pytest.raises(ArtefactMissing):
        promote(project, "none")


@pytest.mark.parametrize("kind", ["student", "dataset"])
def test_promote_needs_what_was_certified(project: Project, kind: str) -> None:
    verdict = make_verdict(project)
    shutil.rmtree(project.kind_dir(kind))
    with pytest.raises(ArtefactMissing, match=kind):
        promote(project, verdict.id)
    assert active_routes(project) == {}


def test_promote_needs_the_file_that_its_check_reads(project: Project) -> None:
    (project.root / "promoted.py").write_text("def harm(answer, references):\n    return 0\n")
    verdict = make_verdict(
        project, check=check_named("custom entry=promoted:harm", project.root).name
    )
    assert promote(project, verdict.id).check == verdict.subject.check
    (project.root / "promoted.py").write_text("def harm(answer, references):\n    return 1\n")
    with pytest.raises(SettingsError, match="is not the file that the check names"):
        promote(project, verdict.id)


def test_promote_changed_student_is_refused(project: Project) -> None:
    verdict = make_verdict(project)
    path = project.kind_dir("student") / verdict.subject.student / "file.txt"
    path.write_text("other weights")
    with pytest.raises(ArtefactError, match="not what its card says"):
        promote(project, verdict.id)


def test_promote_changed_certificate_is_refused(project: Project) -> None:
    """A lower threshold, written into the file by hand, or sealed again under a name of its own."""
    verdict = make_verdict(project)
    folder = project.kind_dir("verdict") / verdict.id
    text, card = (folder / "certificate.json").read_text(), read_card(folder)
    with draft_folder(folder.parent) as draft:
        shutil.copyfile(folder / "judged.jsonl", draft / "judged.jsonl")
        (draft / "certificate.json").write_text(text.replace("-0.25", "-9.25"))
        forged = seal(draft, "verdict", identity=card["identity"], facts=card["facts"])
    with pytest.raises(ArtefactError, match="is not what was signed"):
        promote(project, forged.id)
    (folder / "certificate.json").write_text(text.replace("-0.25", "-9.25"))
    with pytest.raises(ArtefactError, match="not what its card says"):
        promote(project, verdict.id)
    assert active_routes(project) == {}


def test_promote_prompts_that_always_change_are_no_condition(project: Project) -> None:
    hashes = [f"{n:04x}" for n in range(MAX_PROMPT_HASHES + 1)]
    dataset = make_artefact(
        project, "dataset",
        identity={"workload": "tickets", "prune": None}, facts={"prompt_hashes": hashes},
    )  # fmt: skip
    route = promote(project, make_verdict(project, dataset=dataset.id).id)
    assert route.prompt_hashes == ()
    assert route.prune is None


def test_promote_again_is_the_same_route(project: Project) -> None:
    verdict = make_verdict(project)
    assert promote(project, verdict.id) == promote(project, verdict.id, reason="once more")
