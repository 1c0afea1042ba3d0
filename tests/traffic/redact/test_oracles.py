"""What is found, against others that know: mod 97, Luhn, the ipaddress and email modules."""

from __future__ import annotations

import ipaddress
from email.utils import getaddresses, parseaddr

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ownweights.traffic.redact import PATTERN_KINDS, find_spans
from ownweights.traffic.redact.number import IBAN_CHARS, is_card, is_iban, is_ip, is_ssn

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# lengths by issuer, as ISO/IEC 7812 and the schemes publish them
ISSUERS = [("4", 16), ("4", 13), ("4", 19), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16),
           ("34", 15), ("37", 15), ("6011", 16), ("65", 16), ("3528", 16), ("3589", 16),
           ("62", 16), ("6304", 16), ("36", 14), ("2200", 16)]  # fmt: skip


def found(text: str, *kinds: str) -> list[str]:
    return [text[span.start : span.end] for span in find_spans(text, kinds or PATTERN_KINDS)]


def checked(body: str) -> str:
    """Digits with the one Luhn digit after them that is right, by trying all ten."""
    right = [digit for digit in DIGITS if plain_luhn(body + digit)]
    assert len(right) == 1
    return body + right[0]


def plain_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def mod_97(iban: str) -> int:
    """The remainder digit by digit, as ISO 7064 lets a clerk do it, without a large number."""
    rest = 0
    for char in iban[4:] + iban[:4]:
        for digit in str(DIGITS.index(char) if char in DIGITS else 10 + LETTERS.index(char)):
            rest = (10 * rest + int(digit)) % 97
    return rest


@st.composite
def cards(draw: st.DrawFn) -> str:
    begin, length = draw(st.sampled_from(ISSUERS))
    rest = draw(st.text(DIGITS, min_size=length - len(begin) - 1, max_size=length - len(begin) - 1))
    card = checked(begin + rest)
    assume(len(set(card)) > 1)
    return card


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country = draw(st.sampled_from(sorted(IBAN_CHARS)))
    size = IBAN_CHARS[country] - 4
    bank = draw(st.text(DIGITS + LETTERS, max_size=4))  # as in Britain; a number comes after it
    account = bank + draw(st.text(DIGITS, min_size=size - len(bank), max_size=size - len(bank)))
    (right,) = [
        told for check in range(2, 99) if mod_97(told := f"{country}{check:02}{account}") == 1
    ]
    return right


@given(cards())
def test_cards_of_each_issuer_are_found_alone(card: str) -> None:
    assert is_card(card)
    for text in (f"card {card}.", f'"{card}"', f"1,{card},2", f"\n{card}\n", f"({card})"):
        assert found(text, "card") == [card]


@given(cards(), st.integers(0, 18), st.sampled_from(DIGITS))
def test_a_wrong_digit_makes_a_card_none(card: str, place: int, digit: str) -> None:
    """Luhn finds every single wrong digit."""
    place %= len(card)
    assume(card[place] != digit)
    wrong = card[:place] + digit + card[place + 1 :]
    assert not plain_luhn(wrong) and not is_card(wrong) and not is_card(wrong, is_said=True)
    assert found(f"card {wrong}", "card") == []


@given(cards(), st.integers(0, 17))
def test_luhn_tells_neighbours_that_changed_places(card: str, place: int) -> None:
    """All but 09 and 90, which Luhn cannot tell apart."""
    place %= len(card) - 1
    pair = card[place : place + 2]
    assume(pair[0] != pair[1] and set(pair) != {"0", "9"})
    swapped = card[:place] + pair[::-1] + card[place + 2 :]
    assert not is_card(swapped, is_said=True)


@given(cards(), st.sampled_from(" -\u00a0"))
def test_cards_in_fours_are_found(card: str, gap: str) -> None:
    assume(len(card) == 16)
    grouped = gap.join(card[place : place + 4] for place in range(0, 16, 4))
    assert found(f"it is {grouped}, yes", "card") == [grouped]


@given(ibans(), st.booleans(), st.sampled_from(["", " ", "-", "\u00a0"]))
def test_ibans_are_found_compact_and_in_fours(iban: str, is_lower: bool, gap: str) -> None:
    told = gap.join(iban[place : place + 4] for place in range(0, len(iban), 4))
    told = told.lower() if is_lower else told
    assert is_iban(iban) and found(f"to {told}.", "iban") == [told]


@given(ibans(), st.integers(4, 33), st.sampled_from(DIGITS + LETTERS))
def test_is_iban_matches_the_clerk(iban: str, place: int, char: str) -> None:
    place = 4 + place % (len(iban) - 4)
    other = iban[:place] + char + iban[place + 1 :]
    assert is_iban(other) == (mod_97(other) == 1)
    if char in DIGITS:
        assert bool(found(f"to {other}.", "iban")) == is_iban(other)


@given(ibans(), st.sampled_from(DIGITS + LETTERS))
def test_ibans_of_another_length_are_none(iban: str, char: str) -> None:
    assert not is_iban(iban + char) and not is_iban(iban[:-1])
    assert found(f"x {iban}{char} y", "iban") == []


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("0.0.0.0"))
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("255.255.255.255"))
def test_ipv4_matches_ipaddress(address: ipaddress.IPv4Address) -> None:
    text = str(address)
    is_some_machine = not (
        address.is_loopback or address.is_unspecified or address.packed[0] == 255
    )
    assert is_ip(text) == is_some_machine
    for around in ("from {} on", "http://{}:80/", "[{}]", '"{}"', "{}/24", "a={};"):
        assert found(around.format(text), "ip") == [text] * is_some_machine


@given(st.ip_addresses(v=6), st.sampled_from(["compressed", "exploded"]), st.booleans())
def test_ipv6_matches_ipaddress(address: ipaddress.IPv6Address, form: str, is_upper: bool) -> None:
    text = getattr(address, form).upper() if is_upper else getattr(address, form)
    groups = [group for group in text.split(":") if group]
    assume(len(groups) >= 3 and any(map(str.isdigit, text)))
    assume(not address.is_loopback and not address.is_unspecified)
    for around in ("from {} on", "http://[{}]:80/", '"{}"', "({})"):
        assert found(around.format(text), "ip") == [text]


@given(st.lists(st.text(DIGITS, min_size=1, max_size=4), min_size=3, max_size=5))
def test_what_ipaddress_refuses_is_no_ip(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert not is_ip(text)
        assert text not in found(f"at {text} now", "ip")


@given(st.ip_addresses(v=6))
def test_is_ip_takes_no_address_with_something_after_it(address: ipaddress.IPv6Address) -> None:
    for wrong in (f"{address}:", f"{address}::1:2:3:4:5:6:7", f" {address}", f"{address}/64"):
        assert not is_ip(wrong)


LOCAL = st.from_regex(r"[a-z][a-z0-9]{0,10}([.+_-][a-z0-9]{1,8}){0,2}", fullmatch=True)
HOST = st.from_regex(r"([a-z][a-z0-9]{0,8}\.){1,3}(com|org|example|museum)", fullmatch=True)


@given(LOCAL, HOST)
def test_emails_match_the_email_module(local: str, host: str) -> None:
    assume(local != "git")
    address = f"{local}@{host}"
    header = f"Ana Diaz <{address}>"
    assert parseaddr(header)[1] == address
    for text in (header, f"mailto:{address}", f"({address})", f"{address}, and", f"'{address}'"):
        assert found(text, "email") == [address]


@given(st.lists(st.tuples(LOCAL, HOST), min_size=1, max_size=6))
def test_each_address_of_a_header_is_found(pairs: list[tuple[str, str]]) -> None:
    assume(all(local != "git" for local, _ in pairs))
    header = ", ".join(f'"{local} x" <{local}@{host}>' for local, host in pairs)
    assert found(header, "email") == [address for _, address in getaddresses([header])]


@pytest.mark.parametrize(
    "text",
    ["@", "a@", "@b.org", "a@b", "a@.org", "a@-.org", "a@@b.org", "a@b..org", "a @b.org",
     "a@ b.org", "a@b.c", "a@1.2"],
)  # fmt: skip
def test_what_no_mail_would_reach_is_no_address(text: str) -> None:
    assert text not in found(text, "email")


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 9999))
def test_ssns_match_the_rules_of_issue(area: int, group: int, serial: int) -> None:
    text = f"{area:03}-{group:02}-{serial:04}"
    is_issued = area not in (0, 666) and area < 900 and group > 0 and serial > 0
    assert is_ssn(text) == is_issued
    for around in ("SSN {}", "1,{},2", "({})", "\n{}\n"):
        assert found(around.format(text), "ssn") == [text] * is_issued


@given(st.sets(st.sampled_from(PATTERN_KINDS)), st.permutations(PATTERN_KINDS), cards(), ibans())
def test_kinds_in_any_order_find_the_same(
    wanted: set[str], order: list[str], card: str, iban: str
) -> None:
    text = f"{iban}, {card}; ana@example.org 203.0.113.77 078-05-1120 +44 20 7946 0958"
    kinds = [kind for kind in order if kind in wanted]
    assert find_spans(text, kinds) == find_spans(text, sorted(kinds))
    assert {span.kind for span in find_spans(text, kinds)} <= wanted
