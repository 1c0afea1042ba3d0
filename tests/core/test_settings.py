"""Settings: where each value comes from, and what is refused with which words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import SettingsError
from ownweights.core.project import Project, Server
from ownweights.core.settings import SettingHelp, Settings, Source, describe_settings, load_settings
from ownweights.core.tables import NAMED_TABLES, TABLES, StudentSettings, TeacherSettings

FULL = """\
# a comment
[gateway]
host = "0.0.0.0"          # with a comment
port = 9000

[teacher.main]
base_url = "https://api.example.com/v1"
model = "big-1"
key_env = "EXAMPLE_KEY"

[workload.tickets]
teacher = "main"
split_by = "session"
allow_teachers = ["gpt-4o", "gpt-4"]

[student."tickets.v2"]
rank = 8
lora_alpha = 8
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def load(
    project: Project,
    text: str | None = None,
    *,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    if text is not None:
        project.settings_path.write_text(text, "utf-8")
    return load_settings(project, env=env or {}, flags=flags)


def refusal(project: Project, text: str = "", **given: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(project, text, **given)
    return str(caught.value)


def test_load_settings_without_a_file_is_all_defaults(project: Project) -> None:
    settings = load(project)
    assert {source.kind for _, _, source in settings.values()} == {"default"}
    assert settings.student_of("any") == StudentSettings()
    assert settings == load(project, "")


def test_load_settings_reads_every_kind_of_value(project: Project) -> None:
    settings = load(project, FULL)
    assert (settings.gateway.host, settings.gateway.port) == ("0.0.0.0", 9000)
    assert settings.workload_of("tickets").allow_teachers == ("gpt-4o", "gpt-4")
    student = settings.student_of("tickets.v2")
    assert (student.rank, student.lora_alpha, type(student.lora_alpha)) == (8, 8.0, float)
    assert settings.teacher_of("tickets") == (
        "main",
        TeacherSettings("https://api.example.com/v1", "big-1", "EXAMPLE_KEY"),
    )


def test_load_settings_knows_the_line_of_each_value(project: Project) -> None:
    sources = load(project, FULL).sources
    assert sources["gateway.port"] == Source("file", "own.toml:4")
    assert sources["teacher.main.model"] == Source("file", "own.toml:8")
    assert sources["student.tickets.v2.rank"] == Source("file", "own.toml:17")
    assert sources["gateway.timeout_s"] == Source("default")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('teacher.a.base_url = "http://x"\n', 1),
        ('\n[teacher]\na.base_url = "http://x"\n', 3),
        ('[teacher]\n\na = {base_url = "http://x"}\n', 3),
        ("[ teacher . 'a' ] # why not\nbase_url='http://x'", 2),
        ('\ufeff[teacher.a]\r\nbase_url = "http://x"\r\n', 2),
    ],
)
def test_load_settings_finds_lines_in_any_spelling(project: Project, text: str, line: int) -> None:
    settings = load(project, text)
    assert settings.sources["teacher.a.base_url"] == Source("file", f"own.toml:{line}")


def test_load_settings_prefers_flag_then_variable_then_file(project: Project) -> None:
    env = {"OWN_GATEWAY_PORT": "2", "OWN_GATEWAY_TIMEOUT_S": "2"}
    flags = {"gateway.port": 3, "gateway.timeout_s": None}
    text = "[gateway]\nport = 1\ntimeout_s = 1\nhost = 'file'"
    settings = load(project, text, env=env, flags=flags)
    found = settings.gateway
    assert (found.host, found.port, found.timeout_s) == ("file", 3, 2.0)
    assert [settings.sources[f"gateway.{key}"] for key in ("host", "port", "timeout_s")] == [
        Source("file", "own.toml:4"),
        Source("flag", "gateway.port"),
        Source("environment", "OWN_GATEWAY_TIMEOUT_S"),
    ]


def test_load_settings_reads_variables_of_named_tables(project: Project) -> None:
    env = {
        "OWN_STUDENT_TICKETS_V2_ROWS_PER_STEP": "64",
        "OWN_TEACHER_LOCAL_BASE_URL": "http://127.0.0.1:1/v1",
        "OWN_WORKLOAD_NEW_ONE_PRUNE_SYSTEM": "no",
        "OWN_WORKLOAD_NEW_ONE_ALLOW_TEACHERS": "a, b,",
    }
    settings = load(project, FULL, env=env)
    assert settings.student["tickets.v2"].rows_per_step == 64
    assert settings.teacher["local"].base_url == "http://127.0.0.1:1/v1"
    assert settings.workload["new_one"].prune_system is False
    assert settings.workload["new_one"].allow_teachers == ("a", "b")


def test_load_settings_reads_flags_as_text_or_values(project: Project) -> None:
    flags = {"student.a.b.rank": "4", "student.x.seed": 7, "workload.x.prune_system": "true"}
    settings = load(project, flags=flags)
    assert (settings.student["a.b"].rank, settings.student["x"].seed) == (4, 7)
    assert settings.workload["x"].prune_system is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n[gateway]\nprt = 1", "own.toml:3: 'prt' is not a setting of [gateway]\n"
         "hint: did you mean 'port'?"),
        ("[gatewy]\nport = 1", "own.toml:1: 'gatewy' is not a table of the settings\n"
         "hint: did you mean 'gateway'?"),
        ("[student.a]\nepoch = 3", "own.toml:2: 'epoch' is not a setting of [student]\n"
         "hint: did you mean 'epochs'?"),
        ("[route.a]\nzzz = 3", "own.toml:2: 'zzz' is not a setting of [route]\n"
         "hint: known are timeout_s, max_prompt_tokens, first_stage, audit_frac, run_length"),
        ("[teacher.main]\nbase_url='http://x'\n[workload.w]\nteacher='mian'",
         "own.toml:4: 'mian' is no teacher: there is no [teacher.mian]\n"
         "hint: did you mean 'main'?"),
        ("[teacher.main]\nbase_url='http://x'\n[verdict.w]\njudge='mian'",
         "own.toml:4: 'mian' is no teacher: there is no [teacher.mian]\n"
         "hint: did you mean 'main'?"),
        ("[teacher.main]\nbase_url='http://x'\n[verdict.w]\njudge='main'\njudge_above='mian'",
         "own.toml:5: 'mian' is no teacher: there is no [teacher.mian]\n"
         "hint: did you mean 'main'?"),
        ("[teacher.main]\nbase_url='http://x'\n[verdict.w]\njudge='main'\nagreement=3",
         "verdict.w sets agreement and a judge: sampled answers are compared by a check, which asks"
         " nobody\nhint: leave agreement or judge out of [verdict.w]"),
        ("[verdict.w]\nlabels = 200",
         "verdict.w sets judge_above, rubric or labels, but no judge\n"
         'hint: [verdict.w] needs judge = "..."'),
        ("[verdict.w]\nrubric = 'be just'",
         "verdict.w sets judge_above, rubric or labels, but no judge\n"
         'hint: [verdict.w] needs judge = "..."'),
    ],
)  # fmt: skip
def test_load_settings_names_the_nearest_key(project: Project, text: str, says: str) -> None:
    assert refusal(project, text) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gateway = 3", "own.toml:1: gateway must be a table: [gateway]"),
        ("[teacher]\nbase_url = 'http://x'",
         "own.toml:2: teacher.base_url stands outside [teacher.<name>]"),
        ("[teacher.a]\nmodel = 'x'", "[teacher.a] lacks base_url"),
        ("[gateway.inner]\nport = 1", "own.toml:1: 'inner' is not a setting of [gateway]"),
        ("[student.a.b]\nrank = 1", "own.toml:1: 'b' is not a setting of [student]"),
        ("[workload.'../x']", "own.toml:1: '../x' cannot name a workload\nhint: use up to 64"),
        ("[gateway\nport = 1", "own.toml is not TOML: Expected ']'"),
        ("[gateway]\nport = 1\nport = 2", "own.toml is not TOML: Cannot overwrite a value"),
        ("[gateway]\nport = 70000",
         "own.toml:2: gateway.port: expected between 0 and 65535, got 70000"),
    ],
)  # fmt: skip
def test_load_settings_says_what_is_wrong_in_the_file(
    project: Project, text: str, says: str
) -> None:
    assert says in refusal(project, text)


def test_load_settings_says_that_the_file_is_not_text(project: Project) -> None:
    project.settings_path.write_bytes(b"[gateway]\nhost = '\xff'")
    with pytest.raises(SettingsError, match=r"own.toml cannot be read: .*can't decode byte 0xff"):
        load(project)
    project.settings_path.unlink()
    project.settings_path.mkdir()
    with pytest.raises(SettingsError, match=r"own.toml cannot be read: .*Is a directory"):
        load(project)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OWN_GATEWAY_PORT", "x", "OWN_GATEWAY_PORT: expected a whole number, got the text 'x'"),
        ("OWN_GATEWAY_PRT", "1", "OWN_GATEWAY_PRT: 'prt' is not a setting of [gateway]\n"
         "hint: did you mean 'port'?"),
        ("OWN_GATEWY_PORT", "1", "the variable OWN_GATEWY_PORT sets nothing\n"
         "hint: did you mean OWN_GATEWAY_...?"),
        ("OWN_STUDENT_EPOCHS", "1", "it would be OWN_STUDENT_<WORKLOAD>_<KEY>, with a key of"),
        ("OWN_WORKLOAD_A_PRUNE_SYSTEM", "maybe", "expected true or false, got the text 'maybe'"),
        ("OWN_VERDICT_A_ALPHA", "inf", "OWN_VERDICT_A_ALPHA: verdict.a.alpha: expected between"),
    ],
)  # fmt: skip
def test_load_settings_says_what_is_wrong_with_a_variable(
    project: Project, variable: str, value: str, says: str
) -> None:
    assert says in refusal(project, env={variable: value})


def test_load_settings_leaves_other_variables_alone(project: Project) -> None:
    env = {"OWN_TEST_DATA": "x", "OWN": "x", "OWN_": "x", "PATH": "x", "OWNER_GATEWAY_PORT": "x"}
    assert load(project, "", env=env) == load(project, "")


def test_load_settings_leaves_a_variable_that_holds_a_key_alone(project: Project) -> None:
    held = {"OWN_TEACHER_KEY": "sk-1"}
    text = "[teacher.a]\nbase_url = 'http://x'\nkey_env = 'OWN_TEACHER_KEY'"
    assert load(project, text, env=held).teacher["a"].read_key(held) == "sk-1"
    named = {"OWN_TEACHER_A_KEY_ENV": "OWN_TEACHER_KEY", "OWN_TEACHER_A_BASE_URL": "http://x"}
    assert load(project, "", env={**held, **named}).teacher["a"].read_key(held) == "sk-1"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"gateway.prt": 1}, "gateway.prt: 'prt' is not a setting of [gateway]"),
        ({"gatewy.port": 1}, "gatewy.port: 'gatewy' is not a table of the settings"),
        ({"gateway.port": "x"}, "gateway.port: expected a whole number, got the text 'x'"),
        ({"student.rank": 1}, "student.rank: 'rank' is not a setting of [student]"),
        ({"student.a b.rank": 1}, "'a b' cannot name a student"),
        (
            {"verdict.a.delta": 0.0},
            "verdict.a.delta: expected between 0 and 1 (exclusive), got 0.0",
        ),
    ],
)
def test_load_settings_says_what_is_wrong_with_a_flag(
    project: Project, flags: dict[str, Any], says: str
) -> None:
    assert says in refusal(project, flags=flags)


@pytest.mark.parametrize(
    "line", ["api_key = 'sk-123'", "token = 'sk-123'", "key_env = 'sk-123'", "key_env = 'a b'"]
)
def test_load_settings_refuses_a_secret(project: Project, line: str) -> None:
    says = refusal(project, f"[teacher.a]\nbase_url = 'http://x'\n{line}")
    assert 'key_env = "OPENAI_API_KEY"' in says
    assert "own.toml:3: " in says
    assert "sk-123" not in says


def test_read_key_says_which_variable_is_missing() -> None:
    teacher = TeacherSettings("http://x/v1", key_env="SOME_KEY")
    assert teacher.read_key({"SOME_KEY": "secret"}) == "secret"
    assert TeacherSettings("http://x/v1").read_key({}) is None
    for env in ({}, {"SOME_KEY": ""}):
        with pytest.raises(SettingsError, match="variable SOME_KEY is not set") as caught:
            teacher.read_key(env)
        assert "export SOME_KEY=..." in str(caught.value.hint)


def test_teacher_of_takes_the_only_one(project: Project) -> None:
    one = "[teacher.a]\nbase_url = 'http://a'\n"
    assert load(project, one).teacher_of("w")[0] == "a"
    two = one + "[teacher.b]\nbase_url = 'http://b'\n"
    with pytest.raises(SettingsError, match=r"workload.w.teacher is not set"):
        load(project, two).teacher_of("w")
    assert load(project, two + "[workload.w]\nteacher = 'b'").teacher_of("w")[0] == "b"
    with pytest.raises(SettingsError, match="no teacher is set"):
        load(project, "").teacher_of("w")


def test_values_lists_every_key_of_every_table(project: Project) -> None:
    listed = {path: value for path, value, _ in load(project, FULL).values()}
    assert listed["student.tickets.v2.rank"] == 8
    expected = sum(
        len(dataclasses.fields(cls)) * (table not in {"verdict", "route"})
        for table, cls in TABLES.items()
    )
    assert len(listed) == expected


def test_describe_settings_has_help_for_every_field() -> None:
    described = {setting.path: setting for setting in describe_settings()}
    for table, cls in TABLES.items():
        prefix = f"{table}.<{NAMED_TABLES[table]}>" if table in NAMED_TABLES else table
        for field in dataclasses.fields(cls):
            help_text = described.pop(f"{prefix}.{field.name}").help
            assert help_text.endswith("."), field.name
            assert help_text[0].isupper(), field.name
    assert not described


@pytest.mark.parametrize("table", ["[gateway]\notel_endpoint", "[teacher.main]\nbase_url"])
@pytest.mark.parametrize(
    "address",
    [
        "https://ann:hunter2@x/v1", "https://hunter2@x/v1", "https://x/v1?api-key=hunter2",
        "https://x?key=hunter2", "https://x/v1#hunter2", "hunter2", "https:// hunter2",
    ],
)  # fmt: skip
def test_address_with_a_password_is_refused_without_showing_it(
    project: Project, table: str, address: str
) -> None:
    project.settings_path.write_text(f'{table} = "{address}"\n')
    with pytest.raises(SettingsError, match="without a password or a query") as caught:
        load_settings(project, env={})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://[::1]:8000/v1", "https://x", "https://x/a@b/"])
def test_address_of_a_teacher_may_be_any(project: Project, address: str) -> None:
    project.settings_path.write_text(f'[teacher.main]\nbase_url = "{address}"\n')
    assert load_settings(project, env={}).teacher["main"].base_url == address


def test_describe_settings_tells_type_default_and_limits() -> None:
    described = {setting.path: setting for setting in describe_settings()}
    port = described["gateway.port"]
    assert (port.kind, port.limits) == ("a whole number", "between 0 and 65535")
    url = described["teacher.<name>.base_url"]
    assert (url.is_required, url.default, url.limits) == (
        True, None, "an http:// or https:// address, without a password or a query"
    )  # fmt: skip
    assert described["student.<workload>.method"].limits == "one of 'lora', 'qlora', 'full'"
    assert described["student.<workload>.lora_alpha"].limits == "between 0 and 1000000 (exclusive)"
    assert described["workload.<name>.allow_teachers"].kind == "a list of text"


NUMBERS = [row for row in describe_settings() if row.kind in ("a number", "a whole number")]
BAD_NUMBERS = {
    "nan": "nan", "inf": "inf", "minus inf": "-inf", "minus one": "-1", "400 digits": "9" * 400,
    "minus 400 digits": "-" + "9" * 400, "5000 digits": "9" * 5000, "2**64": str(2**64),
    "1e400": "1e400", "hexadecimal": "0x" + "f" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_NUMBERS.values(), ids=BAD_NUMBERS.keys())
@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.path)
def test_load_settings_refuses_what_no_number_can_be(
    project: Project, row: SettingHelp, bad: str
) -> None:
    table, key = row.path.replace("<name>", "x").replace("<workload>", "x").rsplit(".", 1)
    needed = "base_url = 'http://x'\n" if table == "teacher.x" else ""
    said = refusal(project, f"[{table}]\n{needed}{key} = {bad}")
    assert "own.toml" in said and len(said) < 300
    variable = f"OWN_{table}_{key}".replace(".", "_").upper()
    with pytest.raises(SettingsError, match=variable):
        load_settings(Project(project.root / "none"), env={variable: bad})
    with pytest.raises(SettingsError, match=f"{table}.{key}"):
        load_settings(Project(project.root / "none"), env={}, flags={f"{table}.{key}": bad})


def test_load_settings_reads_what_is_masked(project: Project) -> None:
    settings = load(
        project,
        '[store]\nredact = ["name", "ip"]\nrecognizer = "a.b:c"\n'
        '[workload.x]\nredact = ["none"]\nrecord = false\n[workload.y]\n',
    )
    assert (settings.store.redact, settings.store.recognizer) == (("name", "ip"), "a.b:c")
    assert settings.workload["x"].redact == ("none",) and not settings.workload["x"].record
    assert settings.workload["y"].redact is None and settings.workload["y"].record
    assert load(project, "").store.redact == ("key",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[store]\nredact = ["mail"]', "expected one of 'key', 'email'"),
        ('[store]\nredact = ["none", "ip"]', "store.redact: none stands alone, got none, ip"),
        ('[workload.x]\nredact = ["name"]', "workload.x.redact has name, but nothing is set"),
        ('[store]\nrecognizer = "names"', "expected package.module:function"),
        ('[workload.x]\nrecord = "no"', "expected true or false"),
    ],
)
def test_load_settings_refuses_rules_that_cannot_be(project: Project, text: str, said: str) -> None:
    assert said in refusal(project, text)


def test_words_of_redaction_are_those_that_there_are() -> None:
    from ownweights.core.tables import REDACT_WORDS
    from ownweights.traffic.redact import KINDS

    assert set(REDACT_WORDS) == {*KINDS, "all", "none"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann@db.example.com/own",
        "postgres://db:5432/own?sslmode=require",
        "postgresql://ann@[::1]:5432/own",
        "postgresql:///own?host=/var/run/postgresql",
        "postgresql://ann@one:5432,two:5432/own?target_session_attrs=read-write",
    ],
)
def test_store_takes_an_address_of_postgres(project: Project, url: str) -> None:
    project.settings_path.write_text(f'[store]\ndatabase = "{url}"\npassword_env = "DB_PW"\n')
    settings = load_settings(project, env={})
    assert settings.store.place(project).server == Server(url, "DB_PW")
    assert settings.store.place(project).database == Server(url, "DB_PW")


def test_store_is_in_the_project_by_default(project: Project) -> None:
    assert load_settings(project, env={}).store.place(project) == project


@pytest.mark.parametrize(
    "text",
    [
        'database = "postgresql://ann:hunter2@db/own"',
        'database = "postgresql://ann:hun/ter2@db/own"',
        'database = "postgresql://ann@db/own?password=hunter2"',
        'database = "postgresql://ann@db/own?sslmode=require&sslpassword=hunter2"',
        'database = "hunter2"',
        'database = "mysql://hunter2/own"',
        'password_env = "hunter2!"',
        'bodies = "s3://key:hunter2@bucket"',
        'bodies = "/hunter2"',
        'bodies = "simplecache::s3://hunter2"',
        'password = "hunter2"',
    ],
)
def test_store_refuses_a_password_without_showing_it(project: Project, text: str) -> None:
    project.settings_path.write_text(f"[store]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(project, env={})
    assert "hunter2" not in str(caught.value) and "hun/ter2" not in str(caught.value)
    assert "own.toml:2" in str(caught.value)


def test_store_reads_variables(project: Project) -> None:
    env = {"OWN_STORE_DATABASE": "postgresql://a@b/c", "OWN_STORE_PASSWORD_ENV": "OWN_PW",
           "OWN_PW": "hunter2", "OWN_STORE_BODIES": "s3://bucket/own"}  # fmt: skip
    placed = load_settings(project, env=env).store.place(project)
    assert (placed.server, placed.bodies_url) == (
        Server("postgresql://a@b/c", "OWN_PW"), "s3://bucket/own"
    )  # fmt: skip
