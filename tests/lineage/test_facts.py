"""The facts that ship are complete, dated, sourced, and agree with what others wrote down."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.artefact import canonical_json
from ownweights.lineage.facts import CHECKED, OUTPUTS, TRAINS, Terms, load_facts
from ownweights.lineage.terms import STRICTNESS, licence_fact, teacher_terms

FACTS = load_facts()
SPDX = re.compile(r"[A-Za-z0-9.-]+")

# What each way to say it in the collected facts means for training on answers.
MEANING = {
    "prohibited-commercially": "denied", "prohibited-except-own-family": "denied",
    "research-only": "denied", "prohibited": "denied", "no-competing-models": "denied",
    "no-competing-models + exception": "denied",
    "allowed-with-naming": "allowed", "allowed-with-notice": "allowed",
    "allowed-explicitly": "allowed", "output-trained-model-is-derivative": "allowed",
    "allowed (Cosmos: with notice)": "allowed", "not-restricted (reported)": "allowed",
    "allowed (no clause since 2024-02-27)": "allowed", "silent": "allowed",
    "no-competing-products": "unknown",
}  # fmt: skip
# Theirs → ours, for every entry of theirs that is about a model's answers.
SAME_TEXT = {
    "llama-1-2023": "llama-1", "llama-2": "llama-2", "llama-3": "llama-3",
    "llama-3.1": "llama-3.1", "llama-4": "llama-4", "gemma-tou-2024": "gemma",
    "apache-2.0": "apache-2.0", "mit": "mit", "deepseek-la-1.0": "deepseek-license-1.0",
    "tongyi-qianwen-2023": "tongyi-qianwen", "qwen-license-2024": "qwen-license",
    "hunyuan-community": "hunyuan", "kimi-k2-mod-mit": "kimi-k2", "kimi-k3": "kimi-k3",
    "mistral-mrl": "mistral-research", "nvidia-open-model-2025": "nvidia-open-model",
    "openrail-m": "openrail-m", "openai-services-2026": "openai-api",
    "anthropic-commercial-2025": "anthropic-api", "gemini-api-2025": "gemini-api",
    "mistral-api-2025": "mistral-api", "deepseek-api-2025": "deepseek-api",
    "xai-enterprise-2025": "xai-api", "qwen-chat-2025": "qwen-chat", "bedrock": "amazon-models",
    "kimi-chat": "kimi-service", "cursor-2025": "cursor",
}  # fmt: skip
SAME_LICENCE = {
    "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nd-4.0": "CC-BY-ND-4.0", "cc0": "CC0-1.0", "cdla-permissive-2.0": "CDLA-Permissive-2.0",
    "odbl": "ODbL-1.0", "c-uda-1.0": "C-UDA-1.0", "apache-2.0": "Apache-2.0", "mit": "MIT",
    "openmdw-1.1": "OpenMDW-1.1",
}  # fmt: skip
# Service, whether its recorded wordings ban training competitors, and one of its models.
SERVICES = [
    ("ChatGPT", "Commercial Terms", "gpt-4o"),
    ("OpenAI", "Terms of Service", "gpt-4"),
    ("Claude.ai", "Commercial Terms", "claude-sonnet-4"),
    ("Qwen Chat", "Terms of Service", "qwen-chat"),
    ("DeepSeek", "Developer Terms", "deepseek-chat"),
    ("Mistral AI", "Terms of Service", "mistral-large-latest"),
]


def ours(terms_id: str) -> Terms:
    (found,) = [terms for terms in FACTS.terms if terms.id == terms_id]
    return found


@pytest.mark.parametrize("terms", FACTS.terms, ids=lambda terms: terms.id)
def test_facts_are_complete(terms: Terms) -> None:
    assert terms.provider
    assert terms.licence
    assert terms.models
    assert terms.source
    assert terms.checked in CHECKED
    for version in terms.versions:
        assert version.trains in TRAINS
        assert version.outputs in OUTPUTS
        assert len(version.why) > 10
        assert version.as_of > date(2000, 1, 1)


@pytest.mark.parametrize("terms", FACTS.terms, ids=lambda terms: terms.id)
def test_facts_have_versions_in_order(terms: Terms) -> None:
    days = [version.since for version in terms.versions]
    assert len(days) == 1 or all(isinstance(day, date) for day in days)
    assert days == sorted(days, key=str)


@pytest.mark.parametrize("terms", FACTS.terms, ids=lambda terms: terms.id)
def test_facts_owe_something_exactly_where_it_says_so(terms: Terms) -> None:
    outputs = terms.versions[-1].outputs
    assert bool(terms.obligations) or outputs not in ("name", "notice", "derivative")
    if outputs in ("own-family", "research", "no-compete"):
        assert terms.versions[-1].trains in ("denied", "unknown")


def test_facts_have_ids_of_their_own() -> None:
    ids = [one.id for one in (*FACTS.terms, *FACTS.hosts, *FACTS.licences)]
    doubled = {one for one in ids if ids.count(one) > 1}
    assert doubled == set()


@pytest.mark.parametrize("host", FACTS.hosts, ids=lambda host: host.id)
def test_hosts_find_the_maker_s_name(host: Any) -> None:
    assert "model" in host.pattern.groupindex
    assert host.trains in STRICTNESS
    assert host.source
    assert host.why


@pytest.mark.parametrize("fact", FACTS.licences, ids=lambda fact: fact.id)
def test_licences_are_complete(fact: Any) -> None:
    assert SPDX.fullmatch(fact.id)
    assert fact.commercial in ("yes", "no", "conditional")
    assert fact.checked in CHECKED
    assert fact.source
    assert fact.why
    assert canonical_json(fact.to_json())
    for name in (fact.id, *fact.other_names):
        assert licence_fact(name) is fact
        assert licence_fact(f" {name.upper()} ") is fact


def test_licence_fact_of_an_unknown_licence_is_none() -> None:
    assert licence_fact("Made-Up-1.0") is None


@pytest.fixture(scope="module")
def collected(test_data: Path) -> Mapping[str, Any]:
    text = (test_data / "licence_facts" / "licences.json").read_text("utf-8")
    return {entry["id"]: entry for entry in json.loads(text)["licences"]}


@pytest.mark.parametrize(("theirs", "our_id"), SAME_TEXT.items())
def test_terms_agree_with_the_collected_facts(
    collected: Mapping[str, Any], theirs: str, our_id: str
) -> None:
    latest = ours(our_id).versions[-1]
    assert latest.trains == MEANING[collected[theirs]["output_training"]]


def test_terms_cover_every_collected_api(collected: Mapping[str, Any]) -> None:
    apis = {one for one, entry in collected.items() if entry["kind"] == "api"}
    covered = set(SAME_TEXT) | {"host-together", "host-fireworks", "openai-tou-2024"}
    assert apis - covered == set()


@pytest.mark.parametrize(("theirs", "our_id"), SAME_LICENCE.items())
def test_licences_agree_with_the_collected_facts(
    collected: Mapping[str, Any], theirs: str, our_id: str
) -> None:
    fact = licence_fact(our_id)
    assert fact is not None
    commercial = collected[theirs]["commercial"]
    meant = commercial if commercial in ("yes", "no") else "conditional"
    assert fact.commercial == meant
    if collected[theirs]["kind"] == "data":
        assert (collected[theirs]["share_alike"] == "no") == (fact.share_alike == "no")


@pytest.mark.parametrize(("service", "document", "model"), SERVICES)
def test_terms_agree_with_the_recorded_wordings(
    test_data: Path, service: str, document: str, model: str
) -> None:
    """On the day of each recorded wording, a ban on training competitors is a denial."""
    path = test_data / "teacher_terms_facts" / "teacher_terms_history.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["service"], r["document"]) == (
            service, document)]  # fmt: skip
    assert rows
    for row in rows:
        noon = datetime.fromisoformat(f"{row['recorded']}T12:00:00+00:00").timestamp()
        is_denied = teacher_terms(model, noon).trains == "denied"
        assert is_denied == (row["compete_via_training"] == "1"), row["recorded"]


def test_facts_are_in_our_own_words(collected: Mapping[str, Any]) -> None:
    text = json.dumps(
        [version.why for terms in FACTS.terms for version in terms.versions]
        + [fact.why for fact in FACTS.licences]
    )
    for entry in collected.values():
        for sentence in re.split(r"[;.]", entry["notes"]):
            words = sentence.strip()
            assert len(words) < 45 or words not in text, words
