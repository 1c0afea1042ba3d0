"""llama.cpp itself reads what is exported: the same ids of the same text, the same greedy answers.

Its own sums run in another order, and rounded weights are other weights. So where a greedy text
leaves ours, the two best tokens there must lie close together, and for float32 weights they must
not leave at all unless the margin is of rounding's size.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import ModelError
from ownweights.core.project import Project
from ownweights.model.config import parse_config
from ownweights.model.generate import generate
from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.model.transformer import Transformer
from ownweights.weights.base import EMBEDDED_DIR, base_id
from ownweights.weights.export.gguf_file import export_adapter_gguf, export_gguf
from ownweights.weights.extend import extend_base
from ownweights.weights.load import load_model
from ownweights.weights.save import save_model
from ownweights.weights.student import Student, assemble, load_student
from tests.tiny import CHAT_TEMPLATE
from tests.weights.export.llama_cpp import LlamaCpp
from tests.weights.made import make_lora, project_with_base

pytest.importorskip("xllamacpp", reason="xllamacpp is in the extra `oracle`")
pytestmark = pytest.mark.oracle

# How far apart, in nats, the two best tokens may be where a greedy text leaves ours.
MARGIN = {"f32": 1e-3, "f16": 0.02, "bf16": 0.15, "q8_0": 0.3}
TEXTS = (
    "Hello  12345 world\n\nx", "", " ", "\t\t tabs \r\n",
    "Grüße aus Köln — naïve café, 100 % 東京 9", "it's I'LL 3.14e-10",
    '{"a": [1, 22, {"b": "<|end|>"}], "c": null}', "e\u0301 ½ ²³ ٣٤ 🙂🙃 \u200b|\u00a0",
)  # fmt: skip
PROMPTS = (
    "Book a table for two in Köln tomorrow at 8 pm.", "play some jazz by Miles Davis",
    "what is the weather in Oman?", "How do I list files by size?",
)  # fmt: skip


def prompts(student: Student) -> list[list[int]]:
    return [student.template.render_prompt([{"role": "user", "content": text}]) for text in PROMPTS]


def compare(ours: Student, theirs: LlamaCpp, dtype: str, num: int = 24) -> float:
    """The share of tokens that are the same, after the check of where they part."""
    same = whole = 0
    for text, prompt in zip(PROMPTS, prompts(ours), strict=True):
        found = generate(ours.model, prompt, max_tokens=num, end_ids=ours.end_ids)
        ids = found.token_ids[:-1] if found.is_ended else found.token_ids
        other = theirs.continue_ids(prompt, num)
        other = other[:-1] if other and other[-1] in ours.end_ids else other
        at = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), None)
        if at is None and len(ids) != len(other):
            at = min(len(ids), len(other))
        if at is not None:
            assert found.margins[at] <= MARGIN[dtype], f"{text}: parts at {at}"
        same, whole = same + (len(ids) if at is None else at), whole + len(ids)
    return same / whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama_cpp")


@pytest.fixture(scope="module")
def seedling(folder: Path) -> Iterator[LlamaCpp]:
    made = export_gguf(Project(folder), "seedling", folder / "seedling.gguf", dtype="f32")
    with LlamaCpp(made.path) as running:
        yield running


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer.load(EMBEDDED_DIR)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_text_are_the_same(seedling: LlamaCpp, words: Tokenizer, text: str) -> None:
    """training.md c.15: what is trained on here is what llama.cpp reads there."""
    assert seedling.ids(text) == words.encode(text)


@given(text=st.text(max_size=60))
def test_ids_of_any_text_are_always_the_same(
    seedling: LlamaCpp, words: Tokenizer, text: str
) -> None:
    assert seedling.ids(text) == words.encode(text)


def test_ids_of_real_requests_are_the_same(
    seedling: LlamaCpp, words: Tokenizer, test_data: Path
) -> None:
    """training.md c.15, c.16: rendered conversations too, with one BOS."""
    template = ChatTemplate.load(EMBEDDED_DIR, words)
    seen = 0
    for path in sorted((test_data / "traffic").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line, _ in zip(file, range(20), strict=False):
                messages = json.loads(line).get("request", {}).get("messages")
                if not messages or not all(isinstance(m.get("content"), str) for m in messages):
                    continue
                text = "\n".join(m["content"] for m in messages)
                assert seedling.ids(text) == words.encode(text)
                ids = template.render_prompt(messages)
                rendered = seedling.post("/apply-template", messages=messages)["prompt"]
                assert seedling.ids(rendered, is_marked=True) == ids
                assert ids.count(words.bos_id) == 1
                seen += 1
    assert seen > 50


@pytest.mark.parametrize("dtype", MARGIN)
def test_seedling_says_the_same(folder: Path, dtype: str) -> None:
    path = folder / f"seedling-{dtype}.gguf"
    export_gguf(Project(folder), "seedling", path, dtype=dtype)
    ours = assemble("seedling", load_model(EMBEDDED_DIR), EMBEDDED_DIR)
    with LlamaCpp(path) as theirs:
        share = compare(ours, theirs, dtype)
    assert share == 1.0 if dtype in ("f32", "bf16") else share > 0.7  # bfloat16 is how it is stored


@pytest.fixture(scope="module")
def student(folder: Path) -> tuple[Project, str]:
    """An adapter on the embedded base whose update is large enough to change what is said."""
    project = Project(folder / "project")
    project.root.mkdir()
    return project, make_lora_on_seedling(project)


def make_lora_on_seedling(project: Project) -> str:
    from ownweights.core.artefact import draft_folder, seal
    from ownweights.model.lora import LoraConfig
    from ownweights.weights.adapter import save_adapter
    from ownweights.weights.canary import save_canary
    from tests.tiny import with_adapter

    config = LoraConfig(rank=4, alpha=8.0)
    model = with_adapter(load_model(EMBEDDED_DIR), 3, config)
    identity = {"base": base_id(EMBEDDED_DIR), "base_name": "seedling", "method": "lora"}
    with draft_folder(project.kind_dir("student")) as draft:
        save_adapter(model, config, draft, base_id=identity["base"], base_name="seedling")
        save_canary(model, draft)
        return seal(draft, "student", identity=identity).id


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_merged_student_says_the_same(
    folder: Path, student: tuple[Project, str], dtype: str
) -> None:
    project, name = student
    path = folder / f"student-{dtype}.gguf"
    made = export_gguf(project, name, path, dtype=dtype)
    assert made.survival is not None and made.survival.cosine > 0.99
    with LlamaCpp(path) as theirs:
        share = compare(load_student(project, name), theirs, dtype)
    assert share == 1.0 if dtype == "f32" else share > 0.6


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_adapter_on_its_base_says_the_same(
    folder: Path, student: tuple[Project, str], seedling: LlamaCpp, dtype: str
) -> None:
    """training.md c.39, c.40: the scale that llama.cpp computes is the one that was trained."""
    project, name = student
    path = folder / f"adapter-{dtype}.gguf"
    export_adapter_gguf(project, name, path, dtype=dtype)
    ours = load_student(project, name)
    with LlamaCpp(folder / "seedling.gguf", path) as theirs:
        share = compare(ours, theirs, dtype)
    assert share == 1.0 if dtype == "f32" else share > 0.9
    assert any(  # the adapter matters
        generate(ours.model, prompt, max_tokens=20).token_ids != seedling.continue_ids(prompt, 20)
        for prompt in prompts(ours)
    )


@pytest.mark.parametrize("is_tied", [True, False])
def test_random_weights_say_the_same(tmp_path: Path, is_tied: bool) -> None:
    """training.md c.36: tied and untied heads; grouped heads, another rotation."""
    project = project_with_base(tmp_path, tie_word_embeddings=is_tied, rope_theta=500.0)
    name = make_lora(project)
    base = export_gguf(project, "tiny", tmp_path / "tiny.gguf", dtype="f32").path
    adapter = export_adapter_gguf(project, name, tmp_path / "adapter.gguf").path
    ours = load_student(project, name)
    assert ours.template.source == CHAT_TEMPLATE
    prompt = ours.tokenizer.encode("The harbour was quiet")
    found = generate(ours.model, prompt, max_tokens=40)
    with LlamaCpp(base, adapter) as theirs:
        other = theirs.continue_ids(prompt, 40)
    assert len(other) >= 1
    assert other == found.token_ids[: len(other)]


def test_chat_reaches_the_same_answer(seedling: LlamaCpp) -> None:
    """training.md c.16: through the template that the file carries, with one BOS."""
    ours = assemble("seedling", load_model(EMBEDDED_DIR), EMBEDDED_DIR)
    messages = [{"role": "user", "content": PROMPTS[1]}]
    prompt = ours.template.render_prompt(messages)
    found = generate(ours.model, prompt, max_tokens=40, end_ids=ours.end_ids)
    body = {"messages": messages, "max_tokens": 40, "temperature": 0.0, "samplers": ["temperature"]}
    answer = seedling.post("/v1/chat/completions", **body)
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["choices"][0]["message"]["content"] == ours.tokenizer.decode(found.token_ids)
    assert (answer["choices"][0]["finish_reason"] == "stop") is found.is_ended


def test_extended_base_says_the_same(tmp_path: Path) -> None:
    """YaRN as llama.cpp computes it, beyond the old window; NTK where there are no scalings."""
    project = project_with_base(tmp_path)
    try:
        made = extend_base(project, "tiny", 384, method="yarn")
    except ModelError:
        made = extend_base(project, "tiny", 384, method="ntk")
    path = export_gguf(project, made.id, tmp_path / "long.gguf", dtype="f32").path
    prompt = [index * 7 % 260 for index in range(200)]
    found = generate(load_model(made.path), prompt, max_tokens=30)
    with LlamaCpp(path) as theirs:
        other = theirs.continue_ids(prompt, 30)
    assert len(other) > 1
    assert other == found.token_ids[: len(other)]


FAMILIES = {
    "MistralForCausalLM": {"model_type": "mistral", "sliding_window": None},
    "Qwen2ForCausalLM": {"model_type": "qwen2", "use_sliding_window": False},
    "Qwen3ForCausalLM": {"model_type": "qwen3", "use_sliding_window": False},
    "LlamaForCausalLM": {"model_type": "llama", "attention_bias": True},
}
FAMILY_MARGIN = 0.02  # logits of these random weights are about twenty times a trained model's


@pytest.mark.parametrize("architecture", FAMILIES)
def test_families_say_the_same(tmp_path: Path, architecture: str) -> None:
    """Biases, norms of queries and keys, and either order of rows, under an adapter."""
    project = project_with_base(tmp_path)
    folder = tmp_path / "tiny"
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    raw |= {"architectures": [architecture], "eos_token_id": 2, **FAMILIES[architecture]}
    try:
        model = Transformer(parse_config(raw))
    except ModelError as error:
        pytest.skip(f"a family that this tree does not read: {error.what}")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "norm" in name:
                one.uniform_(0.5, 1.5, generator=generator)
            else:
                one.normal_(0.0, 0.3, generator=generator)
    save_model(model.eval(), folder)
    name = make_lora(project)
    base = export_gguf(project, "tiny", tmp_path / "tiny.gguf", dtype="f32").path
    adapter = export_adapter_gguf(project, name, tmp_path / "adapter.gguf").path
    prompt = [index * 7 % 260 for index in range(30)]
    found = generate(load_student(project, name).model, prompt, max_tokens=40)
    with LlamaCpp(base, adapter) as theirs:
        other = theirs.continue_ids(prompt, 40)
    pairs = zip(other, found.token_ids, found.margins, strict=False)
    parted = [margin for there, here, margin in pairs if there != here]
    assert not parted or parted[0] <= FAMILY_MARGIN
    assert len(other) > 1
