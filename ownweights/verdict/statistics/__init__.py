"""The formulas behind a verdict: numpy and scipy only, no words of the business beyond harm."""

from ownweights.verdict.statistics.binomial import (
    binomial_p_value,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from ownweights.verdict.statistics.bounded import betting_p_value, hoeffding_bentkus_p_value
from ownweights.verdict.statistics.budget import attempt_delta
from ownweights.verdict.statistics.fixed_sequence import (
    Limits,
    RiskTest,
    Step,
    Walk,
    develop_thresholds,
    start_of_walk,
    walk_thresholds,
)
from ownweights.verdict.statistics.sample_size import (
    Needed,
    served_without_harm,
    trials_needed,
    units_needed,
)

__all__ = [
    "Limits",
    "Needed",
    "RiskTest",
    "Step",
    "Walk",
    "attempt_delta",
    "betting_p_value",
    "binomial_p_value",
    "clopper_pearson_interval",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "develop_thresholds",
    "hoeffding_bentkus_p_value",
    "served_without_harm",
    "start_of_walk",
    "trials_needed",
    "units_needed",
    "walk_thresholds",
]
