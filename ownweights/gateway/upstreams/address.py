"""Where a request goes at each kind of upstream, and under which headers.

In: an upstream, the caller's headers, a protocol. Out: a `Call`. Invariants: body bytes are the
caller's unless the operator names another model (test_forward_is_byte_exact); the caller's own key
goes to the upstream and nowhere else, the operator's replaces it
(test_forward_operators_key_replaces_the_callers); nothing of ours leaves
(test_forward_passes_headers_but_its_own_and_the_hops).
Sources: RFC 9110 section 7.6.1 for the headers that end here; the API references of OpenAI, Azure
OpenAI ("REST API versioning") and Anthropic ("Versions") for paths and the names of keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from ownweights.gateway.callers import Caller
from ownweights.gateway.keys.key import KEY_HEADERS, holds_secret
from ownweights.gateway.protocols import Protocol
from ownweights.gateway.settings import Upstream
from ownweights.gateway.upstreams.client import Call
from ownweights.teacher.asgi import Headers, HttpError, Scope

ANTHROPIC_VERSION = b"2023-06-01"
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
_CODINGS = ("gzip", "deflate", "identity")


def call_for(
    upstream: Upstream,
    scope: Scope,
    protocol: Protocol,
    *,
    raw: bytes,
    body: Mapping[str, Any],
    wants_plain: bool,
) -> Call:
    """The caller's request, as this upstream gets it."""
    content = raw
    if upstream.model not in ("", body.get("model")):
        content = msgspec.json.encode({**body, "model": upstream.model})
    model = upstream.model or str(body.get("model") or "")
    url = _url(upstream, protocol.path, model, scope.get("query_string", b""))
    return Call(url, request_headers(upstream, scope["headers"], wants_plain), content)


def models_call(upstream: Upstream, scope: Scope) -> Call:
    """The request for the upstream's list of models."""
    url = _url(upstream, "/models", "", scope.get("query_string", b""))
    return Call(url, request_headers(upstream, scope["headers"], wants_plain=False))


def request_headers(
    upstream: Upstream, asked: Iterable[tuple[bytes, bytes]], wants_plain: bool
) -> Headers:
    """The caller's headers as the upstream gets them."""
    key = upstream.key()
    headers: Headers = []
    codings = "identity"
    names: set[bytes] = set()
    for name, value in asked:
        if name == b"accept-encoding" and not wants_plain:
            asked_for = (coding.strip() for coding in value.decode("latin-1").split(","))
            codings = ", ".join(c for c in asked_for if c in _CODINGS) or codings
        elif (key is not None and name in KEY_HEADERS) or holds_secret(value):
            continue
        elif name not in _NOT_PASSED and not name.startswith(b"x-own-"):
            headers.append((name, value))
            names.add(name)
    if key is not None:
        headers.append(_key_header(upstream, key))
    if upstream.kind == "anthropic" and b"anthropic-version" not in names:
        headers.append((b"anthropic-version", ANTHROPIC_VERSION))
    return [*headers, (b"accept-encoding", codings.encode("latin-1"))]


def response_headers(headers: Headers, caller: Caller) -> Headers:
    """The upstream's headers as the caller gets them; the length is counted anew.

    What they say of the operator's account is not for the holder of one of the gateway's keys.
    """
    passed = [(name, value) for name, value in headers if name not in _NOT_RETURNED]
    if caller.key is None:
        return passed
    return [(name, value) for name, value in passed if not name.startswith(_OPERATORS)]


def _key_header(upstream: Upstream, key: str) -> tuple[bytes, bytes]:
    if upstream.kind == "anthropic":
        return b"x-api-key", key.encode()
    if upstream.kind == "azure":
        return b"api-key", key.encode()
    return b"authorization", b"Bearer " + key.encode()


def _url(upstream: Upstream, path: str, model: str, query: bytes) -> str:
    base = upstream.base_url.rstrip("/")
    asked = query.decode("latin-1")
    if upstream.kind == "azure" and upstream.api_version:
        if not model and path != "/models":
            what = "an Azure deployment is named by 'model', and the request names none"
            raise HttpError(400, what, code="missing_model", param="model")
        place = "/openai" + ("" if path == "/models" else f"/deployments/{quote(model, safe='')}")
        base += place
        asked = "&".join(filter(None, [asked, f"api-version={quote(upstream.api_version)}"]))
    return base + path + (f"?{asked}" if asked else "")
