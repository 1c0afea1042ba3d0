"""Where each artefact came from, and what its licences and its teachers' terms allow."""

from ownweights.lineage.facts import LicenceFact
from ownweights.lineage.teachers import TeacherUse, check_teachers
from ownweights.lineage.terms import TermsFact, licence_fact, teacher_terms

__all__ = [
    "LicenceFact",
    "TeacherUse",
    "TermsFact",
    "check_teachers",
    "licence_fact",
    "teacher_terms",
]
