"""Telephone numbers: forms that are nothing else, and other numbers where words say so.

A number with its country code, a bracketed area code, North American grouping or a leading zero and
groups is taken by its form. Other digits are a number to call only where the words before them, or
right after, speak of telephones: 516 466 638 may as well be an amount.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ownweights.traffic.redact.said import said_before
from ownweights.traffic.redact.span import Span

MAX_EXTENSION_CHARS = 12
MIN_DIGITS, MAX_DIGITS = 7, 15  # ITU-T E.164 allows 15
_GAP = r"[ .()/\u00a0\u2009\u202f\u2010-\u2015-]"
_JOIN = r"[ ./\u00a0\u2009\u202f\u2010-\u2015-]"
_EXTENSION = r"(?:(?:[ ]?(?:x|ext\.?)[ ]?)[0-9]{1,6})?"
_NUMBER = re.compile(
    # the first digit, with no word, decimal point or hyphened word before it
    r"[0-9](?:(?<!\w.)|(?<=\\[nrt].))(?<!\w[-_].)(?<![0-9][.,/:].)"
    r"(?:"
    rf"(?P<world>(?<=\+.)(?:{_GAP}{{0,3}}[0-9]){{7,14}})"
    rf"|(?P<area>(?<=\(.)[0-9]{{1,4}}\)[ .-]?[0-9]{{2,4}}(?:[ .-]?[0-9]{{2,4}}){{1,3}})"
    r"|(?P<america>(?:(?<=1)[ .-]\(?[2-9]|(?<=[2-9]))[0-9]{2}\)?[ .-][0-9]{3}[ .-][0-9]{4})"
    rf"|(?P<zero>(?<=0)[0-9]{{1,4}}(?:{_JOIN}[0-9]{{2,10}}){{1,5}})"
    rf"|(?P<any>(?=(?:{_JOIN}?[0-9]){{6}})[0-9]{{0,14}}(?:{_JOIN}[0-9]{{1,10}}){{0,5}})"
    rf")(?![0-9]){_EXTENSION}(?![0-9])"
)
_SAYS_PHONE = re.compile(
    r"phone|\btel\b|tele[fp]on|mobile?\b|\bcell|\bfax|whats\s?app|\bsms\b|\bdial|\bhotline|handy\b"
    r"|\bcall(?:ing|ed|s)?\b|\breach\b|\bring\b|\btext(?:ed|ing)?\b|\bdesk\b|\boffice\b"
    r"|answering|messages?\b|\bpager\b|contact|t[ée]l[ée]?(?:phone)?\b|m[óo]vil|celular"
    r"|телефон|тел\.|电话|電話|手机|携帯",
    re.IGNORECASE,
)
_SAYS_AFTER = re.compile(
    r"[\s,;(-]{1,3}(?:phone|tel|mobile?|cell|fax|office|home|work|desk)\b", re.IGNORECASE
)
_SAYS_OTHER = re.compile(
    r"\b(?:order|invoice|ticket|case|ref|reference|id|ids|account|tracking|zip|card|licen[cs]e|"
    r"number of|amount|version|isbn|issue|booking|reservation|confirmation|item|product|sku|"
    r"passport|policy|flight|usd|eur|gbp|total|price|cost|population|date|on|since|until)\b"
    r"|[$€£¥#]",
    re.IGNORECASE,
)
_TRUNK = re.compile(r"\b[0-9][ -]?\(\Z")  # dialled before the area code: 8 (495) ...
_DATE = re.compile(
    r"(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./][0-3]?\d(?:[ -].*)?"
    r"|[0-3]?\d[-./][0-3]?\d[-./](?:19|20)\d\d(?:[ -].*)?|(?:19|20)\d\d[ -]{1,3}(?:19|20)\d\d"
)


def find_phones(text: str, begin: int, stop: int) -> Iterator[Span]:
    """Telephone numbers, with their extension and the + or bracket before them.

    `begin` to `stop` is a region of digits and what may stand between them.
    """
    for match in _NUMBER.finditer(text, begin, stop + MAX_EXTENSION_CHARS):
        if match.start() < stop and (span := _phone(text, match)) is not None:
            yield span


def _phone(text: str, match: re.Match[str]) -> Span | None:
    form, start, end = match.lastgroup, match.start(), match.end()
    digits = sum(map(str.isdigit, text[start : match.end(form or 0)]))
    if _DATE.fullmatch(match[0]):
        return None
    if form == "area":
        is_year = re.match(r"(?:19|20)\d\d\)", match[0])
        trunk = _TRUNK.search(text, max(0, start - 4), start)
        start = trunk.start() if trunk else start - 1
        return Span(start, end, "phone") if digits >= MIN_DIGITS and not is_year else None
    if form == "world":
        start -= 1
        return Span(start - (text[start - 1 : start] == "("), end, "phone")
    if form == "america":
        return Span(start - (text[start - 1 : start] == "("), end, "phone")
    if form == "zero" and 9 <= digits <= MAX_DIGITS:
        return Span(start, end, "phone")
    if not MIN_DIGITS <= digits <= MAX_DIGITS:
        return None
    return Span(start, end, "phone") if _is_said(text, start, end) else None


def _is_said(text: str, start: int, end: int) -> bool:
    """Whether words say that it is a telephone's, and none after them that it is another's."""
    if _SAYS_AFTER.match(text, end):
        return True
    said = said_before(text, start, _SAYS_PHONE)
    if said is None:
        return False
    after_word = said.string[said.end() :]
    other = _SAYS_OTHER.search(after_word)
    return other is None or other[0] == "on"
