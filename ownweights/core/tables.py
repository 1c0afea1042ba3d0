"""The tables of `own.toml`: every setting, its default, its limits and its help, in one place.

A new setting is one field here with a docstring under it; that docstring is its reference page and
its help (test_describe_settings_has_help_for_every_field). A field without a default must be given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project, Server
from ownweights.core.strict import key_text, setting

REDACT_WORDS = (
    "key", "email", "phone", "card", "iban", "ssn", "ip", "name", "data", "all", "none",
)  # fmt: skip
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/?#,\[\]]*)(:\d{1,5})?"
_POSTGRES = (
    rf"(postgres(ql)?://([^\s:@/?#]+@)?{_HOST}(,{_HOST})*/[^\s:@/?#]*(\?(?!.*password=)\S*)?)?"
)
_OBJECTS = r"([a-z][a-z0-9.+-]*://(?![^/]*:[^/]*@)\S+)?"

OBJECTIVES = ("sft", "dpo", "distil", "logprobs", "on-policy", "text")
MAX_SEED = 2**63 - 1  # what every generator of random numbers takes
_ADDRESS = r"https?://[^\s/@?#]+(/[^\s?#]*)?"
_ADDRESS_SAYS = "an http:// or https:// address, without a password or a query"
_VARIABLE = r"([A-Za-z_][A-Za-z0-9_]*)?"
_VARIABLE_SAYS = "the name of an environment variable"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`[gateway]`: where applications reach us."""

    host: str = setting("127.0.0.1")
    """Address to listen on; loopback unless you mean otherwise."""
    port: int = setting(8711, at_least=0, at_most=65535)
    """Port to listen on; 0 picks a free one."""
    hosts: tuple[str, ...] = setting(())
    """Public names by which a gateway on loopback is reached, through a proxy on this machine, and
    whose pages may ask it; other public names and pages of other sites are refused."""
    timeout_s: float = setting(120.0, at_least=0, at_most=86400, is_open=True)
    """How long a whole answer of the teacher may take."""
    on_client_gone: str = setting("stop", choices=("stop", "drain"))
    """What becomes of an answer whose caller leaves: `stop` it, or `drain` it to keep it whole."""
    on_full: str = setting("shed", choices=("shed", "block"))
    """When records come faster than they are stored: `shed` and count them, or `block` requests."""
    max_retries: int = setting(0, at_least=0, at_most=20)
    """How often a teacher is asked again, for an error that may pass, where no other can be."""
    retry_frac: float = setting(0.1, at_least=0, at_most=1)
    """Budget of those repeats, as a share of the requests."""
    key_env: str = setting("", pattern=_VARIABLE, pattern_says=_VARIABLE_SAYS)
    """The environment variable with the key that callers show to be answered by students, and to
    spend the teachers' keys."""
    admin_host: str = setting("127.0.0.1")
    """Address of the admin listener: metrics, readiness in detail, pages; empty switches it off."""
    admin_port: int = setting(8712, at_least=0, at_most=65535)
    """Its port; 0 picks a free one, and so does a `port` of 0 where this is not set."""
    drain_s: float = setting(15.0, at_least=0, at_most=3600)
    """How long open requests may go on after SIGTERM or SIGINT, before they are cut."""
    log: str = setting("text", choices=("text", "json"))
    """How `own serve` writes its log on stderr: lines of text, or one JSON object a line."""
    otel_endpoint: str = setting(
        "", pattern=f"({_ADDRESS})?", pattern_says=_ADDRESS_SAYS, is_shown=False
    )
    """Where spans go by OTLP over HTTP, such as `http://127.0.0.1:4318`; needs the extra `otel`."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`[store]`: what is written down of the traffic, where, and for how long."""

    redact: tuple[str, ...] = setting(("key",), choices=REDACT_WORDS)
    """What is masked before anything is written; `key` always is, `all` is what patterns find (all
    but `name` and `data`), and `none` alone masks nothing, keys neither."""
    recognizer: str = setting(
        "",
        pattern=r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)?",
        pattern_says="package.module:function",
    )
    """Your function that finds names: it takes a text and gives (start, end) of each."""
    keep_bodies_days: float | None = setting(None, at_least=0, at_most=36_500)
    """Days that requests and answers are kept; 0 or nothing is for ever."""
    keep_metadata_days: float | None = setting(None, at_least=0, at_most=36_500)
    """Days that the rest of a record is kept, and so all of it; 0 or nothing is for ever."""
    database: str = setting(
        "",
        pattern=_POSTGRES,
        pattern_says="postgresql://user@host/database, without a password",
        is_shown=False,
    )
    """The Postgres database that holds the rows, without its password; empty is a file of
    SQLite's in the project."""
    password_env: str = setting("", pattern=_VARIABLE, pattern_says=_VARIABLE_SAYS)
    """The environment variable that holds its password; empty is PGPASSWORD or `~/.pgpass`."""
    bodies: str = setting(
        "",
        pattern=_OBJECTS,
        pattern_says="an address like s3://bucket/prefix, without a password",
        is_shown=False,
    )
    """The object store to which bodies move, as fsspec names it; empty keeps them in the
    project."""

    def place(self, project: Project) -> Project:
        """The project with its store where it is set to be."""
        server = Server(self.database, self.password_env) if self.database else None
        return replace(project, server=server, bodies_url=self.bodies)


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """`[teacher.<name>]`: a rented model."""

    base_url: str = setting(pattern=_ADDRESS, pattern_says=_ADDRESS_SAYS, is_shown=False)
    """Where its OpenAI-compatible API is, up to and with `/v1`."""
    model: str = setting("")
    """The model to ask for; empty passes on what the caller names."""
    key_env: str = setting("", pattern=_VARIABLE, pattern_says=_VARIABLE_SAYS)
    """The environment variable that holds its key; the key itself is never written here."""
    terms: str = setting("", choices=("", "allowed", "denied", "unknown"))
    """What your contract says about training on its answers; empty asks the built-in table."""
    timeout_s: float = setting(60.0, at_least=0, at_most=86400, is_open=True)
    """How long one answer may take."""
    max_retries: int = setting(2, at_least=0, at_most=20)
    """How often a call is tried again after an error that may pass."""
    usd_per_mtok_in: float | None = setting(None, at_least=0, at_most=1_000_000)
    """Its price in US dollars for a million tokens read."""
    usd_per_mtok_out: float | None = setting(None, at_least=0, at_most=1_000_000)
    """Its price in US dollars for a million tokens written."""
    usd_per_mtok_cached: float | None = setting(None, at_least=0, at_most=1_000_000)
    """Its price in US dollars for a million tokens read from its cache; else that of any read."""
    kind: str = setting("openai", choices=("openai", "azure", "anthropic"))
    """What it speaks: OpenAI's API, Azure's form of it, or Anthropic's Messages."""
    api_version: str = setting("", pattern=r"[0-9A-Za-z.-]*", pattern_says="a version")
    """For Azure: the `api-version`, with requests going to the deployment that `model` names;
    empty for its `/openai/v1` address."""
    max_tokens: int | None = setting(None, at_least=1, at_most=10_000_000)
    """For Anthropic: the limit for callers of chat who name none, which Messages needs."""
    fallback: tuple[str, ...] = setting(())
    """Other `[teacher.<name>]`, asked in turn when this one fails before its answer begins."""

    def read_key(self, env: Mapping[str, str] = os.environ) -> str | None:
        """The key, from the variable that `key_env` names; None where no key is needed."""
        if not self.key_env:
            return None
        if key := key_text(self.key_env, env.get(self.key_env)):
            return key
        raise SettingsError(
            f"the environment variable {self.key_env} is not set",
            hint=f"it should hold the key for {self.base_url}: export {self.key_env}=...",
        )


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """`[workload.<name>]`: one kind of request, and how its records are studied."""

    teacher: str = setting("")
    """The `[teacher.<name>]` who answers; empty is the only one that neither stands in for another
    nor judges."""
    split_by: str = setting("auto")
    """What keeps records together in a split: `auto`, `session`, `prompt`, `session-or-prompt`,
    or a metadata key."""
    prune_system: bool = setting(True)
    """Leave a system prompt that never changes out of what the student reads."""
    allow_teachers: tuple[str, ...] = setting(())
    """Models whose answers are learned from although their terms deny it."""
    canaries: int = setting(0, at_least=0, at_most=1000)
    """Made-up secrets planted in the train split, so that a verdict can try to get them back."""
    record: bool = setting(True)
    """Write its requests and answers down; otherwise nothing of them is kept."""
    redact: tuple[str, ...] | None = setting(None, choices=REDACT_WORDS)
    """What is masked before anything is written, in place of what `[store]` says."""


@dataclass(frozen=True, slots=True)
class StudentSettings:
    """`[student.<workload>]`: what is trained, and how."""

    base: str = setting("seedling")
    """The open weights to start from."""
    method: str = setting("lora", choices=("lora", "qlora", "full"))
    """Train an adapter, an adapter on a base held in fewer bits, or all weights."""
    rank: int = setting(128, at_least=1, at_most=1024)
    """Rank of the adapter."""
    lora_alpha: float | None = setting(None, at_least=0, at_most=1_000_000, is_open=True)
    """Scale of the adapter times its rank; twice the rank when not given."""
    epochs: float | None = setting(None, at_least=0, at_most=1000, is_open=True)
    """Steps, in visits to every example; derived from a budget of tokens when not given."""
    learning_rate: float | None = setting(None, at_least=0, at_most=1, is_open=True)
    """Peak step size; derived from the width of the base when not given."""
    rows_per_step: int = setting(32, at_least=1, at_most=65536)
    """Examples in one step."""
    hard_frac: float = setting(0.5, at_least=0, at_most=1)
    """Share of the examples, those that cost most, that later passes visit."""
    swap: bool = setting(True)
    """Train on examples with values exchanged among JSON answers, too."""
    compute_dtype: str = setting("auto", choices=("auto", "float32", "bfloat16"))
    """What products are computed in; `auto` takes bfloat16 where the processor has units for it."""
    turns: str = setting("last", choices=("last", "all"))
    """Learn the recorded answer, or those before it in the conversation, too."""
    seed: int = setting(1, at_least=0, at_most=MAX_SEED)
    """Starts every random choice of the training."""
    objective: str = setting("sft", choices=OBJECTIVES)
    """What is learned: recorded answers (sft), preferences (dpo), a local teacher's distributions
    over recorded answers (distil) or over the student's own (on-policy), what a rented teacher told
    of its alternatives (logprobs), or documents (text)."""
    optimiser: str = setting("muon", choices=("muon", "adamw"))
    """What moves matrices; each has a learning rate of its own where none is given."""
    head: bool = setting(False)
    """Adapt the output head, too."""
    start: str | None = setting(None)
    """A student of the same base whose adapter is trained on."""
    teacher: str | None = setting(None)
    """For distil and on-policy: a base or a student with the same tokenizer."""
    divergence: float | None = setting(None, at_least=0, at_most=1)
    """For distil and on-policy: 0 is the forward KL, 1 the reverse, between them JSD."""
    temperature: float | None = setting(None, at_least=0, at_most=100, is_open=True)
    """For distil and on-policy: by what both distributions are softened."""
    ce_frac: float | None = setting(None, at_least=0, at_most=1)
    """For distil and logprobs: share of plain cross-entropy on the recorded tokens."""
    dpo_beta: float | None = setting(None, at_least=0, at_most=100, is_open=True)
    """For dpo: how strongly the student is held to what it starts from."""
    pairs: str | None = setting(None)
    """For dpo: a file of JSON lines with messages, chosen and rejected, beside recorded ones."""
    text: str | None = setting(None)
    """For text: a text file, or JSON lines with a text each; else the recorded answers."""
    max_answer_tokens: int | None = setting(None, at_least=1, at_most=1_000_000)
    """For on-policy: how long the student's answers may get."""
    packing: str | None = setting(None, choices=("nf4", "int8"))
    """For qlora: how the base is held while the adapter is trained; nf4 when not given."""


@dataclass(frozen=True, slots=True)
class VerdictSettings:
    """`[verdict.<workload>]`: the claim, fixed before the certify split is read."""

    alpha: float = setting(0.05, at_least=0, at_most=1, is_open=True)
    """Greatest share of all requests that may get a worse answer."""
    beta: float = setting(0.10, at_least=0, at_most=1, is_open=True)
    """Greatest share of the requests the student answers that may get a worse answer."""
    delta: float = setting(0.05, at_least=0, at_most=1, is_open=True)
    """Chance, over all attempts on the workload, that a certificate is wrong."""
    min_coverage_frac: float = setting(0.10, at_least=0, at_most=1, is_open=True)
    """Smallest share of requests that is worth a certificate."""
    agreement: int = setting(0, at_least=0, at_most=64)
    """Answers drawn beside each one, to see whether they agree; each costs as much as an answer."""
    streaming: bool = setting(False)
    """Decide from the prompt alone, before the answer, so that the student's answers can stream."""
    check: str = setting(
        "auto",
        pattern=r'[a-z_]+(\s+[a-z0-9_]+=("([^"\\]|\\.)*"|[^\s"]\S*|))*',
        pattern_says="a check and its options, like 'json tolerance=0.01 unordered=items'",
    )
    """What makes an answer worse: exact, text, json, tool_call, sql, regex, numeric, code, custom,
    with options; `auto` compares JSON where every target is JSON, else the exact text."""
    judge: str = setting("")
    """The `[teacher.<name>]` that judges which answer is worse, in place of a check."""
    judge_above: str = setting("")
    """A stronger `[teacher.<name>]` that is asked where the judge is undecided."""
    rubric: str = setting("")
    """What the judge goes by, in plain words; empty is the rubric that comes with it."""
    claims: tuple[str, ...] = setting((), choices=("C", "D"))
    """What is to be proved besides: C, quality within `margin`; D, within the teacher's noise."""
    margin: float = setting(0.02, at_least=0, at_most=1, is_open=True)
    """By how much the student may be worse in claims C and D."""
    labels: int = setting(0, at_least=0, at_most=100_000)
    """How many answers people must have labelled, to measure the judge, before it certifies."""


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """`[route.<workload>]`: how the student serves."""

    timeout_s: float = setting(10.0, at_least=0, at_most=3600, is_open=True)
    """How long the student may take before the teacher is asked; certified with that, too."""
    max_prompt_tokens: int | None = setting(None, at_least=1, at_most=2**31 - 1)
    """Longest prompt for the student; what its window leaves room for when not given."""
    first_stage: str = setting("canary", choices=("shadow", "canary", "served"))
    """Where a promoted certificate begins: compared only, a few sessions, or all at once."""
    audit_frac: float = setting(0.02, at_least=0, at_most=1, is_open=True)
    """Share of the answers served that the teacher is asked about too, to watch for harm."""
    run_length: float = setting(10_000.0, at_least=1, at_most=1e9)
    """Audits between two false alarms, on average or longer."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """`[drift]`: how the rented endpoints are watched."""

    num_canaries: int = setting(100, at_least=1, at_most=10_000)
    """Recorded requests that are frozen and asked again at each look."""
    answers: int = setting(1, at_least=1, at_most=20)
    """Answers to each canary at each look; two or more sharpen the comparison of texts."""
    num_probes: int = setting(20, at_least=0, at_most=60)
    """One-token prompts on a border between two answers; 0 asks none."""
    draws: int = setting(20, at_least=1, at_most=1000)
    """Answers to each of those at each look."""
    false_alarm: float = setting(0.05, at_least=0, at_most=1, is_open=True)
    """Chance that an endpoint that never changes, its answers independent draws, is ever said to
    have changed."""
    every_h: float = setting(24.0, at_least=0, at_most=8760)
    """Hours between two looks, for `own drift run --if-due`."""
    on_metadata: str = setting("alarm", choices=("alarm", "note"))
    """What a new model name or system fingerprint in the answers is."""


TABLES: Mapping[str, type[Any]] = {
    "gateway": GatewaySettings,
    "store": StoreSettings,
    "teacher": TeacherSettings,
    "workload": WorkloadSettings,
    "student": StudentSettings,
    "verdict": VerdictSettings,
    "route": RouteSettings,
    "drift": DriftSettings,
}
NAMED_TABLES: Mapping[str, str] = {
    "teacher": "name", "workload": "name", "student": "workload", "verdict": "workload",
    "route": "workload",
}  # fmt: skip
