"""Which dtype is computed in, and the reason that is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ownweights.core.errors import SettingsError
from ownweights.student.precision import COMPUTE_DTYPES, derive_dtype
from ownweights.student.train import StudentOptions, load_base, plan_run
from tests.student.zoo import QUICK, make_project


def test_derive_dtype_takes_what_is_asked() -> None:
    for name in COMPUTE_DTYPES:
        assert derive_dtype(name, {}) == (name, "as asked")


@pytest.mark.parametrize(
    ("features", "name"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "float32"), ({}, "float32")],
    ids=str,
)
def test_derive_dtype_goes_by_the_matrix_units(features: dict[str, bool], name: str) -> None:
    found, why = derive_dtype("auto", features)
    assert found == name
    assert "amx_bf16" in why


def test_derive_dtype_reads_this_processor() -> None:
    has = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    assert derive_dtype("auto")[0] == ("bfloat16" if has else "float32")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(SettingsError, match="compute_dtype 'float16' is not one of auto, float32"):
        StudentOptions(compute_dtype="float16")


def test_compute_dtype_is_part_of_a_run(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    base = load_base(project, QUICK.base)

    def options(dtype: str) -> StudentOptions:
        return StudentOptions(
            base=QUICK.base, rank=4, epochs=2, rows_per_step=8, compute_dtype=dtype
        )

    wide, low = (plan_run(dataset, base, options(name)) for name in COMPUTE_DTYPES)
    assert wide.id != low.id
    assert "compute_dtype" not in wide.settings  # as in every run before there was a choice
    assert low.settings["compute_dtype"] == "bfloat16"
    assert low.dtype == ("bfloat16", "as asked")
