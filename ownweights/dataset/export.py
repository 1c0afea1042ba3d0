"""A split as a file for someone else's trainer: OpenAI fine-tuning JSON lines.

The file appears whole or not at all. Examples without an answer in text are left out and counted.
"""

from __future__ import annotations

from pathlib import Path

from ownweights.core.artefact import appearing, canonical_json
from ownweights.core.errors import InputError
from ownweights.dataset.load import Dataset


def export_split(
    dataset: Dataset, split: str, path: Path, *, pruned: bool = False
) -> tuple[int, int]:
    """Write a split; how many examples were written, and how many left out.

    `pruned` writes the messages as the student sees them, not as they were asked.
    Raises: InputError when the file cannot be written
    """
    written = left_out = 0
    try:
        with appearing(path) as draft, draft.open("wb") as file:
            for example in dataset.iter_examples(split):
                if not example.references:
                    left_out += 1
                    continue
                asked = example.messages if pruned else example.request["messages"]
                answer = {"role": "assistant", "content": example.target}
                file.write(canonical_json({"messages": [*asked, answer]}) + b"\n")
                written += 1
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    return written, left_out
