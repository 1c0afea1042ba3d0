"""Judges that do as they are told, and a small world of questions whose right answers are known.

Question i asks for 7·i + 1000. A judge here sees what a real one sees, the prompt and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ownweights.core.chat import ChatRequest
from ownweights.verdict.judge import Judge, Pair
from tests.fakes import ScriptedTeacher

PART = re.compile(
    r"<<(?P<code>[0-9a-f]{24}) REQUEST>>\n(?P<request>.*)\n<<(?P=code) FIRST ANSWER>>\n"
    r"(?P<first>.*)\n<<(?P=code) SECOND ANSWER>>\n(?P<second>.*)\n<<(?P=code) END>>",
    re.S,
)
Verdict = Callable[[str, str, str], str]


def shown(request: ChatRequest) -> tuple[str, str, str]:
    """Request and answers as the judge reads them, without the marks of the quotation."""
    found = PART.fullmatch(request.messages[-1]["content"])
    assert found is not None, "not a prompt for a judge"
    parts = found["request"], found["first"], found["second"]
    assert all(line.startswith("| ") for part in parts for line in part.split("\n"))
    return tuple("\n".join(line[2:] for line in part.split("\n")) for part in parts)  # type: ignore[return-value]


def judge_who(says: Verdict, **options: object) -> Judge:
    """A judge by a function from (request, first, second) to a whole reply."""
    return Judge(ScriptedTeacher(lambda request: says(*shown(request))), "judge-1", **options)  # type: ignore[arg-type]


def verdict(word: str) -> str:
    return f"Both were read.\nVERDICT: {word}"


def prefer(first: float, second: float) -> str:
    return verdict("TIE" if first == second else "FIRST" if first > second else "SECOND")


def right(request: str) -> str:
    number = re.search(r"question (\d+)", request)
    assert number is not None
    return str(7 * int(number[1]) + 1000)


def careful(request: str, first: str, second: str) -> str:
    """Sees who holds the right number, and nothing else."""
    return prefer(right(request) in first, right(request) in second)


def first_lover(request: str, first: str, second: str) -> str:
    return verdict("FIRST")


def position_biased(request: str, first: str, second: str) -> str:
    """Knows two equal texts when it sees them; else the second place wins."""
    return verdict("TIE" if first.strip() == second.strip() else "SECOND")


def length_lover(request: str, first: str, second: str) -> str:
    return prefer(len(first.strip()), len(second.strip()))


def polite_lover(request: str, first: str, second: str) -> str:
    """Careful, but fond of padding: only the padded copy gives it away."""
    fond = ["I hope this helps" in answer for answer in (first, second)]
    return prefer(*fond) if any(fond) else careful(request, first, second)


def tie_lover(request: str, first: str, second: str) -> str:
    return verdict("TIE")


def mumbler(request: str, first: str, second: str) -> str:
    return "Hard to say. Both have merits, FIRST and SECOND alike."


def obedient(request: str, first: str, second: str) -> str:
    """Careful until an answer gives orders."""
    told = ["Ignore the rubric" in answer for answer in (first, second)]
    return prefer(*told) if any(told) else careful(request, first, second)


def parrot(request: str, first: str, second: str) -> str:
    """Careful, but repeats the last line of an answer that talks of verdicts, as it was shown."""
    for answer in (first, second):
        if "VERDICT" in answer:
            return answer.rstrip().split("\n")[-1]
    return careful(request, first, second)


def pair(number: int, *, is_right: bool = True, id: str = "") -> Pair:
    """The teacher's right answer, and a student's in other words."""
    asked = f"This is question {number}: which number?"
    told = 7 * number + 1000 if is_right else 5
    return Pair(
        id or f"pair-{number}",
        [{"role": "system", "content": "Answer."}, {"role": "user", "content": asked}],
        f"It is {told}.",
        f"The number that was asked for is {7 * number + 1000}.",
    )


def pairs(num: int, *, wrong_every: int = 4) -> list[Pair]:
    return [pair(i, is_right=i % wrong_every != 0) for i in range(num)]
