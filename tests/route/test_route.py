"""Routes on disk: written, read, followed, and rolled back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import (
    ArtefactError,
    ArtefactMissing,
    ArtefactUnwritten,
    InputError,
    UsageError,
)
from ownweights.core.project import Project
from ownweights.route import (
    NotCertified,
    activate,
    active_id,
    active_routes,
    list_routes,
    load_route,
    read_active,
    rollback,
    write_route,
)
from ownweights.route.rollout import Standing
from ownweights.route.route import stand
from ownweights.verdict.voiding import void_certificate
from tests.route.samples import drop_rule, follow, route_file, route_of


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def history(project: Project) -> list[dict[str, Any]]:
    lines = (project.kind_dir("route") / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt_hashes": ("a", "b"), "prune": drop_rule(), "decoding": {"max_tokens": 9}},
        {"confidence": {"kind": "logistic", "weights": [0.1, 1e-7], "center": [-3.0]}},
        {"threshold": 1e-300, "timeout_s": 0.5, "max_prompt_tokens": 7, "teacher": "http://x/v1"},
    ],
)
def test_load_route_reads_what_was_written(project: Project, fields: dict[str, Any]) -> None:
    written = write_route(project, route_of(**fields))
    assert written.path == route_file(project, written.id)
    assert load_route(project, written.id) == written
    assert load_route(project, written.id[:5]) == written


@given(
    threshold=st.floats(allow_nan=False, allow_infinity=False),
    weights=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    teacher=st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
def test_route_always_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, threshold: float, weights: list[float], teacher: str
) -> None:
    project = Project(tmp_path_factory.mktemp("route"))
    confidence = {"kind": "logistic", "weights": weights}
    route = route_of(threshold=threshold, confidence=confidence, teacher=teacher)
    written = write_route(project, route)
    again = load_route(project, written.id)
    assert (again.threshold, again.confidence, again.teacher) == (threshold, confidence, teacher)


def test_write_route_is_plain_toml_that_a_person_can_read(project: Project) -> None:
    route = write_route(project, route_of(prompt_hashes=("aa",)))
    text = route_file(project, route.id).read_text()
    assert text.startswith("# Written by `own route promote`")
    table = tomllib.loads(text)
    assert table["workload"] == "tickets"
    assert table["threshold"] == -0.5
    assert table["prompt_hashes"] == ["aa"]
    assert "max_prompt_tokens" not in table


def test_write_route_same_content_same_id(project: Project) -> None:
    first, second = write_route(project, route_of()), write_route(project, route_of())
    other = write_route(project, route_of(threshold=-0.4))
    assert first.id == second.id != other.id
    assert {route.id for route in list_routes(project)} == {first.id, other.id}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"workload": "../up"}, "cannot name a workload"),
        ({"student_id": ""}, "needs a student_id"),
        ({"verdict_id": ""}, "needs a student_id and a verdict_id"),
        ({"student_id": 7}, "student_id must be text"),
        ({"threshold": float("nan")}, "threshold must be finite"),
        ({"threshold": float("inf")}, "threshold must be finite"),
        ({"threshold": "high"}, "threshold must be a number, got 'high'"),
        ({"threshold": True}, "threshold must be a number"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"max_prompt_tokens": -1}, "max_prompt_tokens must be above 0"),
        ({"prompt_hashes": (1,)}, "prompt_hashes must be a list of texts"),
        ({"confidence": {}}, "confidence must say its kind"),
        ({"confidence": "sure"}, "confidence must say its kind"),
        ({"prune": "no"}, "prune and decoding must be objects"),
        ({"decoding": 3}, "prune and decoding must be objects"),
    ],
)
def test_write_route_refuses_what_makes_no_sense(
    project: Project, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        write_route(project, route_of(**fields))
    assert list_routes(project) == []


def edit(project: Project, old: str, new: str) -> str:
    """Change a route's file; its id."""
    route = write_route(project, route_of())
    path = route_file(project, route.id)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return route.id


def test_load_route_refuses_an_edited_threshold(project: Project) -> None:
    route_id = edit(project, "threshold = -0.5", "threshold = -9.5")
    with pytest.raises(ArtefactError, match="changed afterwards") as caught:
        load_route(project, route_id)
    assert "certify again" in str(caught.value)


def test_load_route_refuses_an_unknown_key(project: Project) -> None:
    route_id = edit(project, "threshold =", "treshold =")
    with pytest.raises(InputError, match="unknown key 'treshold'") as caught:
        load_route(project, route_id)
    assert "did you mean 'threshold'?" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ("threshold = -0.5\n", "", InputError, "is not a route: .*threshold"),
        ("threshold = -0.5", "threshold = [", ArtefactError, "not readable TOML"),
        ("confidence = ", 'confidence = "{" # ', InputError, "is not a route"),
        ("timeout_s = 10.0", "timeout_s = -10.0", InputError, "timeout_s must be above 0"),
    ],
)
def test_load_route_refuses_a_damaged_file(
    project: Project, old: str, new: str, error: type[Exception], says: str
) -> None:
    route_id = edit(project, old, new)
    with pytest.raises(error, match=says):
        load_route(project, route_id)


def test_load_route_refuses_text_that_is_not_utf8(project: Project) -> None:
    route = write_route(project, route_of())
    route_file(project, route.id).write_bytes(b"\xff\xfe")
    with pytest.raises(ArtefactError, match="not readable TOML"):
        load_route(project, route.id)


@pytest.mark.parametrize("route_id", ["", "nothing", "../../own", "."])
def test_load_route_that_is_not_there_lists_those_that_are(project: Project, route_id: str) -> None:
    route = write_route(project, route_of())
    with pytest.raises(ArtefactMissing, match="does not exist") as caught:
        load_route(project, route_id)
    assert f"there are: {route.id}" in str(caught.value)


def test_load_route_ambiguous_prefix_is_refused(project: Project) -> None:
    ids = [write_route(project, route_of(threshold=-float(n))).id for n in range(1, 40)]
    shared = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(ArtefactMissing, match="is ambiguous"):
        load_route(project, shared)


def test_activate_makes_the_workload_follow(project: Project) -> None:
    assert active_routes(project) == {}
    route = follow(project)
    assert active_routes(project) == {"tickets": route}
    assert active_id(project, "tickets") == route.id
    assert active_id(project, "other") is None


def test_activate_another_workloads_route_is_refused(project: Project) -> None:
    route = write_route(project, route_of())
    with pytest.raises(UsageError, match="certified for workload 'tickets', not 'mail'"):
        activate(project, "mail", route.id)
    assert active_routes(project) == {}


@pytest.mark.parametrize("workload", ["../tickets", "", ".hidden", "a/b", "a\nb"])
def test_activate_and_rollback_refuse_names_that_are_paths(project: Project, workload: str) -> None:
    route = write_route(project, route_of())
    with pytest.raises(InputError, match="cannot name a workload"):
        activate(project, workload, route.id)
    with pytest.raises(InputError, match="cannot name a workload"):
        rollback(project, workload)


def test_activate_missing_route_changes_nothing(project: Project) -> None:
    route = follow(project)
    with pytest.raises(ArtefactMissing):
        activate(project, "tickets", "zzzz")
    assert active_id(project, "tickets") == route.id


def test_rollback_sends_the_workload_to_the_teacher(project: Project) -> None:
    route = follow(project)
    rollback(project, "tickets", reason="drift")
    assert active_routes(project) == {}
    assert load_route(project, route.id) == route


def test_rollback_to_an_older_route(project: Project) -> None:
    old, new = follow(project), follow(project, threshold=-0.3)
    assert active_id(project, "tickets") == new.id
    rollback(project, "tickets", to=old.id)
    assert active_id(project, "tickets") == old.id


def test_rollback_without_a_route_says_so(project: Project) -> None:
    with pytest.raises(UsageError, match="its teacher answers already"):
        rollback(project, "tickets")


def test_history_tells_every_swap(project: Project) -> None:
    old, new = follow(project), follow(project, threshold=-0.3)
    rollback(project, "tickets", to=old.id)
    rollback(project, "tickets", reason="drift")
    told = [(row["from"], row["to"], row["reason"]) for row in history(project)]
    assert told == [
        (None, old.id, "promoted"),
        (old.id, new.id, "promoted"),
        (new.id, old.id, "rolled back"),
        (old.id, None, "drift"),
    ]
    assert {row["workload"] for row in history(project)} == {"tickets"}


def test_read_active_keeps_the_sound_ones(project: Project) -> None:
    sound, broken = follow(project), follow(project, workload="mail")
    route_file(project, broken.id).write_text("threshold = 3")
    routes, faults = read_active(project)
    assert routes == {"tickets": sound}
    assert list(faults) == ["mail"]
    with pytest.raises(InputError):
        active_routes(project)


def test_read_active_pointer_to_nothing_is_a_fault(project: Project) -> None:
    route = follow(project)
    route_file(project, route.id).unlink()
    routes, faults = read_active(project)
    assert routes == {}
    assert isinstance(faults["tickets"], ArtefactMissing)


def test_read_active_pointer_to_another_workloads_route_is_a_fault(project: Project) -> None:
    route = follow(project)
    (project.kind_dir("route") / "active" / "mail").write_text(Standing(route.id).to_text())
    routes, faults = read_active(project)
    assert list(routes) == ["tickets"]
    assert "is workload 'tickets'" in str(faults["mail"])


def test_read_active_empty_pointer_is_no_route(project: Project) -> None:
    follow(project)
    (project.kind_dir("route") / "active" / "tickets").write_text("\n")
    assert read_active(project) == ({}, {})


def spoil_pointer(project: Project, how: str) -> Path:
    """Put something where the pointer of `tickets` is that cannot be read."""
    pointer = project.kind_dir("route") / "active" / "tickets"
    if how == "bytes":
        pointer.write_bytes(b"\xff\xfe")
        return pointer
    pointer.unlink()
    pointer.mkdir()
    (pointer / "kept.txt").write_text("somebody's")
    return pointer


@pytest.mark.parametrize("how", ["bytes", "folder"])
def test_read_active_unreadable_pointer_is_a_fault(project: Project, how: str) -> None:
    other = follow(project, workload="mail")
    follow(project)
    pointer = spoil_pointer(project, how)
    routes, faults = read_active(project)
    assert routes == {"mail": other}
    assert str(pointer) in str(faults["tickets"])
    assert "own route rollback tickets" in str(faults["tickets"])


@pytest.mark.parametrize("how", ["bytes", "folder"])
def test_swap_mends_an_unreadable_pointer(project: Project, how: str) -> None:
    route = follow(project)
    spoil_pointer(project, how)
    rollback(project, "tickets")
    assert read_active(project) == ({}, {})
    activate(project, "tickets", route.id)
    pointer = spoil_pointer(project, how)
    activate(project, "tickets", route.id)
    assert read_active(project) == ({"tickets": route}, {})
    assert len(list(pointer.parent.rglob("kept.txt"))) == (2 if how == "folder" else 0)


def test_read_active_odd_file_name_is_a_fault(project: Project) -> None:
    route = follow(project)
    (project.kind_dir("route") / "active" / os.fsdecode(b"\xff")).write_text(route.id)
    routes, faults = read_active(project)
    assert list(routes) == ["tickets"]
    json.dumps({name: str(fault) for name, fault in faults.items()}, ensure_ascii=False).encode()


def test_load_route_that_is_a_folder_is_refused(project: Project) -> None:
    route = follow(project)
    route_file(project, route.id).unlink()
    route_file(project, route.id).mkdir()
    with pytest.raises(ArtefactError, match="is not readable"):
        load_route(project, route.id)


def test_activate_readers_never_see_a_part(project: Project) -> None:
    routes = [write_route(project, route_of(threshold=-float(n))) for n in (1, 2)]
    activate(project, "tickets", routes[0].id)
    seen: set[str | None] = set()
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            seen.add(active_id(project, "tickets"))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        activate(project, "tickets", routes[turn % 2].id)
    is_done.set()
    reader.join()
    assert seen <= {route.id for route in routes}


def test_rollback_to_a_void_certificate_is_refused(project: Project) -> None:
    old, new = follow(project), follow(project, threshold=-0.3, verdict_id="feedfeedfeed")
    void_certificate(project, old.verdict_id, reason="drift", by="incident")
    with pytest.raises(NotCertified, match="is void: drift"):
        rollback(project, "tickets", to=old.id)
    assert active_id(project, "tickets") == new.id


def test_history_always_begins_where_it_ended(project: Project) -> None:
    """Many swap at once: each line goes on from the one before, so none undid another unseen."""
    routes = [write_route(project, route_of(threshold=-float(n))) for n in (1, 2)]

    def swap(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            with contextlib.suppress(UsageError):
                if rng.random() < 0.5:
                    stand(project, "tickets", Standing(rng.choice(routes).id), reason=str(seed))
                else:
                    rollback(project, "tickets", reason=str(seed))

    threads = [threading.Thread(target=swap, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = history(project)
    assert [row["from"] for row in told[1:]] == [row["to"] for row in told[:-1]]
    assert active_id(project, "tickets") == told[-1]["to"]


def test_history_goes_on_after_half_a_line(project: Project) -> None:
    """What a full disk left there spoils no line but its own."""
    path = project.kind_dir("route") / "history.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"at": 1, "wor')
    route = follow(project)
    half, whole = path.read_bytes().splitlines()
    assert half == b'{"at": 1, "wor'
    assert json.loads(whole)["to"] == route.id


def test_swap_without_room_for_its_history_is_done_and_says_so(project: Project) -> None:
    follow(project)
    path = project.kind_dir("route") / "history.jsonl"
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtefactUnwritten, match="goes to the teacher from now on, but"):
        rollback(project, "tickets")
    assert active_id(project, "tickets") is None


def test_route_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        route_of().threshold = 0.0  # pyright: ignore
