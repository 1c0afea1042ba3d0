"""Chat Completions ⇄ Anthropic Messages: requests, answers, streams, errors; values in, values out.

What one dialect says and the other cannot is refused by its field's name (`Inexpressible`), never
dropped. The tables of fields are `chat_fields` and `messages_fields`; docs/concepts/dialects.md
shows them. Nothing here reads, writes or waits.
"""

from ownweights.teacher.dialect.answers import chat_answer, messages_answer
from ownweights.teacher.dialect.chat_form import as_chat
from ownweights.teacher.dialect.error_bodies import chat_error, messages_error
from ownweights.teacher.dialect.stream_to_chat import ChatStream
from ownweights.teacher.dialect.stream_to_messages import MessagesStream, event_bytes
from ownweights.teacher.dialect.to_chat import chat_request
from ownweights.teacher.dialect.to_messages import (
    ANTHROPIC_VERSION,
    Translation,
    messages_request,
)
from ownweights.teacher.dialect.whole_message import whole_message

__all__ = [
    "ANTHROPIC_VERSION",
    "ChatStream",
    "MessagesStream",
    "Translation",
    "as_chat",
    "chat_answer",
    "chat_error",
    "chat_request",
    "event_bytes",
    "messages_answer",
    "messages_error",
    "messages_request",
    "whole_message",
]
