"""Keys and tokens: forms that providers give them, and values that are said to be secret.

Sources: the token formats that providers publish for secret scanning; RFC 6750 (Bearer), RFC 7617
(Basic), RFC 7519 (JWT), RFC 7468 (private keys), RFC 3986 §3.2.1 (passwords in a URL).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from ownweights.traffic.redact.said import JOINT
from ownweights.traffic.redact.span import Span

MAX_KEY_BLOCK_CHARS = 16_384
MIN_TOKEN_BITS = 3.0  # of Shannon entropy a character; words of a language have less in 16 letters
_BEGINS = r"(?<![A-Za-z0-9])"

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
    ("eyJ", r"eyJ[\w-]{8,4096}\.eyJ[\w-]{8,16384}(?:\.[\w-]{0,4096}){0,3}"),
)
_COMPILED = tuple((part, re.compile(_BEGINS + form)) for part, form in _FORMS)

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = "-----END "
_PEM_LAST = re.compile(r"[A-Z0-9 ]{0,40}-----")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\]{0,16384}")

_SCHEME = re.compile(r"[bB](?i:earer|asic)[ \t]{1,4}([A-Za-z0-9._~+/=-]{12,8192})")
_URL_PASSWORD = re.compile(r"://[^\s/:@<>\"'\x00]{0,128}:([^\s/@<>\"'\x00]{1,256})@")
_QUERY = re.compile(
    r"[?&;](?i:(?:[a-z]{1,12}[_-]?)?(?:key|token|secret|sig|signature|password|passwd|pwd|auth))"
    r"=([^&\s#\"'<>\\;\x00]{6,2048})"
)
_NAMED = re.compile(
    r"[kKsStTpPcC](?i:(?<=k)eys?|(?<=s)ecrets?|(?<=t)okens?|(?<=c)redentials?"
    r"|(?<=p)(?P<word>assw(?:or)?d|wd|assphrase|asscode))"
    r"(?:_?(?i:id|value|hash|base64))?"
    r"[\"'\\]{0,3}[ \t\x00]{0,3}(?:=>|:=|={1,2}|:|\bis\b|\x00)[ \t]{0,3}(?:[a-z]?[\"'\\]{1,3})?"
    r"([^\s\"'`<>\\,;\x00]{6,512})"
)
_CODE = re.compile(
    r"[$%{(\[]|(?:os|process|self|env|config|settings|sys|ctx|req|request|this)\.|[A-Za-z_.]+\("
    r"|\*{3}|x{4}|your[-_ ]|\.{3}|https?://",
    re.IGNORECASE,
)


def find_keys(text: str) -> Iterator[Span]:
    """Keys, tokens, passwords and private keys."""
    for part, pattern in _COMPILED:
        if part in text:
            for match in pattern.finditer(text):
                yield Span(*match.span(), "key")
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)
    for match in _SCHEME.finditer(text):
        if looks_random(match[1]):
            yield Span(*match.span(1), "key")
    if "://" in text:
        for match in _URL_PASSWORD.finditer(text):
            yield Span(*match.span(1), "key")
    yield from _query_keys(text)
    yield from _named_keys(text)


def looks_random(value: str, *, min_chars: int = 16) -> bool:
    """Whether text is like a drawn token, not like words or a name in code."""
    if len(value) < min_chars or not any(map(str.isdigit, value)):
        return False
    counts = Counter(value).values()
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return bits >= MIN_TOKEN_BITS and any(map(str.isalpha, value))


def looks_like_password(value: str) -> bool:
    """Whether text that is said to be a password can be one: more than a word."""
    if len(value) < 6 or _CODE.match(value):
        return False
    kinds = {_sort(char) for char in value.rstrip(".,!?)")}
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
        if last is None or JOINT in text[begin.end() : end]:  # cut off before its end
            last = _PEM_BODY.match(text, begin.end())
        assert last is not None, "the body may be empty"
        place = last.end()
        yield Span(begin.start(), place, "key")


def _query_keys(text: str) -> Iterator[Span]:
    for match in _QUERY.finditer(text):
        if len(match[1]) >= 16 or any(map(str.isdigit, match[1])):
            yield Span(*match.span(1), "key")


def _named_keys(text: str) -> Iterator[Span]:
    for match in _NAMED.finditer(text):
        value = match[2]
        if match["word"]:
            is_secret = looks_like_password(value)
        else:
            is_secret = looks_random(value) and not _CODE.match(value)
        if is_secret:
            yield Span(*match.span(2), "key")
