"""The demo's own traffic: customers write to a parcel service, a scripted teacher answers in JSON.

In: a seed and a count. Out: recorded requests in the chat format of `own traffic import`. Most
answers follow from the words of the message. About one in eight asks what only the teacher's
records hold (when a parcel comes, what is owed), so that no student can know it: those must go on
to the teacher.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

MODEL = "scripted-teacher"
WORKLOAD = "parcels"
SYSTEM = (
    "You read one message to a parcel service and answer with JSON alone: action, and details"
    " (name to value, words as the customer wrote them)."
)

_ONSETS = tuple("b br d dr f g gr h k l m n p r s st t tr v w".split())  # noqa: SIM905
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_ENDS = ["n", "r", "s", "l", "m", "ck", "ndt", "rg", "ll", "x"]
_STREETS = ["Street", "Road", "Lane", "Square", "Avenue", "Hill", "Gate", "Row"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "tomorrow", "today"]
_PARTS = ["morning", "afternoon", "evening"]
_THINGS = (
    "lamp", "bicycle wheel", "box of books", "winter coat", "coffee grinder", "guitar", "carpet",
    "set of knives", "printer", "garden chair", "pair of boots", "mirror", "aquarium",
    "sewing machine", "crate of wine",
)  # fmt: skip
_HARM = ["broken", "wet", "scratched", "half empty", "missing its lid", "open", "bent", "in pieces"]
_HELLO = ["", "Hi, ", "Hello, ", "hello ", "Good morning. ", "Please help: ", "hey ", "Dear team, "]
_BYE = ["", ". Thanks", ", thank you", ".", " please", ". Regards, {name}", ", thanks a lot", "!"]
Written = tuple[str, str, dict[str, str]]


def generate_requests(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` recorded requests with the scripted teacher's answers."""
    rng = random.Random(f"parcels-{seed}")
    for index in range(count):
        text, answer = _one_message(rng)
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer},
            "finish_reason": "stop",
        }
        yield {
            "id": f"parcels-{seed}-{index:06d}",
            "request": {"model": MODEL, "messages": messages},
            "response": {"model": MODEL, "choices": [choice]},
            "metadata": {"workload": WORKLOAD},
        }


def _one_message(rng: random.Random) -> tuple[str, str]:
    name, parcel = _name(rng), _parcel(rng)
    writer = rng.choices(_WRITERS, weights=_WEIGHTS)[0]
    text, action, details = writer(rng, name, parcel)
    text = rng.choice(_HELLO) + text + rng.choice(_BYE).format(name=name)
    if rng.random() < 0.3:
        text = text.replace("I ", "i ").replace("’", "'")
    value = {"action": action, "details": details}
    return text, json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _name(rng: random.Random) -> str:
    return " ".join(
        "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 2)))
        .capitalize() + rng.choice(_ENDS)
        for _ in range(rng.randint(1, 2))
    )  # fmt: skip


def _parcel(rng: random.Random) -> str:
    letters = "".join(rng.choices("ABCDEFGHKLMNPRST", k=2))
    return f"{letters}{rng.randint(1000, 99999)}"


def _address(rng: random.Random) -> str:
    return f"{rng.randint(1, 199)} {_name(rng)} {rng.choice(_STREETS)}"


def _move(rng: random.Random, name: str, parcel: str) -> Written:
    day, part = rng.choice(_DAYS), rng.choice(_PARTS)
    text = rng.choice(
        [
            f"can you bring {parcel} on {day} {part} instead",
            f"I am not in. Move parcel {parcel} to {day} {part}",
            f"new day for {parcel}: {day}, in the {part}",
            f"nobody home before {day} {part}, so deliver {parcel} then",
        ]
    )
    return text, "reschedule", {"parcel": parcel, "day": day, "part": part}


def _redirect(rng: random.Random, name: str, parcel: str) -> Written:
    address = _address(rng)
    text = rng.choice(
        [
            f"send {parcel} to {address} instead",
            f"we moved! parcel {parcel} must go to {address}",
            f"my new address is {address}, it is about {parcel}",
            f"please redirect {parcel}, the right address is {address}",
        ]
    )
    return text, "redirect", {"parcel": parcel, "address": address}


def _neighbour(rng: random.Random, name: str, parcel: str) -> Written:
    text = rng.choice(
        [
            f"leave {parcel} with my neighbour {name}",
            f"you may give {parcel} to {name} next door",
            f"{name} will take {parcel} for me",
        ]
    )
    return text, "leave_with", {"parcel": parcel, "person": name}


def _damage(rng: random.Random, name: str, parcel: str) -> Written:
    thing, harm = rng.choice(_THINGS), rng.choice(_HARM)
    text = rng.choice(
        [
            f"the {thing} in {parcel} is {harm}",
            f"I opened {parcel} and my {thing} was {harm}",
            f"{parcel} came today, {thing} {harm}. What now",
        ]
    )
    return text, "damage", {"parcel": parcel, "thing": thing, "state": harm}


def _pickup(rng: random.Random, name: str, parcel: str) -> Written:
    thing, address, day = rng.choice(_THINGS), _address(rng), rng.choice(_DAYS)
    text = rng.choice(
        [
            f"collect a {thing} from {address} {day}",
            f"I want to send a {thing}. Pick it up at {address}, {day} suits me",
        ]
    )
    return text, "pickup", {"thing": thing, "address": address, "day": day}


def _when(rng: random.Random, name: str, parcel: str) -> Written:
    text = rng.choice(
        [f"where is {parcel}", f"when does {parcel} come", f"{parcel} is late, where is it"]
    )
    known = hashlib.sha256(parcel.encode()).digest()
    return text, "where", {"parcel": parcel, "day": _DAYS[known[0] % 6], "van": str(known[1])}


def _owed(rng: random.Random, name: str, parcel: str) -> Written:
    known = hashlib.sha256(f"owed {parcel}".encode()).digest()
    text = rng.choice([f"what do I still owe for {parcel}", f"how much is the duty on {parcel}"])
    return text, "owed", {"parcel": parcel, "euro": f"{known[0] % 90}.{known[1] % 100:02d}"}


_WRITERS: list[Callable[[random.Random, str, str], Written]] = [
    _move, _redirect, _neighbour, _damage, _pickup, _when, _owed,
]  # fmt: skip
_WEIGHTS = [20, 18, 14, 20, 16, 7, 5]
