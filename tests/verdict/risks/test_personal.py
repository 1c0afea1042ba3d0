"""Personal data by form and checksum, and what only looks like it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.verdict.risks.personal import KINDS, find_personal, is_iban, is_luhn

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLWhlcmU"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("mail Jo.Doe+x@Mail.Example.org.", "email", "jo.doe+x@mail.example.org"),
        ("card 4111 1111 1111 1111,", "card", "4111111111111111"),
        ("378282246310005", "card", "378282246310005"),
        ("IBAN GB82 WEST 1234 5698 7654 32 is mine", "iban", "GB82WEST12345698765432"),
        ("de89370400440532013000", "iban", "DE89370400440532013000"),
        ("from 93.184.216.34:80", "ip", "93.184.216.34"),
        ("at 2001:DB8:0:0::1", "ip", "2001:db8::1"),
        ("+44 7700 900-123", "phone", "+447700900123"),
        ("+447700677662", "phone", "+447700677662"),
        ("call (212) 555-0123 now", "phone", "+12125550123"),
        ("212-555-0123.", "phone", "+12125550123"),
        ("07700 900 123", "phone", "07700900123"),
        ("AKIA" + "ABCDEFGH12345678", "secret", "AKIAABCDEFGH12345678"),
        ("ghp_" + "a1" * 18, "secret", "ghp_" + "a1" * 18),
        ("key sk-" + "Ab1_" * 6, "secret", "sk-" + "Ab1_" * 6),
        (f"Bearer {JWT}", "secret", JWT),
        ("password: hunter2hunter2", "secret", "hunter2hunter2"),
        ('API_KEY = "0123456789abcdef"', "secret", "0123456789abcdef"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "secret",
         "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"),
    ],
)  # fmt: skip
def test_find_personal_normalises(text: str, kind: str, value: str) -> None:
    assert [(one.kind, one.value) for one in find_personal(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112", "1234567812345670", "2023-10-05 12:30:45", "1.2.3", "999.1.1.1",
        "127.0.0.1", "::1", "std::cout", "a::b", "GB82 WEST 1234 5698 7654 33", "user@localhost",
        "@name", "a@b", "order 212-555", "2125550123", "12-31-2023", "01-02-2023", "054-28-6917",
        "password: no",
        "password: correcthorse", "token = 12345678", "sk-short", "akiaabcdefgh12345678",
        "version 4.1.1", "3.14159265358979", "+12", "0x4111111111111111",
    ],
)  # fmt: skip
def test_find_personal_leaves_alone(text: str) -> None:
    assert find_personal(text) == []


def test_find_personal_gives_places_in_order() -> None:
    text = "a@b.org, 212-555-0123, c@d.org"
    found = find_personal(text)
    assert [text[one.start : one.end] for one in found] == ["a@b.org", "212-555-0123", "c@d.org"]
    assert {one.kind for one in found} <= set(KINDS)


@given(st.text("0123456789", min_size=1, max_size=18))
def test_luhn_completes_exactly_one_digit(digits: str) -> None:
    assert sum(is_luhn(f"{digits}{check}") for check in range(10)) == 1


@given(st.text("ABCXYZ0123456789", min_size=11, max_size=26))
def test_iban_check_digits_match_the_standard(account: str) -> None:
    """98 minus the remainder with 00 in place: ISO 7064, the other way round."""
    turned = "".join(str("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(c)) for c in account + "GB00")
    check = 98 - int(turned) % 97
    assert is_iban(f"GB{check:02d}{account}")
    assert not is_iban(f"GB{(check + 1) % 97:02d}{account}")


@given(st.text(max_size=200))
def test_find_personal_always_points_into_the_text(text: str) -> None:
    ends = 0
    for one in find_personal(text):
        assert ends <= one.start < one.end <= len(text)
        ends = one.end


def test_find_personal_on_marked_texts(test_data: Path) -> None:
    kinds = {
        "EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "IP_ADDRESS": "ip",
        "PHONE_NUMBER": "phone",
    }  # fmt: skip
    texts = json.loads((test_data / "presidio_pii" / "synth_dataset_v2.json").read_text("utf-8"))
    marked: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for text in texts:
        found = find_personal(text["full_text"])
        spans = [
            (kinds.get(span["entity_type"]), span["start_position"], span["end_position"])
            for span in text["spans"]
        ]
        for kind, start, end in spans:
            if kind:
                marked[kind] += 1
                hit[kind] += any(
                    one.kind == kind and one.start < end and start < one.end for one in found
                )
        for one in found:
            false[one.kind] += not any(
                kind == one.kind and one.start < end and start < one.end
                for kind, start, end in spans
            )
    assert sum(false.values()) == 0
    recall = {kind: round(hit[kind] / marked[kind], 2) for kind in marked}
    assert recall == {"email": 1.0, "card": 0.99, "iban": 1.0, "ip": 1.0, "phone": 0.47}
