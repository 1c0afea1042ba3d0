"""The whole story in one run: certify, canary, promote; then everything that may go wrong.

Caveats first: the teacher is a replay of recorded answers; "harm" is what the certificate's check
says against them; corruption is injected into answers (another request's answer, as sure as the
right one would be), because a student that turns wrong and unsure merely falls below the threshold.
The students are asked once and their answers kept, so that fifty rollouts take minutes; gateway,
audits, detector and rollback are the real ones, over HTTP. There is no peer: nothing else closes
this loop.

Cases:
  story      `own demo` on the traffic: hours, certified coverage, what is still paid to the teacher
             (`cost_frac`: 1 is renting everything; audits included)
  rollback   50 runs of a canary that stands at its first step: after 60 good audits, half of the
             answers are corrupted; a violation is a run that was not rolled back within the audits
             foretold for 9 in 10 (`coverage_frac`: share rolled back at all)
  served     the same of a route that serves every session and audits a quarter of its answers, and
             three times as many of the least sure
  drift      the endpoint is our own engine; its adapter is exchanged behind it, twice the same
             first: `own drift run` must say same, then changed; the certificate must be void and
             the route gone
  refusal    the same answers judged against shuffled references: a workload that the student cannot
             do; a violation is a certificate

`OWN_LOOP_DIR` names a finished folder of `own demo` to go on from. Reproduce:
make bench NAME=loop (quick: generated requests, 10 rollouts).
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.result import circumstances, simulation_line
from ownweights.core.artefact import CARD_NAME, draft_folder, open_artefact, seal
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.project import Project
from ownweights.dataset import load_dataset
from ownweights.engine.client import EngineProcess
from ownweights.route import Route, active_id, active_routes, write_route
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import Evidence, next_standing
from ownweights.route.foretell import foretell
from ownweights.route.live import watch_of
from ownweights.route.rollout import Stage, Standing, first_standing, is_drawn
from ownweights.route.route import stand
from ownweights.teacher.asgi import decode_json, read_body, run_lifespan, send_json
from ownweights.teacher.replay import RecordedAnswer, ReplayTeacher
from ownweights.teacher.wire import completion_body
from ownweights.verdict import load_verdict
from ownweights.verdict.decision import Spend, certify
from ownweights.verdict.store import load_rows
from ownweights.verdict.voiding import void_reason
from tests.gateway.harness import Engines, gateway
from tests.teacher.servers import running

GOOD_AUDITS, MOST_AUDITS = 60, 400
CORRUPT_FRAC = 0.5
SERVED_AUDIT_FRAC = 0.25  # more than one would: each audit costs four requests, not fifty
CASE_OF: dict[Stage, str] = {"canary": "rollback", "served": "served"}
RUNS, QUICK_RUNS = 50, 10
WAIT_S = 30.0
COMMON = {"packages": ("torch", "ownweights")}


def cases(*, is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """The story, then what goes wrong; fails when something did not go as it should."""
    name = "generated" if is_quick else "assistant.jsonl.gz"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.environ.get("OWN_LOOP_DIR") or f"{folder}/demo")
        told = _demo(place, None if is_quick else name, seed or 1)
        project = Project(place)
        story = _Story(project, name, seed)
        yield _story_line(story, told)
        for play in (story.rollback, story.served, story.drift, story.refusal):
            line = play(QUICK_RUNS if is_quick else RUNS)
            yield line
            most = line["delta"] + 3 * (line["delta"] * (1 - line["delta"]) / line["trials"]) ** 0.5
            if line["violation_frac"] > most:
                raise SystemExit(f"{line['case']}: {line['violation_frac']} is more than {most}")


def _demo(place: Path, traffic: str | None, seed: int) -> dict[str, Any]:
    """Run `own demo` in a folder, or read what it said there before."""
    kept = place / "loop.json"
    if not kept.exists():
        words = ["demo", "--no-serve", "--json", "--seed", str(seed), "--dir", str(place)]
        if traffic is not None:
            words += ["--traffic", str(Path(os.environ["OWN_TEST_DATA"]) / "traffic" / traffic)]
        done = subprocess.run(
            [sys.executable, "-m", "ownweights.cli", *words], stdout=subprocess.PIPE, text=True,
            check=True,
        )  # fmt: skip
        kept.write_text(done.stdout.splitlines()[-1])
    return json.loads(kept.read_text())


def _story_line(story: _Story, told: dict[str, Any]) -> dict[str, Any]:
    coverage, route = told["certificate"]["coverage_frac"], story.route
    keys = ("exact_frac", "test_harm_frac", "test_selective_harm_frac", "served", "wall_s")
    return {
        "bench": "loop", "case": f"story {story.name}",
        "hours": round(told["wall_s"] / 3600, 3), "coverage_frac": coverage,
        "cost_frac": round(1 - coverage * (1 - route.audit_frac), 4),
        **{key: told[key] for key in keys},
        **circumstances(None, story.name, 1, story.seed, COMMON["packages"]),
    }  # fmt: skip


class _Story:
    """A certified student, its answers to the test split, and what is done to them."""

    def __init__(self, project: Project, name: str, seed: int) -> None:
        self.project, self.name, self.seed = project, name, seed
        (self.route,) = active_routes(project).values()
        self.verdict = load_verdict(project, self.route.verdict_id)
        dataset = load_dataset(project, self.verdict.subject.dataset)
        self.examples = [one for one in dataset.examples("test") if not one.request.get("stream")]
        self.answers = dict(
            zip((_asked(one.messages) for one in self.examples), self._ask(), strict=True)
        )
        self.teacher = ReplayTeacher(
            (one.request, RecordedAnswer(one.model, {"content": one.target}, "stop", None))
            for one in self.examples
        )

    def _ask(self) -> list[Completion]:
        """The student's answers, once."""
        engine = EngineProcess.start(self.project, [self.route.student_id])

        async def ask_all() -> list[Completion]:
            completer, gate = engine.completer(self.route.student_id), asyncio.Semaphore(32)

            async def ask(messages: Any) -> Completion:
                async with gate:
                    return await completer.complete(
                        ChatRequest.of(messages, self.route.student_id, temperature=0)
                    )

            return await asyncio.gather(*(ask(list(one.messages)) for one in self.examples))

        try:
            return asyncio.run(ask_all())
        finally:
            engine.stop()

    def rollback(self, runs: int) -> dict[str, Any]:
        """How many canaries were not rolled back as soon as was foretold for nine in ten."""
        return self._rolled_back(self.route, "canary", runs)

    def served(self, runs: int) -> dict[str, Any]:
        """How many served routes were not rolled back as soon as was foretold for nine in ten."""
        route = dataclasses.replace(self.route, audit_frac=SERVED_AUDIT_FRAC)
        return self._rolled_back(route, "served", runs)

    def _rolled_back(self, route: Route, stage: Stage, runs: int) -> dict[str, Any]:
        foretold = next(
            one for one in foretell(route) if (one.stage, one.harm) == (stage, CORRUPT_FRAC)
        )
        assert foretold.p90 is not None, "half of the answers wrong is caught"
        with running(self.teacher) as url:
            delays = [self._delay(f"{url}/v1", route, stage, run) for run in range(runs)]
        print(f"foretold {foretold}; audits: {sorted(delays)}", file=sys.stderr)
        late = sum(delay > foretold.p90 for delay in delays)
        return simulation_line(
            "loop", f"{CASE_OF[stage]} {self.name} harm={CORRUPT_FRAC} p90={foretold.p90}",
            violations=late, trials=runs, delta=0.10, workload=self.name, seed=self.seed,
            coverage_frac=sum(delay <= MOST_AUDITS for delay in delays) / runs, **COMMON,
        )  # fmt: skip

    def _delay(self, teacher_url: str, certified: Route, stage: Stage, run: int) -> int:
        """Audits from the corruption to the rollback, in one run through the gateway."""
        rng = random.Random(f"{self.seed}/{run}")
        texts = list(self.answers)
        is_corrupt = False

        def answer(request: ChatRequest) -> Completion:
            known = self.answers[_asked(request.messages)]
            if is_corrupt and rng.random() < CORRUPT_FRAC:
                other = self.answers[rng.choice(texts)]
                return dataclasses.replace(known, text=other.text)
            return known

        with tempfile.TemporaryDirectory() as folder:
            project = Project(Path(folder))
            route = _followed(project, certified, stage, run)
            sessions = _drawn(route)
            log, watch = AuditLog(project, route.id), watch_of(route)
            with gateway(project, teacher_url, engines=Engines(answer)) as one:
                one.until("ready")
                while len(log.since()[0]) < GOOD_AUDITS:
                    one.post(
                        dict(rng.choice(self.examples).request), **_named(route, next(sessions))
                    )
                _settle(log)
                num_good, is_corrupt = len(log.since()[0]), True
                while active_id(project, route.workload) is not None:
                    one.post(
                        dict(rng.choice(self.examples).request), **_named(route, next(sessions))
                    )
                    if len(log.since()[0]) > num_good + MOST_AUDITS:
                        return MOST_AUDITS + 1
            evidence, standing = Evidence.start(watch), first_standing(route.id, stage)
            for number, audit in enumerate(log.since()[0], 1):
                evidence = evidence.after(audit, watch)
                if isinstance(next_standing(standing, evidence, watch), str):
                    return number - num_good
        raise AssertionError("the gateway rolled back, its log does not")

    def refusal(self, runs: int) -> dict[str, Any]:
        """Whether answers to other requests are ever certified."""
        rows, _ = load_rows(self.project, self.verdict.id)
        issued = 0
        for run in range(runs):
            rng = np.random.default_rng((self.seed, run))
            wrong = [dataclasses.replace(row, harm=float(rng.random() < 0.5)) for row in rows]
            found = certify(self.verdict.claim, self.verdict.subject, wrong, Spend(1, 0.03))
            issued += found.issued
        return simulation_line(
            "loop", f"refusal {self.name}", violations=issued, trials=runs, delta=0.05,
            coverage_frac=0.0, workload=self.name, seed=self.seed, **COMMON,
        )  # fmt: skip

    def drift(self, runs: int) -> dict[str, Any]:
        """Whether an adapter exchanged behind the endpoint is found, and what follows from it."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Project(Path(folder) / "project")
            shutil.copytree(self.project.root, copy.root)
            other = _bent_student(copy, self.route.student_id)
            engine = EngineProcess.start(copy, [self.route.student_id, other])
            endpoint = _Endpoint(engine, self.route.student_id, self.verdict.subject.teachers[0])
            try:
                with running(endpoint) as url:
                    _point(copy, f"{url}/v1")
                    said = [_drift_run(copy), _drift_run(copy)]
                    endpoint.student_id = other
                    said.append(_drift_run(copy))
            finally:
                engine.stop()
            is_void = void_reason(copy, self.verdict.id) is not None
            is_back = active_id(copy, self.route.workload) is None
        print(f"drift exit codes {said}, void {is_void}, back {is_back}", file=sys.stderr)
        is_right = said[1:] == [0, 4] and is_void and is_back
        return simulation_line(
            "loop", f"drift {self.name}", violations=int(not is_right), trials=1, delta=0.05,
            coverage_frac=0.0 if is_back else 1.0, workload=self.name, seed=self.seed, **COMMON,
        )  # fmt: skip


def _followed(project: Project, certified: Route, stage: Stage, run: int) -> Route:
    """The certified route in a project of its own, frozen where the stage begins."""
    fresh = dataclasses.replace(
        certified, timeout_s=10.0 + run / 1000, id="", path=None, standing=None
    )
    route = write_route(project, fresh)
    first = first_standing(route.id, stage)
    stand(project, route.workload, dataclasses.replace(first, is_frozen=True), reason="bench")
    return route


class _Endpoint:
    """Our engine as a rented endpoint: OpenAI's chat completions, one student at a time."""

    def __init__(self, engine: EngineProcess, student_id: str, model: str) -> None:
        self.engine, self.student_id, self.model = engine, student_id, model

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":

            async def nothing() -> None: ...

            await run_lifespan(receive, send, nothing, nothing)
            return
        body = decode_json(await read_body(receive, 2**20))
        asked = {key: body[key] for key in ("messages", "max_tokens") if body.get(key)}
        completer = self.engine.completer(self.student_id)
        try:
            request = ChatRequest({**asked, "model": self.student_id, "temperature": 0})
            found = await completer.complete(request)
        finally:
            await completer.close()
        await send_json(send, 200, completion_body(
            found.text or "", completion_id="chatcmpl-1", model=self.model,
            finish_reason=found.finish_reason, created=int(time.time()), usage=found.usage,
        ))  # fmt: skip


def _bent_student(project: Project, student_id: str) -> str:
    """The student with its adapter turned down by half: another model under the same name."""
    from safetensors.torch import load_file, save_file

    from ownweights.weights.canary import CANARY_NAME

    student = open_artefact(project.kind_dir("student"), student_id, "student")
    with draft_folder(project.kind_dir("student")) as draft:
        shutil.copytree(student.path, draft, dirs_exist_ok=True)
        (draft / CARD_NAME).unlink()
        (draft / CANARY_NAME).unlink(missing_ok=True)  # it would give the exchange away
        for path in draft.rglob("adapter_model.safetensors"):
            halved = {n: w / 2 if "lora_b" in n.lower() else w for n, w in load_file(path).items()}
            save_file(halved, path, metadata={"format": "pt"})
        made = seal(draft, "student", identity=student.card["identity"],
                    parents=student.card["parents"], facts=student.card["facts"])  # fmt: skip
    assert made.id != student_id, "half an adapter is another one"
    return made.id


def _point(project: Project, base_url: str) -> None:
    """Let own.toml's teacher be that endpoint."""
    lines = project.settings_path.read_text().splitlines()
    text = [f'base_url = "{base_url}"' if line.startswith("base_url") else line for line in lines]
    project.settings_path.write_text("\n".join([*text, "[drift]", "num_probes = 0", ""]))


def _drift_run(project: Project) -> int:
    """The exit code of `own drift run`."""
    words = ["--project", str(project.root), "drift", "run"]
    done = subprocess.run([sys.executable, "-m", "ownweights.cli", *words], check=False)
    return done.returncode


def _asked(messages: Any) -> str:
    return str(list(messages)[-1]["content"])


def _named(route: Route, session: str) -> dict[str, str]:
    return {"x_own_workload": route.workload, "x_own_session": session}


def _drawn(route: Route) -> Iterator[str]:
    """Sessions that the first step of the canary draws."""
    standing = Standing(route.id, "canary", first_standing(route.id, "canary").share)
    return (f"s{i}" for i in itertools.count() if is_drawn(standing, f"s{i}", ""))


def _settle(log: AuditLog) -> None:
    """Wait until audits under way are written."""
    before, give_up_s = -1, time.monotonic() + WAIT_S
    while (now := len(log.since()[0])) != before and time.monotonic() < give_up_s:
        before = now
        time.sleep(0.3)
