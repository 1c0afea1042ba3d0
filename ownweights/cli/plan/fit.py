"""Whether a training fits this machine, told before it starts.

A run that is small beside the free memory starts at once. Any other is measured for a few seconds
(once a shape) and refused where it would not fit, with the setting that would
(test_train_refuses_what_does_not_fit).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.cli.output import say

if TYPE_CHECKING:
    from ownweights.core.project import Project
    from ownweights.dataset.load import Dataset
    from ownweights.student.preflight.estimate import Estimate
    from ownweights.student.train import StudentOptions


def refuse_unless_it_fits(project: Project, dataset: Dataset, options: StudentOptions) -> None:
    """Say what a training will take where that is in question, and stop it where it cannot be had.

    Raises: WontFit
    """
    from ownweights.model.config import read_config
    from ownweights.student.preflight.estimate import is_foretold, is_surely_small
    from ownweights.weights.base import resolve_base

    config = read_config(resolve_base(project, options.base))
    if is_foretold(options) and not is_surely_small(config, options):
        say(describe(estimate(project, dataset, options)))


def estimate(project: Project, dataset: Dataset, options: StudentOptions) -> Estimate:
    """What a training will take, measured here.

    Raises: WontFit
    """
    from ownweights.model.config import read_config
    from ownweights.student.preflight.estimate import calibrate, check_fits, check_weights, shape_of
    from ownweights.student.train import load_base, plan_run
    from ownweights.weights.base import resolve_base

    config = read_config(resolve_base(project, options.base))
    check_weights(config)
    calibration = calibrate(project, shape_of(config, options))
    base = load_base(project, options.base)
    return check_fits(plan_run(dataset, base, options, project=project), calibration)


def describe(found: Estimate) -> str:
    """An estimate in one line."""
    return (
        f"about {_duration(found.seconds)} for {found.steps} steps"
        f" ({found.tokens_per_s:,.0f} tokens/s), {found.peak_bytes / 1e9:.1f} GB of"
        f" {found.free_bytes / 1e9:.1f} GB of memory"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
