"""Check digits, against the plain definition of each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ownweights.traffic.redact.number import IBAN_CHARS, has_luhn_digit, is_card, is_iban


def luhn_sum(digits: str) -> int:
    """The sum as it is taught: double every second digit from the right, add the digits of that."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        told = str(int(digit) * 2) if place % 2 else digit
        total += sum(int(one) for one in told)
    return total


@given(st.text("0123456789", min_size=1, max_size=24))
def test_luhn_digit_matches_the_plain_sum(digits: str) -> None:
    assert has_luhn_digit(digits) == (luhn_sum(digits) % 10 == 0)


def test_cards_of_the_issuers_are_cards() -> None:
    tests = ("4242424242424242", "5555555555554444", "2223003122003222", "378282246310005",
             "6011111111111117", "3056930009020004", "36227206271667", "3566002020360505",
             "6200000000000005", "6759649826438453", "4000056655665556")  # fmt: skip
    assert all(is_card(digits) for digits in tests)
    assert not is_card("1000000000000008") and is_card("1000000000000008", is_said=True)


@given(
    st.sampled_from(sorted(IBAN_CHARS)),
    st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=40, max_size=40),
)
def test_iban_has_one_pair_of_check_digits(country: str, drawn: str) -> None:
    """ISO 13616: the digits are 98 less the remainder of the account with 00 in their place."""
    account = drawn[: IBAN_CHARS[country] - 4]
    number = "".join(str(int(char, 36)) for char in account + country + "00")
    right = 98 - int(number) % 97
    valid = [n for n in range(2, 99) if is_iban(f"{country}{n:02}{account}")]
    assert valid == [right]
