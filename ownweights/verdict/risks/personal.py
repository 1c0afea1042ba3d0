"""Personal data and secrets in a text, found by strict patterns: what has a form and a checksum.

  email    address with a domain              card  12 to 19 digits, known issuer, Luhn
  phone    +country and digits; with separators, also the North American form and 0...
  iban     two letters, mod 97 = 1            ip    valid IPv4 or IPv6, not loopback
  secret   keys and tokens of known form, JSON web tokens, private keys, `password = ...`

Names, addresses and dates have no form and are not found: silence here is no proof of privacy. A
value is normalised, so that it is the same however it is spaced (test_find_personal_normalises).
Measured on 1,500 synthetic texts with marked spans (test_find_personal_on_marked_texts): recall
1.00 of e-mail, 0.99 of cards, 1.00 of IBANs and IP addresses, 0.47 of phone numbers.
Sources: ISO/IEC 7812 (Luhn), ISO 13616 (IBAN), ITU-T E.164, the providers' documents on key forms.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "secret",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]+?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
        r"|(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}"
        r"|github_pat_\w{22,255}|glpat-[\w-]{20,64}|sk-[\w-]{20,200}"
        r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,128}|xox[abeprs]-[A-Za-z0-9-]{10,128}"
        r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}"
        r"|eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,2000})(?![\w-])",
    ),
    (
        "password",
        r"(?i:(?<![a-z])(?:password|passwd|passphrase|secret|api[_-]?key|token)\s{0,3}[:=]\s{0,3})"
        r"[\"']?([^\s\"',;]{8,128})",
    ),
    ("email", r"(?<![\w.+-])\w[\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![\w-])"),
    ("iban", r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?!\w)"),
    ("card", r"(?<![\w.+-])\d(?:[ -]?\d){11,18}(?![\w-])"),
    ("ip", r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"),
    ("ip", r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"),
    ("phone", r"(?<![\w+])\+\d(?:[ .()/-]{0,2}\d){7,14}(?!\w)"),
    ("phone", r"(?<![\w.-])(?!\d{3}-\d\d-\d{4})\(?0\d{1,4}\)?(?:[ -]\d{2,4}){2,4}(?![\w-])"),
    ("phone", r"(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?!\w|-\d|\.\d)"),
)
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)
_ISSUERS = re.compile(r"4|5|6|3[4-9]|30|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|1800|2131")
KINDS = ("secret", "email", "iban", "card", "ip", "phone")


@dataclass(frozen=True, slots=True)
class Personal:
    """One value in a text: its kind, its normal form, and where it stands."""

    kind: str
    value: str
    start: int
    end: int


def find_personal(text: str) -> list[Personal]:
    """All values in a text, from left to right; what two patterns claim goes to the first."""
    found: list[Personal] = []
    for kind, pattern in _COMPILED:
        for match in pattern.finditer(text):
            one = _checked(kind, match)
            if one and not any(one.start < old.end and old.start < one.end for old in found):
                found.append(one)
    return sorted(found, key=lambda one: one.start)


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    doubled = (int(d) * (1 + at % 2) for at, d in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the check digits are right."""
    turned = text[4:] + text[:4]
    return int("".join(str(int(mark, 36)) for mark in turned)) % 97 == 1


def _checked(kind: str, match: re.Match[str]) -> Personal | None:
    if kind == "iban":
        return _iban(match)
    value = _normal(kind, match[1] if kind == "password" else match[0])
    if value is None:
        return None
    group = 1 if kind == "password" else 0
    found = "secret" if kind == "password" else kind
    return Personal(found, value, match.start(group), match.end(group))


def _normal(kind: str, text: str) -> str | None:
    """The value as it is compared; None when it is not of that kind after all."""
    digits = re.sub(r"\D", "", text)
    match kind:
        case "email":
            return text.lower()
        case "card":
            return digits if _ISSUERS.match(digits) and is_luhn(digits) else None
        case "ip":
            return _ip(text)
        case "phone":
            if digits.startswith("0"):
                return digits if 9 <= len(digits) <= 11 else None
            return f"+{digits}" if text.startswith("+") else f"+1{digits}"
        case "password":
            has_both = re.search(r"\d", text) and re.search(r"[A-Za-z]", text)
            return text if has_both else None
        case _:
            return text


def _ip(text: str) -> str | None:
    if ":" in text and len([part for part in text.split(":") if part]) < 3:
        return None  # as in `a::b`
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if address.is_loopback or address.is_unspecified else str(address)


def _iban(match: re.Match[str]) -> Personal | None:
    """The longest part by groups that checks: the next word may look like a group."""
    text = match[0]
    ends = [len(text), *(at for at in range(len(text) - 1, 14, -1) if text[at] == " ")]
    for end in ends:
        value = text[:end].replace(" ", "").upper()
        if len(value) >= 15 and is_iban(value):
            return Personal("iban", value, match.start(), match.start() + end)
    return None
