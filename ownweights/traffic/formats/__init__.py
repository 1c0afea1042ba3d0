"""The forms in which traffic comes in and goes out: ours, OpenAI's, Langfuse's, LiteLLM's.

In: one decoded value of a file. Out: an Incoming, or Skip with the reason to count it under. And
back: a record as one value of a form, or None where the form has no word for it. Which form a value
has is told from its fields (`read`), never from a file's name.
"""

from ownweights.traffic.formats.files import values_of
from ownweights.traffic.formats.incoming import Incoming, Skip
from ownweights.traffic.formats.sort import EXPORT_FORMATS, ExportFormat, export, read, unwrap

__all__ = [
    "EXPORT_FORMATS",
    "ExportFormat",
    "Incoming",
    "Skip",
    "export",
    "read",
    "unwrap",
    "values_of",
]
