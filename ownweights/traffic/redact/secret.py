"""Keys and tokens: forms that providers give them, and values that are said to be secret.

Sources: the token formats that providers publish for secret scanning; RFC 6750 (Bearer), RFC 7617
(Basic), RFC 7519 (JWT), RFC 7468 (private keys), RFC 3986 §3.2.1 (passwords in a URL).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import string
from collections import Counter
from collections.abc import Iterator

from ownweights.traffic.redact.span import Span

MAX_KEY_BLOCK_CHARS = 16_384
MIN_FORM_CHARS = 15  # no provider's form is shorter
MAX_LOOKED_AT_CHARS = 64  # the rest of a longer value is like its beginning
MIN_TOKEN_BITS = 3.0  # of Shannon entropy a character; words of a language have less in 16 letters
_BEGINS = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"  # `\n` in a log or in code is no letter

# what must stand in a text for the pattern beside it to be tried at all
_FORMS: tuple[tuple[str, str], ...] = (
    ("sk-", r"sk-(?=[\w-]{0,40}[0-9])[A-Za-z0-9_-]{20,256}"),
    ("AKIA", r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("ASIA", r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("ABIA", r"ABIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("ghp_", r"ghp_[A-Za-z0-9]{36,255}"),
    ("gho_", r"gho_[A-Za-z0-9]{36,255}"),
    ("ghu_", r"ghu_[A-Za-z0-9]{36,255}"),
    ("ghs_", r"ghs_[A-Za-z0-9]{36,255}"),
    ("ghr_", r"ghr_[A-Za-z0-9]{36,255}"),
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
    ("glpat-", r"glpat-[\w-]{20,255}"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,255}"),
    ("xapp-", r"xapp-[0-9]-[A-Za-z0-9-]{10,255}"),
    ("hooks.slack.com/", r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,100}"),
    ("AIza", r"AIza[\w-]{35}(?![\w-])"),
    ("GOCSPX-", r"GOCSPX-[\w-]{28}"),
    ("ya29.", r"ya29\.[\w-]{20,512}"),
    ("sk_live_", r"sk_live_[A-Za-z0-9]{10,255}"),
    ("sk_test_", r"sk_test_[A-Za-z0-9]{10,255}"),
    ("rk_live_", r"rk_live_[A-Za-z0-9]{10,255}"),
    ("rk_test_", r"rk_test_[A-Za-z0-9]{10,255}"),
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{24,255}"),
    ("hf_", r"hf_[A-Za-z0-9]{30,255}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{40,255}"),
    ("xai-", r"xai-[A-Za-z0-9]{60,255}"),
    ("pplx-", r"pplx-[A-Za-z0-9]{40,255}"),
    ("r8_", r"r8_[A-Za-z0-9]{37,255}"),
    ("npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi-", r"pypi-[\w-]{50,1024}"),
    ("SG.", r"SG\.[\w-]{16,64}\.[\w-]{16,128}"),
    ("shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("dop_v1_", r"dop_v1_[0-9a-f]{64}"),
    ("dapi", r"dapi[0-9a-f]{32}"),
    ("hvs.", r"hvs\.[\w-]{24,512}"),
    ("AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    (":AA", r"[0-9]{8,10}:AA[\w-]{33}"),
    ("eyJ", r"eyJ[\w-]{8,4096}\.eyJ[\w-]{8,16384}(?:\.[\w-]{1,4096}){0,3}"),
)
_COMPILED = tuple((part.encode(), re.compile(_BEGINS + form)) for part, form in _FORMS)

# the same in bytes, which are searched ten times as fast: whether there can be such a word at all
_LONG_WORD = b"0" * MIN_FORM_CHARS
_WORD_CHARS = frozenset(string.ascii_letters + string.digits + "-_.:/")
_AS_WORD = bytes(48 if chr(char) in _WORD_CHARS else 32 for char in range(256))

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = "-----END "
_PEM_LAST = re.compile(r"[A-Z0-9 ]{0,40}-----")
_ONE_TEXT = re.compile(r"[^\x00\x01]*")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\]{0,16384}")

_SCHEME = re.compile(r"(?i:earer|asic)[ \t]{1,4}([A-Za-z0-9._~+/=-]{12,8192})")
_URL_PASSWORD = re.compile(r"://[^\s/:@<>{}\[\]\"'\x00\x01]{0,128}:([^\s/@<>\"'\x00\x01]{1,256})@")
_QUERY = re.compile(
    r"[?&;](?i:(?:[a-z]{1,12}[_-]?)?(?:key|token|secret|sig|signature|password|passwd|pwd|auth))"
    r"=([^&\s#\"'<>\\;\x00\x01]{6,2048})"
)
# what comes after the first letters of a name: the rest of it, an operator, and the value
_STEMS = {
    "pass": ("passw", "passphrase", "passcode"),  # all of which it begins
    **{s: (s,) for s in ("key", "secret", "token", "credential", "pwd", "bearer", "basic")},
}
_VALUE = re.compile(
    r"(?i:(?:or)?d?s?(?:_?(?:id|value|hash|base64))?)"
    r"(?:[\"'\\]{0,3}[ \t]{0,3}(?:=>|:=|={1,2}|:|(?i:\bis\b))[ \t]{0,3}(?:[a-z]?[\"'\\]{1,3})?"
    r"|\x01)"
    r"([^\s\"'`<>\\,;\x00\x01]{6,512})"
)
_CODE = re.compile(
    r"[$%{(\[]|(?:os|process|self|env|config|settings|sys|ctx|req|request|this)\.|[A-Za-z_.]+\("
    r"|\*{3}|x{4}|your[-_ ]|\.{3}|https?://",
    re.IGNORECASE,
)


def find_keys(text: str, raw: bytes) -> Iterator[Span]:
    """Keys, tokens, passwords and private keys. `raw` is the text in UTF-8."""
    yield from _known_forms(text, raw)
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)
    if "://" in text:
        for match in _URL_PASSWORD.finditer(text):
            if not _CODE.match(match[1]):
                yield Span(*match.span(1), "key")
    if "=" in text:
        yield from _query_keys(text)
    raw_lower = raw.lower()
    if said := [s for begin, s_all in _STEMS.items() if begin.encode() in raw_lower for s in s_all]:
        lower = raw_lower.decode("utf-8", "surrogatepass")  # ASCII alone is small: same places
        for stem in said:
            find = _SCHEMES.get(stem, _named_keys)
            yield from find(text, lower, stem)


def _known_forms(text: str, raw: bytes) -> Iterator[Span]:
    if words := _long_words(raw):
        for part, form in _COMPILED:
            if part in words:
                for match in form.finditer(text):
                    yield Span(*match.span(), "key")


def _long_words(raw: bytes) -> bytes:
    """The words that are long enough to be a key."""
    shape = raw.translate(_AS_WORD)
    words: list[bytes] = []
    start = shape.find(_LONG_WORD)
    while start >= 0:
        end = shape.find(b" ", start)
        words.append(raw[start:end] if end >= 0 else raw[start:])
        start = shape.find(_LONG_WORD, end) if end >= 0 else -1
    return b" ".join(words)


def looks_random(value: str, *, min_chars: int = 16) -> bool:
    """Whether text is like a drawn token, not like words or a name in code."""
    value = value[:MAX_LOOKED_AT_CHARS]
    if len(value) < min_chars or not any(map(str.isdigit, value)):
        return False
    counts = Counter(value).values()
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return bits >= MIN_TOKEN_BITS and any(map(str.isalpha, value))


def looks_like_password(value: str) -> bool:
    """Whether text that is said to be a password can be one: more than a word."""
    if len(value) < 6 or _CODE.match(value):
        return False
    kinds = {_sort(char) for char in value[:MAX_LOOKED_AT_CHARS].rstrip(".,!?)")}
    return len(kinds) > 1 and (kinds != {"upper", "lower"} or not value.istitle())


def _sort(char: str) -> str:
    if char.isdigit():
        return "digit"
    if char.isupper():
        return "upper"
    return "lower" if char.isalpha() else "sign"


def _private_keys(text: str) -> Iterator[Span]:
    place = 0
    while begin := _PEM.search(text, place):
        end = text.find(_PEM_END, begin.end(), begin.end() + MAX_KEY_BLOCK_CHARS)
        last = _PEM_LAST.match(text, end + len(_PEM_END)) if end >= 0 else None
        if last is None or not _ONE_TEXT.fullmatch(
            text, begin.end(), end
        ):  # cut off before its end
            last = _PEM_BODY.match(text, begin.end())
        assert last is not None, "the body may be empty"
        place = last.end()
        yield Span(begin.start(), place, "key")


def _query_keys(text: str) -> Iterator[Span]:
    for match in _QUERY.finditer(text):
        if len(match[1]) >= 16 or any(map(str.isdigit, match[1])):
            yield Span(*match.span(1), "key")


def _named_keys(text: str, lower: str, stem: str) -> Iterator[Span]:
    """Values after a name that holds the stem: `API_KEY=…`, `"password": "…"`."""
    place = lower.find(stem)
    while place >= 0:
        place += len(stem)
        match = _VALUE.match(text, place)
        if match and (looks_like_password if stem[0] == "p" else _looks_drawn)(match[1]):
            yield Span(*match.span(1), "key")
        place = lower.find(stem, place)


def _looks_drawn(value: str) -> bool:
    return looks_random(value) and not _CODE.match(value)


def _scheme_keys(text: str, lower: str, scheme: str) -> Iterator[Span]:
    """Credentials of an Authorization header."""
    place = lower.find(scheme)
    while place >= 0:
        match = _SCHEME.match(text, place + 1)
        if match and (_is_basic if scheme == "basic" else looks_random)(match[1]):
            yield Span(*match.span(1), "key")
        place = lower.find(scheme, place + 1)


def _is_basic(value: str) -> bool:
    """Whether text is base64 of `user:password`."""
    try:
        return b":" in base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False


_SCHEMES = {"bearer": _scheme_keys, "basic": _scheme_keys}
