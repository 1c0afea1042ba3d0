"""The engine with words: answers, features, streams, failures, several students at once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ownweights.core.errors import CompleterError, ContextTooLong
from ownweights.core.project import Project
from ownweights.engine.batch import BatchEngine, answer_all
from ownweights.engine.wire import Ask, Done, Failed, Piece
from ownweights.model.generate import Generated, generate
from ownweights.weights.student import Student, assemble, load_student
from tests.tiny import END_ID, make_base, make_student, tiny_model

# Where the two best logits are this close, float32 sums in another order may choose the other one.
TIE_LOGPROB = 1e-4
LOGPROB_TOLERANCE = 1e-4
STATE_TOLERANCE = 1e-4  # states are of order one after the final norm


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Student]:
    """Two students with other weights; their end token comes up by itself now and then."""
    words = make_base(tmp_path_factory.mktemp("words"))
    made = {name: assemble(name, tiny_model(seed), words) for seed, name in enumerate("ab")}
    return made


def ask(text: str, student: str = "a", number: int = 1, **fields: object) -> Ask:
    return Ask(number, student, [{"role": "user", "content": text}], **fields)  # pyright: ignore


def naive(student: Student, asked: Ask) -> Generated:
    prompt = student.template.render_prompt(asked.messages)
    return generate(
        student.model, prompt, max_tokens=asked.max_tokens or 10**6,
        end_ids=student.end_ids, temperature=asked.temperature, seed=asked.seed,
    )  # fmt: skip


def done_of(engine: BatchEngine, asked: Ask) -> Done:
    reply = answer_all(engine, {1: asked})[1]
    assert isinstance(reply, Done)
    return reply


def some_asks(count: int, seed: int, **fields: object) -> dict[int, Ask]:
    rng = random.Random(seed)
    return {
        number: ask(
            "".join(rng.choices("abcdefgh <|>é", k=rng.randint(0, 40))), rng.choice("ab"), number,
            max_tokens=rng.randint(1, 30), **fields,
        )
        for number in range(count)
    }  # fmt: skip


@pytest.mark.parametrize("max_batch", [1, 3, 8, 32])
def test_batch_matches_generate(students: dict[str, Student], max_batch: int) -> None:
    """Token for token, whatever the batch; an excused tie is counted, and there should be none."""
    asks = some_asks(40, seed=max_batch)
    answers = answer_all(BatchEngine(students, max_batch=max_batch), asks)
    num_excused = 0
    for number, asked in asks.items():
        reply, expected = answers[number], naive(students[asked.student], asked)
        assert isinstance(reply, Done)
        ids = np.frombuffer(reply.token_ids, "<i4").tolist()
        if ids != expected.token_ids:
            same = [ours == naive for ours, naive in zip(ids, expected.token_ids, strict=False)]
            assert expected.margins[same.index(False)] <= TIE_LOGPROB, asked
            num_excused += 1
            continue
        assert np.allclose(
            np.frombuffer(reply.logprobs, "<f4"), expected.logprobs, atol=LOGPROB_TOLERANCE
        )
        assert np.allclose(
            np.frombuffer(reply.margins, "<f4"), expected.margins, atol=LOGPROB_TOLERANCE
        )
        state = np.frombuffer(reply.prompt_state, "<f4")
        assert state.shape == (32,)
        assert np.allclose(state, expected.prompt_state, atol=STATE_TOLERANCE)
    assert num_excused <= 1


def test_batch_samples_by_seed_whatever_the_batch(students: dict[str, Student]) -> None:
    asks = {
        number: ask("hello", "a", number, max_tokens=10, temperature=0.9, seed=number % 3)
        for number in range(12)
    }
    answers = answer_all(BatchEngine(students, max_batch=5), asks)
    for number, asked in asks.items():
        reply = answers[number]
        assert isinstance(reply, Done)
        assert (
            np.frombuffer(reply.token_ids, "<i4").tolist() == naive(students["a"], asked).token_ids
        )
    texts = [reply.text for reply in answers.values() if isinstance(reply, Done)]
    assert len(set(texts)) == 3


def test_batch_answers_by_student(students: dict[str, Student]) -> None:
    engine = BatchEngine(students)
    said = {name: done_of(engine, ask("x", name, max_tokens=9)).token_ids for name in "ab"}
    assert said["a"] != said["b"]


def test_batch_leaves_the_end_token_out_of_the_text(students: dict[str, Student]) -> None:
    student = students["a"]
    free = naive(student, ask("x", max_tokens=9))
    ending = Student("a", student.model, student.template, frozenset({free.token_ids[3]}))
    reply = done_of(BatchEngine({"a": ending}), ask("x", max_tokens=9))
    end = free.token_ids.index(free.token_ids[3])
    assert reply.finish_reason == "stop"
    assert np.frombuffer(reply.token_ids, "<i4").tolist() == free.token_ids[: end + 1]
    assert reply.text == student.tokenizer.decode(free.token_ids[:end])


def test_batch_says_that_an_answer_was_cut(students: dict[str, Student]) -> None:
    reply = done_of(BatchEngine(students), ask("x", max_tokens=2))
    assert reply.finish_reason == "length"
    assert reply.prompt_tokens == 5  # bos, user, x, end, assistant


def test_batch_stops_at_the_window(students: dict[str, Student]) -> None:
    student = Student("a", students["a"].model, students["a"].template, frozenset())
    reply = done_of(BatchEngine({"a": student}), ask("x"))
    assert reply.prompt_tokens + len(reply.token_ids) // 4 == 96
    assert reply.finish_reason == "length"


@pytest.mark.parametrize("length", [92, 200])
def test_batch_refuses_a_prompt_without_room(students: dict[str, Student], length: int) -> None:
    with pytest.raises(ContextTooLong) as refusal:
        BatchEngine(students).submit(1, ask("x" * length))
    assert (refusal.value.prompt_tokens, refusal.value.max_tokens) == (length + 4, 96)


@pytest.mark.parametrize("seed", range(4))
def test_batch_streams_what_it_would_say(students: dict[str, Student], seed: int) -> None:
    engine = BatchEngine(students)
    asked = ask(f"seed {seed}", max_tokens=25)
    whole = done_of(engine, asked)
    engine.submit(1, ask(f"seed {seed}", max_tokens=25, is_stream=True))
    replies = []
    while engine.has_work:
        replies += [reply for _, reply in engine.step()]
        engine.check_integrity()
    *pieces, last = replies
    assert all(isinstance(piece, Piece) and piece.text for piece in pieces[1:])
    first = pieces[0]
    assert isinstance(first, Piece) and isinstance(last, Done)
    assert (first.prompt_state, first.prompt_tokens) == (last.prompt_state, last.prompt_tokens)
    assert not any(piece.prompt_state for piece in pieces[1:] if isinstance(piece, Piece))
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == whole.text
    assert last == whole
    assert len(pieces) > 1


def test_batch_says_nothing_of_a_cancelled_ask(students: dict[str, Student]) -> None:
    engine = BatchEngine(students)
    for number in (1, 2):
        engine.submit(number, ask("x", number=number, max_tokens=5, is_stream=True))
    engine.step()
    engine.cancel(1)
    engine.cancel(99)
    engine.check_integrity()
    rest = [key for _ in range(9) if engine.has_work for key, _ in engine.step()]
    assert set(rest) == {2}
    assert not engine.has_work


def test_batch_refuses_a_student_it_was_not_given(students: dict[str, Student]) -> None:
    with pytest.raises(CompleterError, match="student c is not available: the engine was not told"):
        BatchEngine(students).submit(1, ask("x", "c"))


def test_batch_keeps_answering_beside_a_student_that_is_missing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    good, bad = make_student(project, seed=1), make_student(project, seed=2)
    path = project.kind_dir("student") / bad / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    engine = BatchEngine.load(project, [good, bad, "none"])
    assert set(engine.failures) == {bad, "none"}
    assert "is not what its card says" in engine.failures[bad]
    with pytest.raises(CompleterError, match="'none' does not exist"):
        engine.submit(1, ask("x", "none"))
    asked = ask("x", good, max_tokens=6)
    expected = naive(load_student(project, good), asked)
    assert np.frombuffer(done_of(engine, asked).token_ids, "<i4").tolist() == expected.token_ids


def test_batch_without_any_student_is_idle() -> None:
    engine = BatchEngine({})
    assert not engine.has_work
    assert engine.step() == []
    assert engine.num_parameters == 0


def test_answer_all_reports_failures_and_progress(students: dict[str, Student]) -> None:
    seen: list[int] = []
    texts = {1: "x", 2: "y" * 200, 3: "z"}
    asks = {number: ask(text, "a", number, max_tokens=1) for number, text in texts.items()}
    answers = answer_all(BatchEngine(students), asks, seen.append)
    assert isinstance(answers[2], Failed) and answers[2].kind == "context"
    assert [type(answers[number]) for number in (1, 3)] == [Done, Done]
    assert seen == [2, 3]


def test_students_share_an_end_token(students: dict[str, Student]) -> None:
    assert all(student.end_ids == {END_ID} for student in students.values())
