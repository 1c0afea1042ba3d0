"""The fields of an Anthropic Messages request, and what becomes of each in a chat request.

Source: Anthropic's API reference, "Messages", as the official client of 2026-11 types it, with the
sampling fields of API version 2023-06-01, which later versions do not have.
"""

from __future__ import annotations

from ownweights.teacher.dialect.fields import hint, kept, refused, table

_CACHE = "where the teacher keeps its cache changes no word of the answer"
_NO_SUCH = "chat cannot ask for it"
_THINKING = "chat shows no thinking, and takes none back"
_SERVER_TOOL = "only Anthropic runs this tool"
_FILES = "files lie with whoever took them"
_TYPE = kept("type", "type", "text", must=True)
_CACHED = hint("cache_control", _CACHE)

MESSAGES = table({
    "request": (
        kept("model", "model", "text", must=True),
        kept("max_tokens", "max_completion_tokens; 0 is refused", "count", must=True),
        kept("messages", "messages", "list", must=True),
        kept("system", "a system message at the start", "content"),
        kept("temperature", "temperature", "share"),
        kept("top_p", "top_p", "share"),
        kept("stop_sequences", "stop; more than 4 are refused", "list", same=([],)),
        kept("stream", "stream, with stream_options.include_usage", "flag"),
        kept("tools", "tools", "list", same=([],)),
        kept("tool_choice", "tool_choice: none, auto, required, or a function", "object"),
        kept("output_config", "response_format, reasoning_effort", "object", same=({},)),
        kept("thinking", "reasoning_effort none where it is disabled", "object"),
        kept("metadata", "user", "object", same=({},)),
        kept("service_tier", "service_tier: auto is auto, standard_only is default", "text"),
        _CACHED,
        refused("top_k", "chat has no top_k"),
        refused("container", _SERVER_TOOL),
        refused("diagnostics", _NO_SUCH),
        refused("inference_geo", _NO_SUCH),
        refused("speed", _NO_SUCH, "standard"),
        refused("user_profile_id", _NO_SUCH),
        refused("workspace_id", _NO_SUCH),
    ),
    "message": (
        kept("role", "role", "text", must=True),
        kept("content", "content, tool_calls, tool messages; empty is refused", "content",
             must=True),
    ),
    "metadata": (kept("user_id", "user", "text"),),
    "text block": (
        _TYPE,
        kept("text", "text of a text part; empty is refused", "text", must=True),
        _CACHED,
        refused("citations", "chat has no citations", []),
    ),
    "image block": (
        _TYPE,
        kept("source", "an image_url part", "object", must=True),
        _CACHED,
        refused("transformations", _NO_SUCH, {}),
    ),
    "base64 source": (
        _TYPE,
        kept("media_type", "the data URL's media type", "text", must=True),
        kept("data", "the data URL's data", "text", must=True),
    ),
    "url source": (_TYPE, kept("url", "url", "text", must=True)),
    "document block": (
        _TYPE,
        kept("source", "a file part; only a PDF in base64", "object", must=True),
        kept("title", "filename", "text"),
        _CACHED,
        refused("citations", "chat has no citations", {"enabled": False}),
        refused("context", "chat says nothing beside a file"),
    ),
    "tool_use block": (
        _TYPE,
        kept("id", "id of a tool call", "text", must=True),
        kept("name", "function.name", "text", must=True),
        kept("input", "function.arguments", "object", must=True),
        _CACHED,
        refused("caller", "chat knows no callers but the model", {"type": "direct"}),
        refused("toolset_name", _SERVER_TOOL),
    ),
    "tool_result block": (
        _TYPE,
        kept("tool_use_id", "tool_call_id of a tool message", "text", must=True),
        kept("content", "content; only text", "content"),
        _CACHED,
        refused("is_error", "chat does not say that a tool failed", False),
        refused("toolset_name", _SERVER_TOOL),
    ),
    "tool": (
        kept("name", "function.name", "text", must=True),
        kept("description", "function.description", "text"),
        kept("input_schema", "function.parameters", "object", must=True),
        kept("strict", "function.strict", "flag"),
        kept("type", "type; only custom", "text"),
        _CACHED,
        hint("eager_input_streaming", "how an input is cut into events changes no word of it"),
        refused("allowed_callers", "chat knows no callers but the model", ["direct"]),
        refused("defer_loading", _NO_SUCH, False),
        refused("input_examples", _NO_SUCH, []),
    ),
    "tool_choice": (
        _TYPE,
        kept("name", "function.name", "text"),
        kept("disable_parallel_tool_use", "parallel_tool_calls false", "flag", same=(False,)),
    ),
    "output_config": (
        kept("format", "response_format", "object"),
        kept("effort", "reasoning_effort; not beside thinking disabled", "text"),
    ),
    "json_schema format": (_TYPE, kept("schema", "json_schema.schema", "object", must=True)),
    "disabled thinking": (_TYPE,),
})  # fmt: skip

# type → why it is refused; empty where it is translated
USER_BLOCKS = {
    "text": "",
    "image": "",
    "document": "",
    "tool_result": "",
    "search_result": "chat has no search results",
    "container_upload": _FILES,
}
ASSISTANT_BLOCKS = {
    "text": "",
    "tool_use": "",
    "thinking": _THINKING,
    "redacted_thinking": _THINKING,
    "server_tool_use": _SERVER_TOOL,
    "web_search_tool_result": _SERVER_TOOL,
    "web_fetch_tool_result": _SERVER_TOOL,
    "code_execution_tool_result": _SERVER_TOOL,
    "bash_code_execution_tool_result": _SERVER_TOOL,
    "text_editor_code_execution_tool_result": _SERVER_TOOL,
    "tool_search_tool_result": _SERVER_TOOL,
    "container_upload": _FILES,
}
SYSTEM_BLOCKS = {"text": ""}
RESULT_BLOCKS = {
    "text": "",
    "image": "chat's tools answer in text",
    "document": "chat's tools answer in text",
    "search_result": "chat's tools answer in text",
    "tool_reference": _SERVER_TOOL,
    "browser_state": _SERVER_TOOL,
}
IMAGE_SOURCES = {"base64": "", "url": "", "file": _FILES}
DOCUMENT_SOURCES = {
    "base64": "",
    "url": "chat takes files as data alone",
    "text": "chat takes PDF files alone",
    "content": "chat takes PDF files alone",
    "file": _FILES,
}
THINKING = {"disabled": "", "enabled": _THINKING, "adaptive": _THINKING, "between_tools": _THINKING}
TOOL_CHOICES = {"auto": "", "any": "", "tool": "", "none": ""}
