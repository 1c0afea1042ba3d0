"""Where each artefact came from, and what its licences and its teachers' terms allow.

facts.toml ─► teacher_terms ─► check_teachers ─► a dataset's card
cards      ─► trace         ─► check_lineage  ─► findings
"""

from ownweights.lineage.check import PURPOSES, Finding, check_lineage
from ownweights.lineage.facts import LicenceFact
from ownweights.lineage.teachers import TeacherUse, check_teachers
from ownweights.lineage.terms import TermsFact, licence_fact, teacher_terms
from ownweights.lineage.trace import Node, all_artefacts, find_artefact, trace

__all__ = [
    "PURPOSES",
    "Finding",
    "LicenceFact",
    "Node",
    "TeacherUse",
    "TermsFact",
    "all_artefacts",
    "check_lineage",
    "check_teachers",
    "find_artefact",
    "licence_fact",
    "teacher_terms",
    "trace",
]
