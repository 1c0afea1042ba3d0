"""Where a request goes at each kind of upstream, and under which headers.

In: an upstream, the caller's headers, a protocol. Out: a `Call`. Invariants: body bytes are the
caller's unless the operator names another model (test_forward_is_byte_exact); the caller's own key
goes to the upstream and nowhere else, the operator's replaces it
(test_forward_operators_key_replaces_the_callers), and no header is made twice of several
(test_callers_keys_are_never_made_one_header_twice); nothing of ours leaves
(test_forward_passes_headers_but_its_own_and_the_hops), and nothing that was for this hop alone
(test_request_headers_drop_what_the_connection_names).
Source: RFC 9110 section 7.6.1 for the headers that end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ownweights.core.errors import InputError
from ownweights.gateway.callers import Caller
from ownweights.gateway.keys.key import KEY_HEADERS, holds_secret
from ownweights.gateway.protocols import Protocol
from ownweights.gateway.settings import Upstream
from ownweights.gateway.upstreams.client import Call
from ownweights.teacher.asgi import Headers, HttpError, Scope
from ownweights.teacher.dialect import ANTHROPIC_VERSION

_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
_NOT_PASSED = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding"}
_OURS = (
    b"x-own-request-id", b"x-own-served-by", b"x-own-reason", b"x-own-certificate",
    b"x-own-overhead-ms",
)  # fmt: skip
_NOT_RETURNED = {*_HOP_BY_HOP, *_OURS, b"content-length", b"date", b"server"}
_OPERATORS = (b"x-ratelimit-", b"anthropic-ratelimit-", b"openai-organization", b"openai-project",
              b"anthropic-organization-id")  # fmt: skip
_VERSION = (b"anthropic-version", ANTHROPIC_VERSION.encode())
_CODINGS = ("gzip", "deflate", "identity")


def call_for(
    upstream: Upstream,
    scope: Scope,
    *,
    protocol: Protocol,
    raw: bytes | None,
    body: Mapping[str, Any],
    wants_plain: bool,
) -> Call:
    """A request as this upstream gets it: `raw` where that is the body's own bytes."""
    content = raw
    if content is None or upstream.model not in ("", body.get("model")):
        named = {"model": upstream.model} if upstream.model else {}
        content = msgspec.json.encode({**body, **named})
    model = upstream.model or str(body.get("model") or "")
    url = _url(upstream, protocol.path, model, scope)
    return Call(url, request_headers(upstream, scope["headers"], wants_plain), content)


def models_call(upstream: Upstream, scope: Scope) -> Call:
    """The request for the upstream's list of models."""
    url = _url(upstream, "/models", "", scope)
    return Call(url, request_headers(upstream, scope["headers"], wants_plain=False))


def request_headers(
    upstream: Upstream, asked: Iterable[tuple[bytes, bytes]], wants_plain: bool
) -> Headers:
    """The caller's headers as the upstream gets them."""
    key = upstream.key()
    headers: Headers = []
    shown: Headers = []  # the caller's keys
    hops: list[bytes] = []  # what `connection` names ends here
    codings = "identity"
    for name, value in asked:
        if name == b"accept-encoding" and not wants_plain:
            asked_for = (coding.strip() for coding in value.decode("latin-1").split(","))
            codings = ", ".join(c for c in asked_for if c in _CODINGS) or codings
        elif holds_secret(value):
            continue
        elif name in KEY_HEADERS:
            shown.append((name, value))
        elif name == b"connection":
            hops += [] if value == b"keep-alive" else value.lower().replace(b" ", b"").split(b",")
        elif name not in _NOT_PASSED and not name.startswith(b"x-own-"):
            headers.append((name, value))
    if hops:
        headers = [pair for pair in headers if pair[0] not in hops]
        shown = [pair for pair in shown if pair[0] not in hops]
    if key is not None:
        name, value = upstream.kind.key_header(key)
        headers.append((name.encode(), value.encode()))
    else:
        headers += _callers_keys(upstream, shown) if shown else shown
    if upstream.kind.speaks_messages and all(name != _VERSION[0] for name, _ in headers):
        headers.append(_VERSION)
    return [*headers, (b"accept-encoding", codings.encode("latin-1"))]


def response_headers(headers: Headers, caller: Caller) -> Headers:
    """The upstream's headers as the caller gets them; the length is counted anew.

    What they say of the operator's account is not for the holder of one of the gateway's keys.
    """
    passed = [(name, value) for name, value in headers if name not in _NOT_RETURNED]
    if caller.key is None:
        return passed
    return [(name, value) for name, value in passed if not name.startswith(_OPERATORS)]


def _url(upstream: Upstream, path: str, model: str, scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    try:
        return upstream.kind.url(upstream.base_url, path, model, query)
    except InputError as error:
        raise HttpError(400, error.what, code="missing_model", param="model") from None


def _callers_keys(upstream: Upstream, shown: Headers) -> Headers:
    """The caller's keys as they came, where one is in the header that is read at this upstream;
    else the first of them, in that header."""
    wanted, _ = upstream.kind.key_header("")
    if len(shown) > 1 and any(name == wanted.encode() for name, _ in shown):
        return shown
    return [_callers_key(upstream, *pair) for pair in shown[:1]]


def _callers_key(upstream: Upstream, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The caller's own key in the header that this kind of upstream reads."""
    is_bearer = name == b"authorization" and value[:7].lower() == b"bearer "
    key = value[7:] if is_bearer else value
    wanted, _ = upstream.kind.key_header("")
    if wanted == name.decode() or (name == b"authorization" and not is_bearer):
        return name, value
    if wanted == "authorization":
        return b"authorization", b"Bearer " + key
    # an OAuth token, which Anthropic and Azure take as a bearer, stays one
    return (name, value) if is_bearer and _is_oauth(key) else (wanted.encode(), key)


def _is_oauth(key: bytes) -> bool:
    return key.startswith((b"ey", b"sk-ant-oat"))
