"""Result lines have the keys that readers rely on, and so has every line in bench/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import run as bench_run
from bench.result import (
    RATIO_KEYS,
    RESULTS_DIR,
    SIMULATION_KEYS,
    is_result,
    quantile,
    ratio_line,
    simulation_line,
    write_line,
)

STATED = (
    "bench, case, ours, peer, peer_name, unit, ratio_median, ratio_p10, ratio_p90, bound, "
    "workload, repeats, seed, commit, dirty, machine, versions, date"
)
SIMULATED = "violation_frac, se, trials, delta, coverage_frac"


def ratio(**changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "ours": [1.0, 2.0, 4.0], "peer": [4.0, 4.0, 4.0], "peer_name": "other", "unit": "s",
        "is_less_better": True, "workload": "w", "packages": ["numpy", "no-such-package"],
    }  # fmt: skip
    return ratio_line("b", "c", **{**given, **changed})


def test_ratio_keys_are_the_stated_ones() -> None:
    assert tuple(STATED.split(", ")) == RATIO_KEYS
    ratio_keys = [key for key in RATIO_KEYS if key.startswith("ratio_")]
    expected = STATED.replace(", ".join(ratio_keys), SIMULATED)
    assert tuple(expected.split(", ")) == SIMULATION_KEYS


def test_ratio_line_is_above_one_when_ours_is_better() -> None:
    line = ratio()
    assert (line["ours"], line["peer"], line["ratio_median"]) == (2.0, 4.0, 2.0)
    assert (line["ratio_p10"], line["ratio_p90"]) == (pytest.approx(1.2), pytest.approx(3.6))
    assert ratio(is_less_better=False)["ratio_median"] == 0.5


def test_ratio_line_tells_the_circumstances() -> None:
    line = ratio(seed=7, bound=9.5)
    assert (line["repeats"], line["seed"], line["bound"]) == (3, 7, 9.5)
    assert set(line["versions"]) == {"python", "numpy", "no-such-package"}
    assert line["versions"]["no-such-package"] is None
    assert " cores, " in line["machine"]
    assert isinstance(line["dirty"], bool)


@pytest.mark.parametrize("ours", [[], [1.0, 2.0]])
def test_ratio_line_refuses_samples_that_do_not_pair(ours: list[float]) -> None:
    with pytest.raises(ValueError, match="samples of ours, 3 of the peer's"):
        ratio(ours=ours)


def test_simulation_line_has_its_standard_error() -> None:
    line = simulation_line(
        "b", "c", violations=4, trials=100, delta=0.05, coverage_frac=0.5, workload="w"
    )
    assert tuple(line) == SIMULATION_KEYS
    assert line["violation_frac"] == 0.04
    assert line["se"] == pytest.approx((0.04 * 0.96 / 100) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(("violations", "trials"), [(3, 2), (-1, 2), (0, 0)])
def test_simulation_line_refuses_impossible_counts(violations: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{violations} violations in {trials} trials"):
        simulation_line("b", "c", violations=violations, trials=trials, delta=0.05,
                        coverage_frac=None, workload="w")  # fmt: skip


def test_write_line_appends(tmp_path: Path) -> None:
    line = ratio()
    texts = [write_line(line, tmp_path / "new"), write_line(line, tmp_path / "new")]
    assert (tmp_path / "new" / "b.jsonl").read_text().splitlines() == texts
    assert json.loads(texts[0]) == line


def test_write_line_refuses_other_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the keys of a result line: bench"):
        write_line({"bench": "b"}, tmp_path)


@pytest.mark.parametrize(("frac", "expected"), [(0, 1.0), (0.5, 2.5), (1, 4.0)])
def test_quantile_interpolates(frac: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], frac) == expected


@pytest.mark.parametrize("name", bench_run.bench_names())
def test_bench_is_named_after_its_claim_and_documented(name: str) -> None:
    text = (Path(bench_run.__file__).parent / f"{name}.py").read_text()
    assert f"make bench NAME={name}" in text.split('"""')[1]


def test_bench_run_prints_and_keeps_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cases(*, is_quick: bool, seed: int) -> list[dict[str, Any]]:
        assert is_quick
        return [ratio(seed=seed)]

    monkeypatch.setattr("bench.start.cases", cases)
    assert bench_run.main(["start", "--quick", "--seed", "5"], tmp_path) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["seed"] == 5
    assert (tmp_path / "b.jsonl").read_text() == printed


def test_bench_run_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_run.main(["no-such-bench"])
    assert "no-such-bench" in capsys.readouterr().err


def test_results_are_lines_of_known_shape() -> None:
    for path in RESULTS_DIR.glob("*.jsonl"):
        for number, text in enumerate(path.read_text("utf-8").split("\n")[:-1], start=1):
            assert is_result(json.loads(text)), f"{path.name}:{number}"
