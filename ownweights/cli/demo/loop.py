"""The loop itself: dataset, student, verdict, route, and the test split through the gateway.

In: a demo's project with its traffic recorded. Out: its figures, filled in step by step. Every
figure about serving is computed from answers that came over HTTP by the official OpenAI client
(test_demo_sends_the_whole_test_split); develop tunes, certify is asked once, test comes last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ownweights.cli.demo.rehearsal import Figures, Plan
from ownweights.cli.output import Progress, say
from ownweights.core.errors import CompleterError, ContextTooLong, Ineligible, TermsRefused
from ownweights.core.project import Project

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

    from ownweights.core.artefact import Artefact
    from ownweights.core.completer import Completer
    from ownweights.dataset import Dataset, Example
    from ownweights.verdict import Check, Subject, Verdict

CONCURRENCY = 24
CLIENT_TIMEOUT_S = 120.0
NO_RULE = "test answers are not compared: a judge decided this verdict, and no rule can repeat it"


@dataclass(frozen=True, slots=True)
class Served:
    """One answer that came through the gateway."""

    by: str
    harm: float | None  # None: no rule compares it


def make_dataset(project: Project, workload: str, figures: Figures) -> Dataset | None:
    """Build the dataset; None, with the reasons noted, when none can lead to a certificate."""
    from ownweights.cli.dataset import options_of
    from ownweights.cli.trial import claim_of
    from ownweights.core.settings import load_settings
    from ownweights.dataset import build_dataset
    from ownweights.traffic import TrafficStore
    from ownweights.verdict.preview import fewest_units
    from ownweights.verdict.statistics import attempt_delta

    settings = load_settings(project)
    claim = claim_of(settings.verdict_of(workload))
    figures.claim = {"alpha": claim.alpha, "beta": claim.beta, "delta": claim.delta}
    options = options_of(settings, workload)
    dataset: Dataset | None = None
    try:
        with TrafficStore.open(project) as store:
            dataset = build_dataset(
                store.records(workload), project, workload=workload, options=options
            )
    except TermsRefused as refused:
        figures.reasons.append(f"{refused.what} ({refused.hint})")
    units = _units(project, workload, options, figures, dataset)
    needed = fewest_units(claim, attempt_delta(claim.delta, 1))
    if units < needed:
        figures.reasons.append(
            f"too few independent units: certify holds {units}, a certificate needs at least"
            f" {needed} even if no answer does harm"
        )
    if dataset is not None:
        counts = ", ".join(f"{name} {count:,}" for name, count in figures.splits.items())
        say(f"2 dataset  {dataset.id}: {counts}; split by {dataset.split_by}")
    return None if figures.reasons else dataset


def _units(
    project: Project, workload: str, options: Any, figures: Figures, dataset: Dataset | None
) -> int:
    """Independent certify units; also notes the sizes of the splits."""
    from ownweights.dataset.split import SPLITS, split_of
    from ownweights.dataset.unit import choose_split_by, unit_of
    from ownweights.traffic import TrafficStore

    if dataset is not None:
        figures.splits = dict(dataset.counts)
        return len({example.unit for example in dataset.iter_examples("certify")})
    with TrafficStore.open(project) as store:
        records = list(store.records(workload))
    split_by = choose_split_by(records, options.split_by).name
    units = [unit_of(record, split_by) for record in records]
    splits = [split_of(unit, options.fractions, options.salt) for unit in units]
    figures.splits = {name: splits.count(name) for name in SPLITS}
    return len({u for u, split in zip(units, splits, strict=True) if split == "certify"})


def make_student(project: Project, dataset: Dataset, figures: Figures) -> Artefact:
    """Train (or finish training) the student that the settings describe."""
    from ownweights.cli.student import options_of, train_with_progress
    from ownweights.core.settings import load_settings

    settings = load_settings(project).student_of(dataset.workload)
    student = train_with_progress(project, dataset, options_of(settings))
    facts = student.card["facts"]
    figures.student = {
        "base": student.card["identity"]["base_name"],
        "trainable_params": facts["trainable_params"], "seconds": facts["seconds"],
        "tokens_per_s": facts["tokens_per_s"],
    }  # fmt: skip
    say(
        f"3 student  {student.id}: {facts['trainable_params']:,} trainable parameters,"
        f" {facts['seconds']:.0f} s, {facts['tokens_per_s']:,.0f} tokens/s,"
        f" develop loss {facts['develop_loss']}"
    )
    return student


def make_verdict(
    project: Project, dataset: Dataset, student: Artefact, figures: Figures
) -> Verdict:
    """Certify or refuse the student; measure its exact answers on the test split too."""
    from ownweights.engine.client import EngineProcess

    engine = EngineProcess.start(project, [student.id])
    try:
        completer = engine.completer(student.id)
        return asyncio.run(_judge(project, dataset, student, completer, figures))
    finally:
        engine.stop()


async def _judge(
    project: Project, dataset: Dataset, student: Artefact, completer: Completer, figures: Figures
) -> Verdict:
    from ownweights.cli.trial import check_of, claim_of, judging, teacher_state
    from ownweights.core.settings import load_settings
    from ownweights.route import unanswerable
    from ownweights.verdict import RunOptions, report_text, run_verdict_async

    settings, workload = load_settings(project), dataset.workload
    wanted = settings.verdict_of(workload)
    options = RunOptions(
        ineligible=unanswerable, agreement=wanted.agreement, streaming=wanted.streaming,
        timeout_s=settings.route_of(workload).timeout_s,
        teacher_state=teacher_state(project, settings, workload),
    )  # fmt: skip
    async with judging(project, workload, settings, CONCURRENCY) as judge:
        with Progress("verdict") as bar:
            verdict = await run_verdict_async(
                dataset, completer, project, student.id, claim=claim_of(wanted),
                check=judge or check_of(project, wanted), on_progress=bar, options=options,
            )  # fmt: skip
    figures.verdict = verdict
    say(report_text(verdict))
    check = rule_of(project, verdict.subject)
    if check is None:
        say(NO_RULE)
        return verdict
    test = dataset.examples("test")
    with Progress("test split, student alone", total=len(test)) as bar:
        harms = await _ask_directly(test, completer, check, bar)
    figures.exact_frac = round(sum(harm == 0 for harm in harms) / max(1, len(harms)), 4)
    return verdict


def rule_of(project: Project, subject: Subject) -> Check | None:
    """The check that compares test answers as the verdict did; None where a judge compared them."""
    from ownweights.verdict import check_named

    return None if subject.judge else check_named(subject.check, project.root)


async def _ask_directly(
    examples: Sequence[Example], completer: Completer, check: Check, bar: Progress
) -> list[float]:
    from ownweights.core.chat import ChatRequest

    gate, done = asyncio.Semaphore(CONCURRENCY), 0

    async def ask(example: Example) -> float:
        nonlocal done
        async with gate:
            try:
                request = ChatRequest.of(example.messages)
                text = (await completer.complete(request)).text
            except (CompleterError, ContextTooLong, Ineligible):
                text = None
        done += 1
        bar(done, len(examples))
        return _harm(check, text, example)

    return list(await asyncio.gather(*map(ask, examples)))


def _harm(check: Check, text: str | None, example: Example) -> float:
    """What cannot be judged counts as harm here, as it does for the certificate."""
    harm = check.harm(text, example.references)
    return 1.0 if harm is None else harm


def send_test_split(base_url: str, dataset: Dataset, check: Check | None, figures: Figures) -> None:
    """Ask every test request through the gateway with the official client; note who answered.

    Without a check nothing is known of harm, and the figures about it stay None.
    """
    examples = dataset.examples("test")
    began = time.monotonic()
    with Progress("test split, through the gateway", total=len(examples)) as bar:
        answers = asyncio.run(_ask_gateway(base_url, examples, check, bar))
    seconds = time.monotonic() - began
    num_student = sum(one.by == "student" for one in answers)
    figures.served = {"student": num_student, "teacher": len(answers) - num_student}
    if check is not None:
        figures.test_harm_frac = _mean(answers)
        figures.test_selective_harm_frac = _mean([one for one in answers if one.by == "student"])
    worse = "not compared" if check is None else f"{figures.test_harm_frac:.2%} of all"
    share = num_student / max(1, len(answers))
    say(
        f"6 served   {len(answers):,} test requests over HTTP in {seconds:.0f} s:"
        f" student {num_student:,} ({share:.1%}), teacher {figures.served['teacher']:,};"
        f" worse: {worse}"
    )


def _mean(answers: Sequence[Served]) -> float:
    return round(sum(one.harm or 0.0 for one in answers) / max(1, len(answers)), 4)


async def _ask_gateway(
    base_url: str, examples: Sequence[Example], check: Check | None, bar: Progress
) -> list[Served]:
    from openai import APIError, AsyncOpenAI

    gate, done = asyncio.Semaphore(CONCURRENCY), 0

    async with AsyncOpenAI(
        base_url=base_url, api_key="unused", timeout=CLIENT_TIMEOUT_S, max_retries=0
    ) as client:

        async def ask(example: Example) -> Served:
            nonlocal done
            async with gate:
                try:
                    raw = await client.chat.completions.with_raw_response.create(
                        **_call(example.request)
                    )
                    by = raw.headers.get("x-own-served-by", "nobody")
                    parsed: ChatCompletion = raw.parse()
                    text = parsed.choices[0].message.content
                except APIError:
                    by, text = "nobody", None
            done += 1
            bar(done, len(examples))
            return Served(by, None if check is None else _harm(check, text, example))

        return list(await asyncio.gather(*map(ask, examples)))


def _call(body: dict[str, Any]) -> dict[str, Any]:
    """A recorded body as the client's arguments; what it does not know goes in `extra_body`."""
    known = {key: body[key] for key in ("messages", "model") if key in body}
    extra = {key: value for key, value in body.items() if key not in known}
    return {"model": "any", **known, **({"extra_body": extra} if extra else {})}


def prepare(project: Project, plan: Plan, workload: str, figures: Figures) -> Dataset | None:
    """Dataset, student and verdict in a row; the dataset, or None where nothing was trained."""
    dataset = make_dataset(project, workload, figures)
    if dataset is None:
        return None
    student = make_student(project, dataset, figures)
    make_verdict(project, dataset, student, figures)
    return dataset
