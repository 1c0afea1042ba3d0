"""Text to token ids and back, from a hub folder's tokenizer.json and tokenizer_config.json.

In: a folder. Out: a `Tokenizer`, and `Detokenizer`s that turn a growing list of ids into pieces of
text. Every kind that tokenizer.json can hold is read: byte-level BPE as in Llama 3, Qwen and
Mistral's tekken, SentencePiece's BPE as in Llama 2 and Gemma, unigrams. Invariants: text never
becomes a special token unless the caller asks for it (test_encode_keeps_special_strings_plain);
ids are transformers' for each kind (test_encode_matches_transformers); a piece never ends inside a
UTF-8 character, and the pieces joined are `decode` of all ids
(test_detokenizer_pieces_always_join_to_decode).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from ownweights.core.errors import ModelError

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # how an unfinished UTF-8 sequence decodes
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_PLAIN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHER = [byte for byte in range(256) if byte not in _PLAIN]
# how byte-level vocabularies spell bytes: printable ones as themselves, the others above 255
_BYTES = {chr(byte): byte for byte in _PLAIN} | {
    chr(256 + index): byte for index, byte in enumerate(_OTHER)
}
# The names that transformers gives a chat template, besides those of `extra_special_tokens`.
_NAMES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip


class Span(NamedTuple):
    """Where a token stands in the text it came from, in characters; a token of whitespace alone may
    be empty, at either of its ends."""

    start: int
    end: int


class Stretch(NamedTuple):
    """A stretch of text that begins at `start`: plain (id None) or one special token."""

    text: str
    special_id: int | None
    start: int


class Tokenizer:
    """A checkpoint's tokenizer: ids of text, text of ids, and which ids are special."""

    def __init__(self, marked: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
        self._marked = marked
        self._plain = tokenizers.Tokenizer.from_str(marked.to_str())
        self._plain.encode_special_tokens = True  # "<|end|>" in a text is seven characters
        self.config = config
        self.added = marked.get_added_tokens_decoder()
        self.special_ids = {
            token.content: id_ for id_, token in self.added.items() if token.special
        }
        names = sorted(self.special_ids, key=len, reverse=True)  # the longest of several matches
        self.special_pattern = re.compile("|".join(map(re.escape, names))) if names else None
        self._unseen = frozenset(self.special_ids.values())
        self.bos_id = self._special("bos_token")
        self.eos_id = self._special("eos_token")
        pad = self.special_text("pad_token")  # rows are padded by length: it may be missing
        self.pad_id = None if pad is None else self.token_id(pad)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of the checkpoint in `folder`.

        Raises: ModelError when a file is missing or unreadable
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json",
                hint="save the checkpoint's fast tokenizer beside its weights",
            )
        try:
            marked = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}") from None
        marked.no_truncation()
        marked.no_padding()
        older = _read_json(folder / "special_tokens_map.json")
        named = {name: value for name, value in older.items() if name in _NAMES}
        return cls(marked, named | _read_json(folder / "tokenizer_config.json"))

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._marked.to_str()).get("decoder"))

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id."""
        return 1 + max(self._marked.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of a text, nothing added; special strings are plain text unless allowed.

        Half of a surrogate pair, which is no text, is read as U+FFFD.
        """
        used = self._marked if allow_special else self._plain
        return used.encode(readable(text), add_special_tokens=False).ids

    def encode_spans(
        self, text: str, *, allow_special: bool = False
    ) -> tuple[list[int], list[Span]]:
        """As `encode`, and where in the (readable) text each token stands."""
        used = self._marked if allow_special else self._plain
        found = used.encode(readable(text), add_special_tokens=False)
        return found.ids, [Span(*offsets) for offsets in found.offsets]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids."""
        return self._marked.decode(list(ids), skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int | None:
        """The id of one token as the vocabulary spells it."""
        return self._marked.token_to_id(token)

    def token_text(self, token_id: int) -> str:
        """One token as the vocabulary spells it; empty for an id that is none."""
        return self._marked.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes that a token stands for within a text; None for a special one.

        A leading space that a SentencePiece vocabulary adds to a whole text is among them.
        """
        spelled = self._marked.id_to_token(token_id)
        if spelled is None or token_id in self._unseen:
            return None
        if token_id in self.added:
            return spelled.encode()
        if self._is_byte_level:
            if not all(letter in _BYTES for letter in spelled):
                return None
            return bytes(_BYTES[letter] for letter in spelled)
        if _BYTE_TOKEN.fullmatch(spelled):
            return bytes([int(spelled[3:5], 16)])
        return spelled.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def joins_next(self, token_id: int) -> bool:
        """Whether a token decodes together with the next: a raw byte, or special, hence unseen."""
        if token_id in self._unseen:
            return True
        return bool(_BYTE_TOKEN.fullmatch(self.token_text(token_id)))

    def special_texts(self) -> dict[str, str]:
        """The special tokens that have a name, as transformers hands them to a chat template."""
        extra = self.config.get("extra_special_tokens")
        named = dict(extra) if isinstance(extra, Mapping) else {}
        held = {**named, **{name: self.config.get(name) for name in _NAMES}}
        found = {name: _content(name, value) for name, value in held.items()}
        return {name: text for name, text in found.items() if text is not None}

    def special_text(self, name: str) -> str | None:
        """How tokenizer_config.json spells `bos_token` and the like."""
        return _content(name, self.config.get(name))

    def _special(self, name: str) -> int | None:
        text = self.special_text(name)
        if text is None:
            return None
        found = self.token_id(text)
        if found is None:
            raise ModelError(f"tokenizer_config.json: {name} {text!r} is not in tokenizer.json")
        return found


class Detokenizer:
    """Text of ids that arrive one after the other.

    A piece is withheld while it ends in an unfinished character, and, with byte-fallback
    vocabularies, while the run of byte tokens goes on (the whole run decodes together).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # decoding from here gives the same text as decoding from the beginning
        self._done = 0  # ids before this one have been given out

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain after these ids too; often empty."""
        self._ids += ids
        if not self._ids or self._tokenizer.joins_next(self._ids[-1]):
            return ""
        whole = self._tokenizer.decode(self._ids[self._start :])
        if whole.endswith(_REPLACEMENT):
            return ""
        return self._give(whole)

    def flush(self) -> str:
        """What was withheld, now that no more ids come."""
        return self._give(self._tokenizer.decode(self._ids[self._start :]))

    def _give(self, whole: str) -> str:
        known = self._tokenizer.decode(self._ids[self._start : self._done])
        piece = whole[len(known) :]
        if piece:  # a window that starts with nothing visible would decode as if at the beginning
            self._start = self._done
        self._done = len(self._ids)
        return piece


def readable(text: str) -> str:
    """The text with each half of a surrogate pair, which is no text, as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_specials(tokenizer: Tokenizer, text: str) -> Iterator[Stretch]:
    """`text` cut as the tokenizer would: plain stretches (id None) and special tokens."""
    pattern = tokenizer.special_pattern
    at = 0
    for match in pattern.finditer(text) if pattern else ():
        id_ = tokenizer.special_ids[match.group()]
        token = tokenizer.added[id_]
        plain = text[at : match.start()]
        yield Stretch(plain.rstrip() if token.lstrip else plain, None, at)
        yield Stretch(match.group(), id_, match.start())
        at = match.end()
        while token.rstrip and at < len(text) and text[at].isspace():
            at += 1
    yield Stretch(text[at:], None, at)


def _content(name: str, value: Any) -> str | None:
    """How a special token is spelled, in either of the two ways to write one down."""
    text = value.get("content") if isinstance(value, Mapping) else value
    if text is not None and not isinstance(text, str):
        raise ModelError(f"tokenizer_config.json: {name} must be text, got {text!r:.60}")
    return text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return value
