"""Numbers that carry their own proof: cards (Luhn), IBANs (mod 97), US SSNs, IP addresses.

In: text that has the shape of one. Out: whether it is one. Sources: ISO/IEC 7812 (issuer ranges and
the Luhn digit), ISO 13616 (IBAN lengths and the mod-97 digits), the Social Security
Administration's rules for numbers that are never issued.
"""

from __future__ import annotations

import ipaddress
import re

_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
# issuer ranges: Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, Maestro,
# RuPay, Mir; the old JCB ranges 2131 and 1800 have 15 digits
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|220[0-4])\d{12}"
    r"|3[47]\d{13}|(?:30[0-5]|309|36\d|3[89]\d)\d{11,13}"
    r"|(?:6011|64[4-9]\d|65\d\d|622\d|81\d\d|60\d\d)\d{12,15}"
    r"|35\d{14,17}|(?:2131|1800)\d{11}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3]|5[678]\d\d|50\d\d|67\d\d)\d{8,15}"
)
# fmt: off
IBAN_CHARS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27,
    "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}
# fmt: on
_NEVER_ISSUED_AREAS = ("000", "666")


def has_luhn_digit(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of those before it."""
    odd = sum(map(int, digits[-1::-2]))
    return (odd + sum(_LUHN_DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


def is_card(digits: str, *, is_said: bool = False) -> bool:
    """Whether these 12 to 19 digits can be a payment card's.

    `is_said`: the text around says that it is a card, so that any issuer will do.
    """
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1 or not has_luhn_digit(digits):
        return False
    return is_said or _ISSUED.fullmatch(digits) is not None


def is_iban(compact: str) -> bool:
    """Whether letters and digits without spaces are an IBAN of a country that has them."""
    upper = compact.upper()
    if IBAN_CHARS.get(upper[:2]) != len(upper):
        return False
    return int("".join(str(int(char, 36)) for char in upper[4:] + upper[:4])) % 97 == 1


def is_ssn(text: str) -> bool:
    """Whether `AAA-GG-SSSS` is a US social security number that could have been issued."""
    area, group, serial = text.split("-")
    is_area = area not in _NEVER_ISSUED_AREAS and area < "900"
    return is_area and group != "00" and serial != "0000"


def is_ip(text: str) -> bool:
    """Whether text is an IPv4 or IPv6 address of some machine: no loopback, no mask."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return False
    return address.version == 6 or not text.startswith("255.")
