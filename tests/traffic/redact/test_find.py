"""What is found in a text, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.traffic.redact import PATTERN_KINDS, find_spans


def found(text: str, kind: str) -> list[str]:
    return [text[span.start : span.end] for span in find_spans(text, (kind,))]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("email", "write to (Ana.Diaz+x@mail.example.org).", "Ana.Diaz+x@mail.example.org"),
        ("email", "?to=ana%40example.org&x", "ana%40example.org"),
        ("email", '"\\nana@example.org\\t"', "ana@example.org"),
        ("email", "jürgen@müller.example", "jürgen@müller.example"),
        ("email", "'root@10.20.30.40'", "root@10.20.30.40"),
        ("phone", "ring +44 (0)20 7946 0958 now", "+44 (0)20 7946 0958"),
        ("phone", "(202) 555-0143 x12", "(202) 555-0143 x12"),
        ("phone", "\\n202-555-0143", "202-555-0143"),
        ("phone", "at 0341 8387176.", "0341 8387176"),
        ("phone", "Phone:\n516 466 638", "516 466 638"),
        ("phone", "9498777106 (office)", "9498777106"),
        ("phone", "it is 8 (495) 123-45-67.", "8 (495) 123-45-67"),
        ("card", "paid with 4111-1111-1111-1111 today", "4111-1111-1111-1111"),
        ("card", "3782 822463 10005", "3782 822463 10005"),
        ("card", "12 1234 4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("card", "my card 060426070011", "060426070011"),
        ("iban", "IBAN GB82 WEST 1234 5698 7654 32 please", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "de89370400440532013000.", "de89370400440532013000"),
        ("iban", "NO9386011117947", "NO9386011117947"),
        ("ssn", "SSN 078-05-1120", "078-05-1120"),
        ("ip", "from 203.0.113.77:8080", "203.0.113.77"),
        ("ip", "[2001:db8:85a3::8a2e:370:7334]", "2001:db8:85a3::8a2e:370:7334"),
        ("ip", "fe80::1ff:fe23:4567:890a%eth0", "fe80::1ff:fe23:4567:890a"),
        ("ip", "::ffff:192.0.2.128", "192.0.2.128"),
    ],
)
def test_find_spans_finds(kind: str, text: str, expected: str) -> None:
    assert found(text, kind) == [expected]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "git@github.com:a/b.git or @decorator.name or a@1.2.3 or x @ y.com"),
        ("phone", "in 2023-11-05 12:34:56, 3.14159265358, 1 000 000, 516 466 638 people"),
        ("phone", "550e8400-e29b-41d4-a716-446655440000 and v1.20.300.4000"),
        ("phone", "call me about order 123456789"),
        ("phone", "J. Chem. (2019) 123-130; 10/12/2021 to 11/12/2021; 1990-1995"),
        ("card", "4111 1111 1111 1112, 0000000000000000, 1731234567890, 99.4111111111111111"),
        ("iban", "GB83 WEST 1234 5698 7654 32, XX82WEST12345698765432, GB82WEST123456987654321"),
        ("ssn", "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 1123-45-6789"),
        ("ip", "127.0.0.1 ::1 0.0.0.0 255.255.255.0 version 1.2.3.4 1.2.3 256.1.1.1 1.2.3.4.5"),
        ("ip", "std::vector a::b 12:30:45 aa:bb:cc:dd:ee:ff cafe::dead::beef"),
        ("key", "password: required; token = next_token; the key is photosynthesis; sk-learn"),
        ("key", "api_key=os.environ['OPENAI_API_KEY'], token: ${TOKEN_1234567890abcd}"),
        ("key", "https://user:{{password}}@host basic internationalization bearer of good news"),
        ("key", "max_tokens: 12345678901234567890, tokens=4096, key: value, x?y=1&key=name"),
    ],
)
def test_find_spans_leaves(kind: str, text: str) -> None:
    assert found(text, kind) == []


DRAWN = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC2dF4gH6jK8"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"
KEYS = {
    "openai": "sk-proj-" + DRAWN,
    "anthropic": "sk-ant-api03-" + DRAWN,
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "github": "ghp_" + DRAWN[:36],
    "github fine": "github_pat_11A" + DRAWN,
    "gitlab": "glpat-" + DRAWN[:20],
    "slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "google": "AIza" + DRAWN[:35],
    "stripe": "sk_live_" + DRAWN[:24],
    "hugging face": "hf_" + DRAWN[:34],
    "npm": "npm_" + DRAWN[:36],
    "jwt": JWT,
    "telegram": "123456789:AA" + DRAWN[:33],
    "sendgrid": f"SG.{DRAWN[:22]}.{DRAWN[:30]}",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_find_spans_finds_keys_by_their_form(key: str) -> None:
    for before, after in (("it is ", "."), ('"', '"'), ("\n", "\n"), ("(", ")")):
        text = f"{before}{key}{after}"
        assert "".join(found(text, "key")) == key.rstrip(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc123DEF456ghi789", "abc123DEF456ghi789"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("postgres://ana:s3cret@db.example.org/x", "s3cret"),
        ("https://x.org/a?key=abc123de&b=1", "abc123de"),
        ("https://x.org/a?x=1&access_token=abcdefghijklmnop", "abcdefghijklmnop"),
        ("my password is hunter2!", "hunter2!"),
        ('{"password": "hunter2x"}', "hunter2x"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLE0",
         "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLE0"),
        ("client_secret := 'a1b2c3d4e5f6a7b8c9d0'", "a1b2c3d4e5f6a7b8c9d0"),
        ("İ PASSWORD=hunter2x", "hunter2x"),
    ],
)  # fmt: skip
def test_find_spans_finds_what_is_said_to_be_secret(text: str, expected: str) -> None:
    assert found(text, "key") == [expected]


def test_find_spans_finds_private_keys() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"
    assert found(f"here: {block} end", "key") == [block]
    assert found(f"a\0{block[:44]}\0b", "key") == [block[:44]]


def test_find_spans_takes_the_kind_that_says_more() -> None:
    text = "GB82 WEST 1234 5698 7654 32, call 4111 1111 1111 1111, 078-05-1120@x.example.org"
    assert [span.kind for span in find_spans(text, PATTERN_KINDS)] == ["iban", "card", "email"]


BITS = ("1", "12 ", "-", ".", "@", "a", "+", "(", ")", ":", "::", "x.", "=", "key=", "sk-", "\\",
        "\0", "GB82", "%40", "//", "\n", "é")  # fmt: skip


@given(st.lists(st.sampled_from(BITS)))
def test_find_spans_always_gives_parts_in_order(pieces: list[str]) -> None:
    text = "".join(pieces)
    place = 0
    for span in find_spans(text, PATTERN_KINDS):
        assert place <= span.start < span.end <= len(text)
        assert "\0" not in text[span.start : span.end]
        place = span.end


HOSTILE = (
    "1 ", "1-", "a@", "@", "a", "1", ":", "::", "1:", "+1", "(1)", "1.1.", "sk-", "key=", "key",
    "=", "key=1", "password: ", "-----BEGIN PRIVATE KEY-----", "eyJa.", "://", "://a:", "?key=",
    "x@y.", "GB82 ", "4111 1111 1111 1112 ", "555-555-", "a.", "%40", "bearer ", "\\n", " ", "(",
    "1 (", "phone 1",
    "0 12 ", "xoxb-", "-", "_", "A", "eyJ", "1234567 ", "-----END ", "basic a", "1\u2011",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_find_spans_takes_hostile_texts(piece: str) -> None:
    """Nothing here asserts a time: a pattern that backtracks would take hours over this much."""
    for text in (piece * (100_000 // len(piece)), piece * (50_000 // len(piece)) + "!"):
        assert all(span.end <= len(text) for span in find_spans(text, PATTERN_KINDS))
