"""What is written can be read: by us, and by transformers."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch

from ownweights.core.errors import ArtefactUnwritten
from ownweights.weights.load import load_model
from ownweights.weights.save import add_end_ids, save_model, write_tensors
from tests.disk import max_file_bytes
from tests.tiny import make_base, tiny_model, with_adapter

STORED_TOLERANCE = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SMALLEST_FLOAT16 = 2**-24  # below 2**-14 its numbers are this far apart


@pytest.mark.parametrize("dtype", STORED_TOLERANCE)
@pytest.mark.parametrize("is_tied", [True, False])
def test_save_model_round_trip(tmp_path: Path, dtype: torch.dtype, is_tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=is_tied)
    save_model(model, tmp_path, dtype=dtype)
    found = load_model(tmp_path)
    assert found.config == model.config
    for name, weight in model.state_dict().items():
        error = (found.state_dict()[name] - weight).abs()
        assert torch.all(error <= STORED_TOLERANCE[dtype] * weight.abs() + SMALLEST_FLOAT16)


def test_save_model_tells_other_readers_what_it_is(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path, dtype=torch.bfloat16)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    generation = json.loads((tmp_path / "generation_config.json").read_text("utf-8"))
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("held", "more", "ends"), [((2,), [2], 2), ((2,), [5, 2], [2, 5]), ((), [7], 7)]
)
def test_add_end_ids_keeps_what_there_is(
    held: tuple[int, ...], more: list[int], ends: object, tmp_path: Path
) -> None:
    """training.md c.17: engines that read generation_config.json stop where training ended."""
    save_model(tiny_model(eos_token_ids=held), tmp_path)
    add_end_ids(tmp_path, more)
    generation = json.loads((tmp_path / "generation_config.json").read_text("utf-8"))
    assert generation["eos_token_id"] == ends


def test_save_model_copies_the_tokenizer_byte_for_byte(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ messages }}<|end|>", "utf-8")
    save_model(tiny_model(), tmp_path / "copy", tokenizer_from=base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "copy" / name).read_bytes() == (base / name).read_bytes()


def test_save_model_is_for_merged_models(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="merge adapters before saving"):
        save_model(with_adapter(tiny_model(), 1), tmp_path)


def test_save_model_writes_files_that_others_may_read(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


@pytest.mark.oracle
def test_save_model_is_read_by_transformers_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_base(tmp_path / "base")
    save_model(tiny_model(), tmp_path / "copy", tokenizer_from=base)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", output_loading_info=True)
    assert not any(info.values())
    assert theirs.config.eos_token_id == AutoTokenizer.from_pretrained(base).eos_token_id == 2
    assert caplog.text == ""


def test_write_tensors_on_a_full_disk_says_which_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with (
        pytest.raises(ArtefactUnwritten, match=f"^{path} could not be written: .*too large"),
        max_file_bytes(2000),
    ):
        write_tensors({"a": torch.zeros(3000)}, path)
