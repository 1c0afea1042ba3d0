"""`own weights` from a shell: what is printed, and what is refused with which code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.model.lora import LoraConfig
from ownweights.weights.base import base_id
from tests.weights.made import make_lora, project_with_base

Own = Callable[..., tuple[str, str]]
TEXT = "The harbour was quiet, and 12 boats lay in it.\n" * 40


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_with_base(tmp_path)


@pytest.fixture
def own(project: Project, capsys: pytest.CaptureFixture[str]) -> Own:
    def run(*words: object, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(project.root), "weights", *map(str, words)])
        out, errors = capsys.readouterr()
        assert returned == code, errors
        return out, errors

    return run


def test_weights_merge_prints_what_survived(own: Own, project: Project) -> None:
    student = make_lora(project)
    out, errors = own("merge", student)
    assert (project.kind_dir("base") / out.strip() / "card.json").is_file()
    lines = errors.splitlines()
    assert lines[0].split() == ["layer", "cosine", "unchanged_frac", "update_norm"]
    assert lines[15].split()[0] == "all"
    assert "canary logits differ from the student's by" in lines[16]
    shown = json.loads(own("merge", student, "--json")[0])
    assert shown["id"] == out.strip()
    assert shown["survival"]["cosine"] > 0.98
    assert len(shown["layers"]) == 15


def test_weights_merge_into_a_folder(own: Own, project: Project) -> None:
    target = project.root / "merged"
    out, _ = own("merge", make_lora(project), "--to", target, "--dtype", "float32")
    assert out == f"{target}\n"
    assert (target / "model.safetensors").is_file()


def test_weights_merge_refuses_a_lost_update(own: Own, project: Project) -> None:
    student = make_lora(project, update_std=1e-4)
    _, errors = own("merge", student, code=4)
    assert "keeps a cosine of 0." in errors
    assert "--force writes it as it is" in errors
    own("merge", student, "--force")


def test_weights_export_gguf(own: Own, project: Project) -> None:
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    student, path = make_lora(project), project.root / "a.gguf"
    out, errors = own("export", student, "--gguf", path)
    assert out == f"{path}\n"
    assert "kind: student" in errors and "dtype: f16" in errors
    shown = json.loads(own("export", student, "--gguf", path, "--adapter", "--json")[0])
    assert (shown["kind"], shown["dtype"]) == ("adapter", "f32")
    shown = json.loads(own("export", "tiny", "--gguf", path, "--dtype", "q8_0", "--json")[0])
    assert (shown["kind"], shown["dtype"], shown["survival"]) == ("base", "q8_0", None)


def test_weights_export_peft(own: Own, project: Project) -> None:
    folder = project.root / "peft"
    out, errors = own("export", make_lora(project), "--peft", folder, "--dtype", "bfloat16")
    assert out == f"{folder}\n"
    assert "rank: 8" in errors
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"]) == (8, 8)
    assert config["revision"] == base_id(project.root / "tiny")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say either --gguf FILE or --peft FOLDER"),
        (("--gguf", "a", "--peft", "b"), "say either --gguf FILE or --peft FOLDER"),
        (("--gguf", "a", "--dtype", "float32"), "--gguf takes --dtype f32, f16"),
        (("--gguf", "a", "--revision", "main"), "is for --peft"),
        (("--peft", "a", "--dtype", "q8_0"), "--peft takes --dtype float32"),
        (("--peft", "a", "--adapter"), "--adapter or --force is for --gguf"),
        (("--gguf", "a", "--adapter", "--force"), "--force is about merged weights"),
        (("--gguf", "a", "--dtype", "q4"), "is not one of"),
    ],
)
def test_weights_export_refuses_what_does_not_go_together(
    own: Own, words: tuple[str, ...], said: str
) -> None:
    _, errors = own("export", "tiny", *words, code=2)
    assert said in errors


def test_weights_export_refuses_a_rank_beyond_the_profile(own: Own, project: Project) -> None:
    student = make_lora(project, LoraConfig(257, 257.0, ("q_proj",)))
    _, errors = own("export", student, "--peft", project.root / "peft", code=1)
    assert "rank 257" in errors and "hint: own weights merge" in errors


def test_weights_extend_writes_a_base_and_a_recipe(own: Own, project: Project) -> None:
    out, errors = own("extend", "tiny", "--to", 192, "--method", "ntk", "--name", "long")
    assert out == "long\n"
    assert 'base = "long"' in errors
    assert "own student train --workload long" in errors
    assert json.loads((project.root / "long" / "config.json").read_text("utf-8"))[
        "max_position_embeddings"
    ] == 192  # fmt: skip
    _, errors = own("extend", "tiny", "--to", 96, code=2)
    assert "a window of 96 tokens is no extension of 96" in errors


def test_weights_check_measures_both_bases(own: Own, project: Project) -> None:
    text = project.root / "text.txt"
    text.write_text(TEXT, "utf-8")
    words = ("--method", "ntk", "--check", "--text", text)
    out, _ = own("extend", "tiny", "--to", 192, *words)
    name, *tables = out.splitlines()
    assert tables[0].split() == ["start", "end", "num_tokens", "before", "after"]
    assert tables[8].split()[:2] == ["168", "192"]
    shown = json.loads(own("check", name, "--against", "tiny", "--text", text, "--json")[0])
    assert [one["before"] is None for one in shown["perplexity"]] == [False] * 4 + [True] * 4
    assert len(shown["needles"]) == 4 * 3


def test_weights_check_needs_text(own: Own, project: Project) -> None:
    text = project.root / "text.txt"
    text.write_text("too short", "utf-8")
    _, errors = own("check", "tiny", "--against", "tiny", "--text", text, code=1)
    assert "one window takes 96" in errors
    _, errors = own("check", "tiny", "--against", "tiny", "--text", project.root / "no", code=1)
    assert "cannot be read" in errors


def test_weights_check_refuses_another_tokenizer(own: Own, project: Project) -> None:
    text = project.root / "book.txt"
    text.write_text(TEXT, "utf-8")
    _, errors = own("check", "seedling", "--against", "tiny", "--text", text, code=2)
    assert "'tiny' reads the text as other tokens than 'seedling'" in errors
    assert "hint: --against takes the base that it was made from" in errors


def test_weights_export_warns_of_what_eight_bits_lose(own: Own, project: Project) -> None:
    """Quantising is what was asked for, so it is written; what it may cost is said."""
    target = project.root / "small.gguf"
    small = make_lora(project, update_std=1e-4)
    _, errors = own("export", small, "--gguf", target, "--dtype", "q8_0")
    assert "warning: stored as q8_0, most of the update may be lost" in errors
    assert target.is_file()
    _, errors = own("export", make_lora(project), "--gguf", target, "--dtype", "f32")
    assert "warning" not in errors
