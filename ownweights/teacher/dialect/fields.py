"""What becomes of each field on its way from one dialect to the other, as a table, and its reader.

In: a decoded JSON object of a kind that the table describes. Out: its fields that are translated;
or Inexpressible, which names the field that is unknown, of the wrong shape, or cannot be said.
Null says nothing, and neither does a value that asks for what happens anyway. Invariants: the
tables name every field of the official clients' types (test_table_names_every_field_of_*); a field
that is not in them is refused (test_reader_refuses_unknown_fields).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ownweights.core.errors import Inexpressible, nearest

Verdict = Literal["kept", "refused", "hint"]
MAX_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class Field:
    """One field: what it `becomes`, or why it is refused, or why it may be left out (a hint).

    `same` are the values that ask for what happens anyway; `shape` is what its value must be.
    """

    name: str
    verdict: Verdict
    becomes: str
    shape: str = "any"
    same: tuple[Any, ...] = ()
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """The fields that an object of one kind may have, and those it must have."""

    fields: Mapping[str, Field]
    required: tuple[str, ...]


Table = Mapping[str, Kind]


def table(kinds: Mapping[str, Sequence[Field]]) -> Table:
    """The table of these kinds of objects."""
    return {
        name: Kind(
            {field.name: field for field in fields},
            tuple(field.name for field in fields if field.is_required),
        )
        for name, fields in kinds.items()
    }


def kept(
    name: str, becomes: str, shape: str = "any", *, same: tuple[Any, ...] = (), must: bool = False
) -> Field:
    """A field that is translated."""
    return Field(name, "kept", becomes, shape, same, must)


def refused(name: str, why: str, *same: Any) -> Field:
    """A field that cannot be said; `same` are the values that need not be."""
    return Field(name, "refused", why, same=same)


def hint(name: str, why: str) -> Field:
    """A field that changes no word of the answer; it is left out, and the translation says so."""
    return Field(name, "hint", why)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SHAPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "any": ("a value", lambda value: True),
    "text": ("text", lambda value: isinstance(value, str)),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "share": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "count": ("a whole number above 0", lambda value: type(value) is int and value > 0),
    "list": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, Mapping)),
    "content": ("text or a list", lambda value: isinstance(value, str | list)),
}


class Reader:
    """Reads objects by a table; `left_out` collects the hints that were met."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.left_out: set[str] = set()

    def read(self, kind: str, value: Any, where: str) -> dict[str, Any]:
        """The fields of `value` that are translated; `where` is its place in the request."""
        if not isinstance(value, Mapping):
            raise wrong(where or "request", "an object", value)
        fields = self._table[kind].fields
        found: dict[str, Any] = {}
        for name, given in value.items():
            param = inside(where, name)
            field = fields.get(name)
            if field is None:
                raise _unknown(param, name, fields)
            if given is None or any(_is_same(given, default) for default in field.same):
                continue
            if field.verdict == "refused":
                raise Inexpressible(param, field.becomes)
            if field.verdict == "hint":
                self.left_out.add(name)
                continue
            check_shape(field.shape, given, param)
            found[name] = given
        for name in self._table[kind].required:
            if name not in found:
                raise Inexpressible(inside(where, name), "is missing")
        return found


def check_shape(shape: str, value: Any, param: str) -> None:
    """Raise Inexpressible unless `value` has the shape."""
    what, is_that = _SHAPES[shape]
    if not is_that(value):
        raise wrong(param, what, value)


def wrong(param: str, wanted: str, value: Any) -> Inexpressible:
    """The error that says what was expected; it shows numbers, and no text of the caller's."""
    given = repr(value) if _is_number(value) else type(value).__name__
    return Inexpressible(param, f"expected {wanted}, got {given}")


def one_of(allowed: Mapping[str, str], value: Any, param: str) -> str:
    """What a word becomes; Inexpressible for any other."""
    if isinstance(value, str) and value in allowed:
        return allowed[value]
    raise Inexpressible(param, f"only {', '.join(allowed)} can be said in the other dialect")


def type_of(value: Any, kinds: Mapping[str, str], where: str) -> str:
    """The `type` of a tagged object; `kinds` says of each type why it is refused, if it is."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if isinstance(kind, str) and not kinds.get(kind, "unknown"):
        return kind
    known = kinds.get(kind) if isinstance(kind, str) else None
    raise Inexpressible(inside(where, "type"), known or "is missing or unknown")


def inside(where: str, name: str) -> str:
    """The place of a field in an object."""
    shown = name[:MAX_SHOWN_CHARS]
    return f"{where}.{shown}" if where else shown


def _unknown(param: str, name: str, fields: Mapping[str, Field]) -> Inexpressible:
    close = nearest(name, fields)
    return Inexpressible(
        param,
        "is not a field that can be translated",
        hint=f"did you mean {close!r}?" if close else None,
    )


def _is_same(given: Any, default: Any) -> bool:
    if _is_number(given) and _is_number(default):
        return given == default
    return type(given) is type(default) and given == default
