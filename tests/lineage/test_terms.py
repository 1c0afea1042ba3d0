"""What may be trained on whose answers: by name, by day, by host, or as declared."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.artefact import canonical_json
from ownweights.core.errors import UsageError
from ownweights.lineage.facts import OUTPUTS, TRAINS
from ownweights.lineage.terms import STRICTNESS, bare_name, day_of, teacher_terms


def at(day: str) -> float:
    return datetime.fromisoformat(f"{day}T12:00:00+00:00").astimezone(UTC).timestamp()


@pytest.mark.parametrize(
    ("model", "terms_id", "trains"),
    [
        ("labelled-by-people", "people", "human"),
        ("written-by-people", "people", "human"),
        ("human", "people", "human"),
        ("scripted-teacher", "scripted", "allowed"),
        ("gpt-4", "openai-api", "denied"),
        ("gpt-4o-2024-08-06", "openai-api", "denied"),
        ("gpt-3.5-turbo-0613", "openai-api", "denied"),
        ("openai/gpt-4o-mini", "openai-api", "denied"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "openai-api", "denied"),
        ("GPT-5.1", "openai-api", "denied"),
        ("chatgpt-4o-latest", "openai-api", "denied"),
        ("o1", "openai-api", "denied"),
        ("o3-mini-2025-01-31", "openai-api", "denied"),
        ("text-davinci-003", "openai-api", "denied"),
        ("gpt-oss-120b", "openai-open-weights", "allowed"),
        ("openai/gpt-oss-20b", "openai-open-weights", "allowed"),
        ("gpt2-xl", "gpt-2", "allowed"),
        ("EleutherAI/gpt-neox-20b", "apache-2.0", "allowed"),
        ("claude-3-5-sonnet-20241022", "anthropic-api", "denied"),
        ("anthropic/claude-opus-4", "anthropic-api", "denied"),
        ("gemini-1.5-pro-002", "gemini-api", "denied"),
        ("models/gemini-2.0-flash", "gemini-api", "denied"),
        ("google/gemma-2-9b-it", "gemma", "allowed"),
        ("gemma3:4b", "gemma", "allowed"),
        ("gemma-4-12b", "gemma-4", "allowed"),
        ("grok-4", "xai-api", "denied"),
        ("x-ai/grok-2-1212", "xai-api", "denied"),
        ("deepseek-chat", "deepseek-api", "allowed"),
        ("deepseek-reasoner", "deepseek-api", "allowed"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1", "allowed"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-license-1.0", "allowed"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-r1", "allowed"),
        ("DeepSeek-R1-Distill-Llama-8B", "llama-3.1", "allowed"),
        ("DeepSeek-R1-Distill-Qwen-7B", "qwen-open-weights", "allowed"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2", "denied"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3", "denied"),
        ("llama3:8b", "llama-3", "denied"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo", "llama-3.1", "allowed"),
        ("llama3.2:1b", "llama-3.1", "allowed"),
        ("Llama-3.3-70B-Instruct", "llama-3.1", "allowed"),
        ("meta-llama/Llama-4-Scout-17B-16E", "llama-4", "allowed"),
        ("huggyllama/llama-7b", "llama-1", "denied"),
        ("nvidia/Llama-3.1-Nemotron-70B", "llama-3.1", "allowed"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-open-weights", "allowed"),
        ("mixtral-8x7b", "mistral-open-weights", "allowed"),
        ("mistral-large-latest", "mistral-api", "allowed"),
        ("codestral-2501", "mistral-api", "allowed"),
        ("mistralai/Mistral-Large-Instruct-2407", "mistral-research", "denied"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen-open-weights", "allowed"),
        ("Qwen/Qwen3-32B", "qwen-open-weights", "allowed"),
        ("qwen2.5:3b", "qwen-research", "denied"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen-license", "allowed"),
        ("Qwen/Qwen1.5-14B-Chat", "tongyi-qianwen", "denied"),
        ("Qwen/Qwen-7B", "tongyi-qianwen", "denied"),
        ("qwen-max", "qwen-hosted", "unknown"),
        ("qwen3-max", "qwen-hosted", "unknown"),
        ("qwen-chat", "qwen-chat", "denied"),
        ("tencent/Hunyuan-A13B", "hunyuan", "denied"),
        ("moonshotai/Kimi-K2-Instruct", "kimi-k2", "allowed"),
        ("moonshot-v1-8k", "kimi-service", "unknown"),
        ("microsoft/phi-4", "mit", "allowed"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0", "allowed"),
        ("command-r-plus", "cc-by-nc-weights", "unknown"),
        ("bigcode/starcoder2-15b", "openrail-m", "allowed"),
        ("house-model", "unknown", "unknown"),
        ("marco-o1", "unknown", "unknown"),
        ("humanlike-9b", "unknown", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_teacher_terms_know_a_model_by_its_name(model: str, terms_id: str, trains: str) -> None:
    fact = teacher_terms(model, None)
    assert (fact.model, fact.id, fact.trains) == (model, terms_id, trains)


@pytest.mark.parametrize(
    ("day", "trains"),
    [
        ("2023-06-01", "denied"),
        ("2024-02-20", "denied"),
        ("2024-02-26", "denied"),
        ("2024-02-27", "allowed"),
        ("2024-03-05", "allowed"),
        ("2026-01-01", "allowed"),
    ],
)
def test_teacher_terms_of_mistral_depend_on_the_day(day: str, trains: str) -> None:
    fact = teacher_terms("mistral-medium", at(day))
    assert (fact.trains, fact.note) == (trains, "")


def test_teacher_terms_of_an_unknown_day_are_the_latest_and_say_so() -> None:
    fact = teacher_terms("mistral-medium", None)
    assert fact.trains == "allowed"
    assert fact.note == "the day of the answer is not known, so the latest wording was taken"


def test_teacher_terms_that_never_changed_need_no_note() -> None:
    assert teacher_terms("gpt-4", None).note == ""
    assert teacher_terms("gpt-4", at("2023-05-01")) == teacher_terms("gpt-4", None)


@pytest.mark.parametrize(
    ("model", "terms_id", "trains", "provider"),
    [
        ("anthropic.claude-3-sonnet-20240229-v1:0", "anthropic-api", "denied",
         "Anthropic at Amazon Bedrock"),
        ("us.meta.llama3-1-70b-instruct-v1:0", "llama-3.1", "denied", "Meta at Amazon Bedrock"),
        ("eu.deepseek.r1-v1:0", "deepseek-r1", "denied", "DeepSeek at Amazon Bedrock"),
        ("bedrock/amazon.nova-lite-v1:0", "amazon-models", "denied", "Amazon at Amazon Bedrock"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-3.1", "unknown",
         "Meta at Fireworks AI"),
        ("fireworks_ai/llama-v2-7b", "llama-2", "denied", "Meta at Fireworks AI"),
        ("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama-3.1", "allowed",
         "Meta at Together AI"),
        ("together/qwen/qwen1.5-7b", "tongyi-qianwen", "denied", "Alibaba at Together AI"),
    ],
)  # fmt: skip
def test_teacher_terms_at_a_host_are_the_stricter_of_both(
    model: str, terms_id: str, trains: str, provider: str
) -> None:
    fact = teacher_terms(model, None)
    assert (fact.id, fact.trains, fact.provider) == (terms_id, trains, provider)


def test_teacher_terms_at_a_host_tell_both_reasons() -> None:
    fact = teacher_terms("us.anthropic.claude-3-opus-20240229-v1:0", None)
    assert "may not train competing models" in fact.why
    assert "compete with Bedrock" in fact.why
    assert fact.source.count(";") >= 1


def test_teacher_terms_take_a_declared_entry() -> None:
    fact = teacher_terms("house-model", None, "gemma")
    assert (fact.model, fact.id, fact.trains, fact.outputs) == (
        "house-model", "gemma", "allowed", "derivative",
    )  # fmt: skip
    assert len(fact.obligations) == 3


@pytest.mark.parametrize("trains", ["allowed", "denied", "unknown"])
def test_teacher_terms_take_a_declared_contract(trains: str) -> None:
    fact = teacher_terms("gpt-4o", None, trains)
    assert (fact.trains, fact.id, fact.source) == (trains, "declared", "settings")
    assert fact.licence == "a contract of your own"


@pytest.mark.parametrize(
    ("declared", "hint"),
    [("gemmma", "did you mean 'gemma'?"), ("zzz", "known are: amazon-models, anthropic-api")],
)
def test_teacher_terms_refuse_what_is_no_entry(declared: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"there are no terms '{declared}'") as caught:
        teacher_terms("house-model", None, declared)
    assert (caught.value.hint or "").startswith(hint)


@given(st.text(max_size=40), st.none() | st.floats(-1e9, 4e9))
def test_teacher_terms_always_know_something(model: str, moment: float | None) -> None:
    fact = teacher_terms(model, moment)
    assert fact.model == model
    assert fact.trains in TRAINS
    assert fact.outputs in OUTPUTS
    assert canonical_json(fact.to_json())


@given(st.sampled_from(["gpt-4o", "claude-3", "llama-3.1-8b", "mistral-tiny", "house-model"]))
def test_teacher_terms_are_never_looser_at_a_host(model: str) -> None:
    alone = teacher_terms(model, None)
    for host in ("fireworks/", "together/", "bedrock/meta."):
        there = teacher_terms(host + model, None)
        assert STRICTNESS.index(there.trains) >= STRICTNESS.index(alone.trains)


@pytest.mark.parametrize(
    ("model", "expected"),
    [(" GPT-4o ", "gpt-4o"), ("ft:gpt-4o:acme::id", "gpt-4o"), ("ft:gpt-4o", "gpt-4o"),
     ("llama3.1:8b", "llama3.1:8b")],
)  # fmt: skip
def test_bare_name_is_the_maker_s(model: str, expected: str) -> None:
    assert bare_name(model) == expected


def test_day_of_is_in_utc() -> None:
    assert day_of(1709078399.0).isoformat() == "2024-02-27"
    assert day_of(1709078400.0).isoformat() == "2024-02-28"
