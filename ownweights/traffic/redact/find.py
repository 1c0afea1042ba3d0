"""Finds personal data and secrets in a text by their form.

In: a text, and the kinds looked for. Out: spans in order that do not overlap. A NUL ends every
value, so that many short texts, joined by it, are searched as one. Every pattern begins with a
letter class or a literal, which the regular expression engine skips to quickly, and repeats nothing
without a bound: the time is linear in the text (test_find_spans_takes_hostile_texts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from ownweights.traffic.redact.number import IBAN_CHARS, is_card, is_iban, is_ip, is_ssn
from ownweights.traffic.redact.phone import find_phones
from ownweights.traffic.redact.plain import narrow, seen
from ownweights.traffic.redact.said import said_before
from ownweights.traffic.redact.secret import find_keys
from ownweights.traffic.redact.span import Span, without_overlaps

MAX_LOCAL_CHARS = 64  # RFC 5321
# no letter or digit stands before X, the one character matched so far; `\n` written in JSON or code
# is no letter
_BEGINS = r"(?:(?<!\w.)|(?<=\\[nrt].))"

_REGION = re.compile(r"[0-9][0-9 .()/+\u00a0\u2009\u202f\u2010-\u2015-]{6,}")
# the same in bytes, which are searched ten times as fast: whether there can be a region at all
_SEVEN = b"0" * 7
_AS_NUMBER = bytes(
    48 if char in b"0123456789 .()/+-" or char >= 0x80 else 32 for char in range(256)
)
MAX_IBAN_CHARS = 45  # in groups

_AT = re.compile(r"[@%](?:(?<=@)|40)")
_LOCAL_REVERSED = re.compile(r"[\w.+%'~-]{1,64}")
_DOMAIN = re.compile(
    r"(?:[^\W_][\w-]{0,62}\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})"
    r"|\[?\d{1,3}(?:\.\d{1,3}){3}\]?"
)
_NO_PERSON = {"git"}  # git@host:path is an address of code

_IBAN = re.compile(
    r"[0-9][0-9](?<=[A-Za-z]{2}[0-9]{2})(?:(?<!\w[A-Za-z]{2}[0-9]{2})|(?<=\\[nrt][A-Za-z]{2}[0-9]{2}))"
    r"(?:[ \u00a0-]?[A-Za-z0-9]{1,4}){3,9}"
)
_CARD = re.compile(
    r"[0-9]" + _BEGINS + r"(?<![0-9][.-].)(?:[0-9]{11,18}|"
    r"[0-9]{3}[ \u00a0-][0-9]{4}[ \u00a0-][0-9]{4}[ \u00a0-][0-9]{1,7}(?:[ \u00a0-][0-9]{1,3})?|"
    r"[0-9]{3}[ \u00a0-][0-9]{6}[ \u00a0-][0-9]{4,5})(?![0-9])"
)
_GROUP = re.compile(r"[^0-9][0-9]")
_SSN = re.compile(r"[0-9]" + _BEGINS + r"(?<![0-9][.-].)[0-9]{2}-[0-9]{2}-[0-9]{4}(?![\w-])")
_IPV4 = re.compile(
    r"[0-9]" + _BEGINS + r"(?<![.-].)[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
    r"(?![\w-]|\.[0-9])"
)
_VERSION = re.compile(r"(?:version|release|firmware|build|\bv)[\s:=]{0,3}\Z", re.IGNORECASE)
_IPV6_MIDDLE = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{2,40}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?")
_IPV6_REVERSED = re.compile(r"[0-9A-Fa-f:]{0,40}")
_SAYS_CARD = re.compile(
    r"\bcards?\b|\bcc\b|\bvisa\b|mastercard|maestro|amex|\bkarten?|carte\b|tarjeta|carta\b",
    re.IGNORECASE,
)


def find_spans(text: str, kinds: Iterable[str]) -> list[Span]:
    """What of these kinds stands in a text, in order, without overlaps."""
    text, wanted = narrow(text), tuple(kinds)
    found = _find(text, wanted)
    if told := seen(text):
        shown, places = told
        found += [
            Span(places[start], places[end - 1] + 1, kind)
            for start, end, kind in _find(shown, wanted)
        ]
    return without_overlaps(found) if len(found) > 1 else found


def _find(text: str, kinds: Iterable[str]) -> list[Span]:
    raw = text.encode("utf-8", "surrogatepass")
    wants_numbers = any(kind in _NUMBER_FINDERS for kind in kinds)
    regions = find_regions(text, raw) if wants_numbers else []
    found: list[Span] = []
    for kind in kinds:
        if kind == "key":
            found += find_keys(text, raw)
        elif kind == "email":
            found += find_emails(text)
        elif regions and kind in _NUMBER_FINDERS:
            for region in regions:
                found += _NUMBER_FINDERS[kind](text, *region)
        if kind == "ip" and ":" in text:
            found += find_ipv6(text)
    return found


def find_regions(text: str, raw: bytes) -> list[tuple[int, int]]:
    """Where digits stand so close that they may be a number of some length."""
    if _SEVEN not in raw.translate(_AS_NUMBER):
        return []
    return [match.span() for match in _REGION.finditer(text)]


def find_emails(text: str) -> Iterator[Span]:
    """E-mail addresses; also with `%40` for the @, as in a URL."""
    for at in _AT.finditer(text) if "@" in text or "%40" in text else ():
        here, after = at.span()
        domain = _DOMAIN.match(text, after)
        if domain is None or here == 0:
            continue
        before = text[max(0, here - MAX_LOCAL_CHARS) : here]
        local = _LOCAL_REVERSED.match(before[::-1])
        name = before[-local.end() :] if local else ""
        if name[:1] in "nrtbf" and text[here - len(name) - 1 : here - len(name)] == "\\":
            name = name[1:]
        name = name.lstrip(".'-+%~")
        if name and name not in _NO_PERSON:
            yield Span(here - len(name), domain.end(), "email")


def find_ibans(text: str, begin: int, stop: int) -> Iterator[Span]:
    """International bank account numbers, compact or in groups, with right check digits."""
    for match in _IBAN.finditer(text, max(0, begin - MAX_IBAN_CHARS), stop + MAX_IBAN_CHARS):
        start = match.start() - 2
        wanted = IBAN_CHARS.get(text[start : start + 2].upper(), 0)
        end, chars = start, 0
        while chars < wanted and end < match.end():
            chars += text[end].isalnum()
            end += 1
        compact = "".join(filter(str.isalnum, text[start:end]))
        if wanted and not text[end : end + 1].isalnum() and is_iban(compact):
            yield Span(start, end, "iban")


def find_cards(text: str, begin: int, stop: int) -> Iterator[Span]:
    """Payment cards: digits in the groups of a card, of a known issuer or said to be one's."""
    place = begin
    while match := _CARD.search(text, place, stop):
        start, end = match.span()
        digits = "".join(filter(str.isdigit, match[0]))
        if is_card(digits) or (has_shape(digits) and said_before(text, start, _SAYS_CARD)):
            yield Span(start, end, "card")
            place = end
        else:  # a card may begin with a later group
            later = _GROUP.search(text, start, end)
            place = later.start() + 1 if later else end


def has_shape(digits: str) -> bool:
    """Whether digits could be a card's of an issuer that is not known."""
    return is_card(digits, is_said=True)


def find_ssns(text: str, begin: int, stop: int) -> Iterator[Span]:
    """US social security numbers, written with hyphens."""
    for match in _SSN.finditer(text, begin, stop + 1):
        if is_ssn(match[0]):
            yield Span(*match.span(), "ssn")


def find_ipv4(text: str, begin: int, stop: int) -> Iterator[Span]:
    """IPv4 addresses; a version number of four parts, said to be one, is none."""
    for match in _IPV4.finditer(text, begin, stop + 1):
        if is_ip(match[0]) and not _VERSION.search(text, max(0, match.start() - 12), match.start()):
            yield Span(*match.span(), "ip")


def find_ipv6(text: str) -> Iterator[Span]:
    """IPv6 addresses of three groups or more."""
    place = 0
    while middle := _IPV6_MIDDLE.search(text, place):
        before = text[max(place, middle.start() - 40) : middle.start()]
        backward = _IPV6_REVERSED.match(before[::-1])
        start = middle.start() - (backward.end() if backward else 0)
        match = _IPV6.match(text, start)
        assert match is not None, "it matches at least the middle"
        place = max(match.end(), middle.end())
        if _is_ipv6(text, start, match.end()):
            yield Span(start, match.end(), "ip")


def _is_ipv6(text: str, start: int, end: int) -> bool:
    """Whether it stands alone, is valid, and does not look like names joined by `::`."""
    word = text[start:end]
    groups = [group for group in word.split(":") if group]
    if len(groups) < 3 or not any(char.isdigit() for char in word):
        return False
    if _is_word(text[start - 1 : start]) or _is_word(text[end : end + 1]):
        return False
    return is_ip(word)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


_NUMBER_FINDERS: dict[str, Callable[[str, int, int], Iterator[Span]]] = {
    "iban": find_ibans,
    "card": find_cards,
    "ssn": find_ssns,
    "ip": find_ipv4,
    "phone": find_phones,
}
