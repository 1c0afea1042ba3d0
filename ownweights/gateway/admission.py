"""Which requests are turned away before anything is read of them.

In: a request's head. Out: nothing, or an HttpError. Invariants: a key in an address is refused and
never repeated (test_admission_key_in_the_address_is_refused); a page in a browser on this machine
cannot ask a gateway that trusts this machine (test_admission_page_of_another_site_is_refused,
test_admission_unknown_host_name_is_refused); packed bodies are refused rather than unpacked
(test_admission_packed_body_is_refused).

A gateway on loopback trusts whoever reaches it. A browser reaches it too, on behalf of any page:
with a POST that needs no leave, which carries the page's `Origin`, or with a name of the page's own
site that is made to point at this machine, which is then the `Host`. Names that nobody can register
in public (`localhost`, single words, `.internal`, …) and addresses cannot be used so.
Sources: RFC 6761, RFC 6762 section 3, RFC 8375 and ICANN's reservation of `.internal` for names.
"""

from __future__ import annotations

import functools
import ipaddress
from urllib.parse import parse_qsl

from ownweights.gateway.keys.key import holds_secret
from ownweights.gateway.settings import GatewaySettings
from ownweights.teacher.asgi import HttpError, Scope, header
from ownweights.teacher.serving import is_loopback

_KEY_NAMES = frozenset({
    "key", "apikey", "xapikey", "xgoogapikey", "accesstoken", "accesskey", "token", "authtoken",
    "idtoken", "auth", "authorization", "bearer", "secret", "clientsecret", "password",
    "subscriptionkey",
})  # fmt: skip
_KEY_STARTS = ("sk-", "own-", "Bearer ")
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".test")


def check_admission(scope: Scope, settings: GatewaySettings) -> None:
    """HttpError unless a request may be looked at.

    Raises: HttpError 400, 403, 415 or 421
    """
    if scope["query_string"] or holds_secret(scope.get("raw_path") or b""):
        _check_address(scope)
    if is_loopback(settings.host):
        _check_sender(scope, settings.hosts)
    coding = header(scope, b"content-encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        what = "the request's body is packed (content-encoding): send it as it is"
        raise HttpError(415, what, code="unsupported_encoding", param="content-encoding")


def _check_address(scope: Scope) -> None:
    query = scope["query_string"]
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    is_named = any(_is_key(name, value) for name, value in pairs)
    if is_named or holds_secret(query) or holds_secret(scope.get("raw_path") or b""):
        what = (
            "a key must not stand in an address, which is written to logs: send it as a header,"
            " and replace it where this address was used"
        )
        raise HttpError(400, what, code="key_in_url")


def _is_key(name: str, value: str) -> bool:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain in _KEY_NAMES or value.startswith(_KEY_STARTS)


def _check_sender(scope: Scope, hosts: tuple[str, ...]) -> None:
    host = header(scope, b"host")
    name = _name_of(host)
    if not _is_private(name) and name not in hosts:
        what = "this gateway is not reached by that host name; gateway.hosts in own.toml lists more"
        raise HttpError(421, what, code="unknown_host", param="host")
    origin = header(scope, b"origin")
    if origin is None:
        return
    asked_by = origin.partition("://")[2]
    if not asked_by or (asked_by != host and _name_of(asked_by) not in hosts):
        what = "pages of other sites may not ask this gateway; gateway.hosts in own.toml lists more"
        raise HttpError(403, what, code="origin_not_allowed", param="origin")


def _name_of(netloc: str | None) -> str:
    """The name or address in a `host` header, lower case; empty where there is none."""
    text = (netloc or "").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


@functools.lru_cache(1024)
def _is_private(name: str) -> bool:
    """Whether no public site can be called so."""
    if "." not in name or name.endswith(_PRIVATE_NAMES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
