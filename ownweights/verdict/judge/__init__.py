"""A model as a judge: how it is asked, how it is probed, and how far it is to be believed."""

from ownweights.verdict.judge.agreement import (
    Agreement,
    cohen_kappa,
    corrected_by_rates,
    corrected_harm,
    measure_agreement,
    sample_pairs,
)
from ownweights.verdict.judge.cache import ReplyCache
from ownweights.verdict.judge.check import JudgeCheck, People
from ownweights.verdict.judge.escalate import Cascade, decide_by_people, trust_threshold
from ownweights.verdict.judge.judge import Comparison, Judge, JudgeOptions, Pair
from ownweights.verdict.judge.people import read_labels, write_queue
from ownweights.verdict.judge.probes import measure_bias, run_probes

__all__ = [
    "Agreement",
    "Cascade",
    "Comparison",
    "Judge",
    "JudgeCheck",
    "JudgeOptions",
    "Pair",
    "People",
    "ReplyCache",
    "cohen_kappa",
    "corrected_by_rates",
    "corrected_harm",
    "decide_by_people",
    "measure_agreement",
    "measure_bias",
    "read_labels",
    "run_probes",
    "sample_pairs",
    "trust_threshold",
    "write_queue",
]
