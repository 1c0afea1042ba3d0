"""What stands in for an engine, its student and a rented judge, in the tests of commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from ownweights.core.artefact import draft_folder, seal
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.project import Project
from tests.fakes import ScriptedTeacher, last_user_text
from tests.verdict import worlds


class StoodInEngine:
    """An engine whose student knows the answer to most requests."""

    started: tuple[str, ...] = ()
    harm_frac = 0.0
    wording = "answer {}"
    asked: ClassVar[list[str]] = []

    @classmethod
    def start(cls, project: Project, student_ids: Iterable[str]) -> StoodInEngine:
        cls.started, cls.asked = tuple(student_ids), []
        cls.is_stopped = False
        return cls()

    def completer(self, student_id: str) -> ScriptedTeacher:
        def look_up(request: ChatRequest) -> Completion:
            self.asked.append(last_user_text(request))
            number = int(self.asked[-1].split()[-1])
            is_wrong = number % 100 < 100 * self.harm_frac
            text = "wrong" if is_wrong else self.wording.format(number)
            return worlds.answer(text, 5.0 if is_wrong else 0.1 + number % 7 / 100)

        return ScriptedTeacher(look_up)

    def stop(self) -> None:
        type(self).is_stopped = True


def seal_student(project: Project) -> str:
    """A dataset of 300 requests a split on disk, and the card of a student that learned it."""
    with draft_folder(project.kind_dir("dataset")) as draft:
        for split in ("train", "develop", "certify", "test"):
            lines: list[str] = []
            for number in range(300):
                text = f"{split} question {number}"
                row: dict[str, Any] = {
                    "id": f"{split}-{number}", "unit": f"prompt:{text}",
                    "request": {"messages": [{"role": "user", "content": text}]},
                    "target": f"answer {number}", "references": [f"answer {number}"],
                    "model": "rented-1", "metadata": {},
                }  # fmt: skip
                lines.append(json.dumps(row) + "\n")
            (draft / f"{split}.jsonl").write_text("".join(lines))
        dataset = seal(
            draft, "dataset",
            identity={"workload": "tickets", "split_by": "prompt", "prune": None},
        )  # fmt: skip
    with draft_folder(project.kind_dir("student")) as draft:
        (draft / "adapter_config.json").write_text("{}")
        return seal(draft, "student", identity={}, parents={"dataset": dataset.id}).id


def careful(request: ChatRequest) -> str:
    """Says which answer holds the number that was asked for."""
    text = request.messages[-1]["content"]
    asked, first, second = re.split(r"<<[0-9a-f]{24} (?:FIRST|SECOND) ANSWER>>", text)
    number = re.search(r"question (\d+)", asked)
    assert number is not None
    is_right = [f"answer {number[1]}\n" in part or f"{number[1]}!" in part
                for part in (first, second)]  # fmt: skip
    word = "TIE" if is_right[0] == is_right[1] else "FIRST" if is_right[0] else "SECOND"
    return f"VERDICT: {word}"


class StoodInClient(ScriptedTeacher):
    """The client of a rented judge."""

    made: ClassVar[list[StoodInClient]] = []
    says: ClassVar[Callable[[ChatRequest], str]] = careful

    def __init__(self, base_url: str, **known: Any) -> None:
        super().__init__(type(self).says)
        self.base_url, self.known = base_url, known
        type(self).made.append(self)


JUDGED_BY = """
[teacher.main]
base_url = "http://127.0.0.1:1/v1"
[teacher.jury]
base_url = "http://127.0.0.1:2/v1"
model = "judge-9"
key_env = "JURY_KEY"
timeout_s = 7.0
[verdict.tickets]
rubric = "Numbers alone count."
judge = "main"
"""
