"""Canary logits: a model's scores on fixed inputs, kept beside it, computed again when it is
loaded.

A wrong merge, a wrong base or a broken kernel shows at once, before a user's request does
(test_check_canary_finds_one_changed_weight). The inputs are token ids made from a counter, the same
for every model of a vocabulary size, so nothing depends on a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ownweights.core.errors import ModelError
from ownweights.model.transformer import Transformer
from ownweights.weights.load import read_file
from ownweights.weights.save import write_tensors

CANARY_NAME = "canary.safetensors"
# Between CPUs, float32 sums of other orders differ by about 1e-6 of the greatest logit; an adapter
# that is missing or scaled wrongly moves logits by 1e-2 and more.
MAX_RELATIVE_ERROR = 1e-3
_ROWS, _LENGTH, _MAX_ENTRIES = 4, 16, 512
_STEP, _SHIFT = 2654435761, 7  # Knuth's multiplicative hash spreads the counter over the ids


def canary_inputs(vocab_size: int) -> Tensor:
    """Token ids (B, T) that depend on the vocabulary's size alone."""
    count = torch.arange(1, _ROWS * _LENGTH + 1)
    return ((count * _STEP >> _SHIFT) % vocab_size).view(_ROWS, _LENGTH)


@torch.inference_mode()
def canary_logits(model: Transformer) -> Tensor:
    """Scores after the canary inputs, of evenly spaced vocabulary entries.

    Shapes: → (B, entries)
    """
    size = model.config.vocab_size
    length = min(_LENGTH, model.config.max_position_embeddings)
    hidden = model(canary_inputs(size)[:, :length])[:, -1]
    return model.logits(hidden)[:, :: -(-size // _MAX_ENTRIES)].float().contiguous()


def save_canary(model: Transformer, folder: Path) -> None:
    """Keep the model's canary logits in `folder`."""
    write_tensors({"logits": canary_logits(model)}, folder / CANARY_NAME)


def check_canary(model: Transformer, folder: Path) -> bool:
    """Compare with the canary logits in `folder`; False where there are none.

    Raises: ModelError when they differ by more than rounding
    """
    error = canary_error(model, folder)
    if error is None:
        return False
    if not error <= MAX_RELATIVE_ERROR:
        raise ModelError(
            f"{folder}: the loaded weights do not answer as they did when they were made"
            f" (canary logits differ by {error:.2g} of their size, at most {MAX_RELATIVE_ERROR})",
            hint="the base or a file was changed, or this machine computes wrongly; train it again",
        )
    return True


def canary_error(model: Transformer, folder: Path) -> float | None:
    """The greatest difference from the canary logits in `folder`, over the greatest of them; None
    where there are none.

    Raises: ModelError when they belong to another vocabulary
    """
    path = folder / CANARY_NAME
    if not path.is_file():
        return None
    kept = read_file(path).get("logits")
    now = canary_logits(model)
    if kept is None or kept.shape != now.shape:
        raise ModelError(f"{path} belongs to a model of another vocabulary")
    return float((now - kept).abs().max() / kept.abs().max().clamp_min(1e-30))
