"""An error of one API in the other's shape, with the type that its status has there.

In: the HTTP status (None inside a stream) and the decoded body, of whatever shape. Out: an error
body; the status stays as it is. Invariant: the official clients raise for ours what they raise for
their own API's (test_errors_raise_the_client_class_of_their_status).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownweights.teacher.wire import error_body

# Anthropic's types and the statuses they come with
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# OpenAI's types; its code is Anthropic's type, so that nothing of it is lost
_CHAT_TYPES = {
    "invalid_request_error": "invalid_request_error",
    "not_found_error": "invalid_request_error",
    "request_too_large": "invalid_request_error",
    "conflict_error": "invalid_request_error",
    "authentication_error": "authentication_error",
    "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error",
    "billing_error": "insufficient_quota",
    "api_error": "server_error",
    "timeout_error": "server_error",
    "overloaded_error": "server_error",
}
# OpenAI's own words for these, where there is no status to go by
_WORDS = {
    "invalid_api_key": "authentication_error",
    "insufficient_quota": "billing_error",
    "rate_limit_exceeded": "rate_limit_error",
    **{kind: kind for kind in _CHAT_TYPES},
}
_UNSAID = "the teacher did not say what went wrong"


def messages_error(status: int | None, body: Any) -> dict[str, Any]:
    """An OpenAI error as an Anthropic error; inside a stream it is an `error` event as well."""
    said = _inner(body)
    kind = _messages_type(status) if status is not None else _type_of_words(said)
    message, param = _message(said, body), said.get("param")
    if isinstance(param, str) and param and param not in message:
        message = f"{param}: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}}


def chat_error(status: int | None, body: Any) -> dict[str, Any]:
    """An Anthropic error as an OpenAI error."""
    said = _inner(body)
    kind = said.get("type")
    code = kind if isinstance(kind, str) and kind else _messages_type(status or 500)
    fallback = "server_error" if (status or 500) >= 500 else "invalid_request_error"
    return error_body(_message(said, body), kind=_CHAT_TYPES.get(code, fallback), code=code)


def _messages_type(status: int) -> str:
    if status in _TYPES:
        return _TYPES[status]
    return "api_error" if status >= 500 else "invalid_request_error"


def _type_of_words(said: Mapping[str, Any]) -> str:
    """Anthropic's type of an error inside a stream, from OpenAI's code or type."""
    for word in (said.get("code"), said.get("type")):
        if isinstance(word, str) and word in _WORDS:
            return _WORDS[word]
    return "api_error"


def _inner(body: Any) -> Mapping[str, Any]:
    inner = body.get("error") if isinstance(body, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _message(said: Mapping[str, Any], body: Any) -> str:
    """What the error says; some servers say it in another place."""
    places = [said.get("message")]
    if isinstance(body, Mapping):
        places += [body.get("error"), body.get("message"), body.get("detail")]
    return next((text for text in places if isinstance(text, str) and text), _UNSAID)
