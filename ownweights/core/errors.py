"""Every error that a user, a file or the network can cause, in one tree.

    OwnError
    ├── UsageError (ValueError)         the call itself is wrong: flags, arguments
    ├── SettingsError (ValueError)      own.toml or OWN_* says something that cannot be
    ├── InputError (ValueError)         a file or a message that is not what its format promises
    │   └── Inexpressible               a field that the other API cannot say
    ├── ArtefactError (ValueError)      a dataset, student, base ... that lacks parts or was changed
    │   ├── ArtefactMissing (FileNotFoundError)
    │   └── ArtefactUnwritten (OSError)  the disk is full, or may not be written
    ├── StoreError (RuntimeError)       the traffic store cannot be read or written
    ├── TermsRefused (PermissionError)  a teacher's terms deny training on its answers
    ├── ModelError (ValueError)         a checkpoint or adapter that this code cannot run exactly
    │   └── UpdateLost                  rounding would lose what was trained
    ├── WontFit (RuntimeError)          a training that needs more memory than there is
    ├── RankError (RuntimeError)        processes that train together are not alike, or one is lost
    ├── ContextTooLong (ValueError)     a prompt that leaves no room for an answer
    ├── CompleterError (RuntimeError)   whoever should have answered did not
    │   ├── CompleterTimeout (TimeoutError)
    │   ├── CompleterRefused            the upstream answered with an HTTP error status
    │   └── CompleterGarbled (ValueError)  the upstream's answer is not what its protocol promises
    ├── Ineligible (ValueError)         the student cannot answer this request exactly as asked
    ├── InvalidJudge (ValueError)       a judge whose verdicts no certificate may rest on
    └── PortInUse (OSError)             the address to listen on is taken

A message says what happened, what was expected, and, after `hint:`, what to do. Exit codes of the
command line come from `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK, EXIT_ERROR, EXIT_USAGE, EXIT_UNDECIDED, EXIT_REFUSED = 0, 1, 2, 3, 4


class OwnError(Exception):
    """Root of the tree: `what` happened, and a `hint` that says what to do."""

    exit_code = EXIT_ERROR

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what if hint is None else f"{what}\nhint: {hint}")
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only data does not survive Exception's own pickling
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[OwnError], args: tuple[object, ...], data: dict[str, object]) -> OwnError:
    builtin = OSError if issubclass(kind, OSError) else Exception  # each has a layout of its own
    error = builtin.__new__(kind)
    error.args = args
    error.__dict__.update(data)
    return error


class UsageError(OwnError, ValueError):
    """The call itself is wrong."""

    exit_code = EXIT_USAGE


class SettingsError(OwnError, ValueError):
    """The settings say something that cannot be."""

    exit_code = EXIT_USAGE


class InputError(OwnError, ValueError):
    """A file or message is not what its format promises; `where` names the place."""

    def __init__(self, what: str, *, where: str = "", hint: str | None = None) -> None:
        super().__init__(f"{where}: {what}" if where else what, hint=hint)
        self.where = where


class Inexpressible(InputError):
    """The other API cannot say what `param`, a field of the request, asks for."""

    def __init__(self, param: str, what: str, *, hint: str | None = None) -> None:
        super().__init__(what, where=param, hint=hint)
        self.param = param


class ArtefactError(OwnError, ValueError):
    """An artefact is damaged: a file is missing, or differs from its card."""


class ArtefactMissing(ArtefactError, FileNotFoundError):
    """There is no artefact of that kind and id."""


class ArtefactUnwritten(ArtefactError, OSError):
    """An artefact or a checkpoint could not be written; nothing half-written stays."""


class StoreError(OwnError, RuntimeError):
    """The traffic store cannot be read or written. `is_row`: it is about the row, not the store;
    `is_undone`: what was being written is surely not there, and never will be."""

    def __init__(
        self, what: str, *, hint: str | None = None, is_row: bool = False, is_undone: bool = True
    ) -> None:
        super().__init__(what, hint=hint)
        self.is_row = is_row
        self.is_undone = is_undone


class TermsRefused(OwnError, PermissionError):
    """The terms of `teachers` deny training on their answers."""

    exit_code = EXIT_REFUSED

    def __init__(
        self, what: str, *, teachers: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.teachers = teachers


class ModelError(OwnError, ValueError):
    """A checkpoint or adapter that this code cannot run exactly."""


class UpdateLost(ModelError):
    """Stored as asked, the weights would not hold what was trained: `cosine` says how little."""

    exit_code = EXIT_REFUSED

    def __init__(self, what: str, *, cosine: float, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.cosine = cosine


class WontFit(OwnError, RuntimeError):
    """A training needs `needed_bytes` of memory, and only `free_bytes` can be had."""

    exit_code = EXIT_REFUSED

    def __init__(
        self, what: str, *, needed_bytes: int = 0, free_bytes: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class RankError(OwnError, RuntimeError):
    """Of the processes that train together one was lost, or is not like the others."""


class ContextTooLong(OwnError, ValueError):
    """A prompt of `prompt_tokens` leaves no room in a window of `max_tokens`."""

    def __init__(self, prompt_tokens: int, max_tokens: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, the model's window holds {max_tokens}",
            hint="shorten the conversation, or let the teacher answer it",
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens


class CompleterError(OwnError, RuntimeError):
    """Whoever should have answered did not."""


class CompleterTimeout(CompleterError, TimeoutError):
    """No answer within the time allowed."""


class CompleterRefused(CompleterError):
    """The upstream answered with HTTP `status`; `body` is what it said."""

    def __init__(
        self, what: str, *, status: int, body: bytes = b"", hint: str | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.status = status
        self.body = body


class CompleterGarbled(CompleterError, ValueError):
    """The upstream's answer is not what its protocol promises."""


class Ineligible(OwnError, ValueError):
    """The student cannot answer the request exactly as asked, because of `field`."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


class InvalidJudge(OwnError, ValueError):
    """A judge failed its probes, or lacks the human labels asked for; `reasons` say how."""

    exit_code = EXIT_UNDECIDED

    def __init__(
        self, what: str, *, reasons: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__("\n  - ".join((what, *reasons)), hint=hint)
        self.reasons = reasons


class PortInUse(OwnError, OSError):
    """The address to listen on is taken."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, for a hint; None when nothing is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
