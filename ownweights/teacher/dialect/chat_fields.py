"""The fields of a chat-completions request, and what becomes of each in a Messages request.

Source: OpenAI's API reference, "Create chat completion", as the client of 2026-11 types it.
"""

from __future__ import annotations

from ownweights.teacher.dialect.fields import hint, kept, refused, table

_CACHE = "where the teacher keeps its cache changes no word of the answer"
_NAMES = "Messages has no names for speakers"
_LEGACY = "the old function calls; use tools"
_NO_SUCH = "Messages cannot ask for it"
_AUDIO = "Messages has no audio"
_ROLE = kept("role", "role", "text", must=True)
_TYPE = kept("type", "type", "text", must=True)

CHAT = table(
    {
        "request": (
            kept("model", "model", "text", must=True),
            kept("messages", "system, messages", "list", must=True),
            kept("max_completion_tokens", "max_tokens", "count"),
            kept("max_tokens", "max_tokens; not beside another max_completion_tokens", "count"),
            kept("temperature", "temperature; above 1 is refused", "share"),
            kept("top_p", "top_p", "share"),
            kept("stop", "stop_sequences", "content"),
            kept("stream", "stream", "flag"),
            kept("stream_options", "include_usage is kept by the translated stream", "object"),
            kept("tools", "tools", "list", same=([],)),
            kept("tool_choice", "tool_choice: none, auto, any, or a tool by name"),
            kept(
                "parallel_tool_calls", "tool_choice.disable_parallel_tool_use", "flag", same=(True,)
            ),
            kept("response_format", "output_config.format; json_object is refused", "object"),
            kept("reasoning_effort", "output_config.effort; none is thinking disabled", "text"),
            kept("user", "metadata.user_id", "text"),
            kept("safety_identifier", "metadata.user_id; not beside another user", "text"),
            kept("metadata", "nothing: the gateway itself reads workload, session, user", "object"),
            kept("service_tier", "service_tier: auto is auto, default is standard_only", "text"),
            hint("prompt_cache_key", _CACHE),
            hint("prompt_cache_options", _CACHE),
            hint("prompt_cache_retention", _CACHE),
            refused("n", "Messages gives one answer", 1),
            refused("logprobs", "Messages tells no log-probabilities", False),
            refused("top_logprobs", "Messages tells no log-probabilities", 0),
            refused("logit_bias", "Messages has no bias by token", {}),
            refused("seed", "Messages has no seed"),
            refused("presence_penalty", "Messages has no penalties", 0),
            refused("frequency_penalty", "Messages has no penalties", 0),
            refused("modalities", _AUDIO, ["text"]),
            refused("audio", _AUDIO),
            refused("prediction", _NO_SUCH),
            refused("moderation", _NO_SUCH),
            refused("verbosity", _NO_SUCH, "medium"),
            refused("store", _NO_SUCH, False),
            refused("web_search_options", _NO_SUCH),
            refused("functions", _LEGACY, []),
            refused("function_call", _LEGACY),
        ),
        "stream_options": (
            kept("include_usage", "usage at the end of the translated stream", "flag"),
            refused("include_obfuscation", "Messages pads no events", False),
        ),
        "metadata": (
            kept("workload", "nothing: the gateway itself reads it"),
            kept("session", "nothing: the gateway itself reads it"),
            kept("user", "nothing: the gateway itself reads it"),
        ),
        "system message": (
            _ROLE,
            kept("content", "system, or a system message in its place", "content", must=True),
            refused("name", _NAMES),
        ),
        "user message": (
            _ROLE,
            kept("content", "content; empty is refused", "content", must=True),
            refused("name", _NAMES),
        ),
        "assistant message": (
            _ROLE,
            kept("content", "content; empty is refused without tool calls", "content"),
            kept("tool_calls", "tool_use blocks after the text", "list", same=([],)),
            refused("refusal", "Messages has no refusals among what was said"),
            refused("annotations", "Messages has other citations", []),
            refused("audio", _AUDIO),
            refused("function_call", _LEGACY),
            refused("name", _NAMES),
        ),
        "tool message": (
            _ROLE,
            kept("content", "content of a tool_result block", "content", must=True),
            kept("tool_call_id", "tool_use_id, spelled as Messages allows", "text", must=True),
        ),
        "text part": (
            _TYPE,
            kept("text", "text of a text block; empty is refused", "text", must=True),
            hint("prompt_cache_breakpoint", _CACHE),
        ),
        "image_url part": (
            _TYPE,
            kept("image_url", "an image block", "object", must=True),
            hint("prompt_cache_breakpoint", _CACHE),
        ),
        "image_url": (
            kept("url", "source: url, or base64 of a data URL", "text", must=True),
            refused("detail", "Messages has no detail of images", "auto"),
        ),
        "file part": (
            _TYPE,
            kept("file", "a document block", "object", must=True),
            hint("prompt_cache_breakpoint", _CACHE),
        ),
        "file": (
            kept("file_data", "source: base64 of a data URL of a PDF", "text", must=True),
            kept("filename", "title", "text"),
            refused("file_id", "files lie with whoever took them"),
        ),
        "tool call": (
            _TYPE,
            kept("id", "id, spelled as Messages allows", "text", must=True),
            kept("function", "name, input", "object", must=True),
        ),
        "called function": (
            kept("name", "name", "text", must=True),
            kept("arguments", "input; what is no JSON object is refused", "text", must=True),
        ),
        "tool": (_TYPE, kept("function", "a tool", "object", must=True)),
        "function": (
            kept("name", "name", "text", must=True),
            kept("description", "description", "text"),
            kept("parameters", "input_schema; none is an object without properties", "object"),
            kept("strict", "strict", "flag"),
        ),
        "named tool": (_TYPE, kept("function", "name", "object", must=True)),
        "chosen function": (kept("name", "name", "text", must=True),),
        "json_schema format": (_TYPE, kept("json_schema", "schema", "object", must=True)),
        "text format": (_TYPE,),
        "json_schema": (
            kept("schema", "schema", "object", must=True),
            kept("name", "nothing: a label", "text", must=True),
            kept("strict", "nothing: Messages always holds to the schema", "flag"),
            refused("description", "Messages describes no format"),
        ),
    }
)

# type → why it is refused; empty where it is translated
CHAT_PARTS = {
    "text": "",
    "image_url": "",
    "file": "",
    "input_audio": _AUDIO,
    "refusal": "Messages has no refusals among what was said",
}
CHAT_TOOLS = {"function": "", "custom": "Messages has no tools that take plain text"}
CHAT_CHOICES = {
    "function": "",
    "custom": CHAT_TOOLS["custom"],
    "allowed_tools": "Messages offers the model all tools or none",
}
CHAT_FORMATS = {
    "text": "",
    "json_schema": "",
    "json_object": "Messages needs a schema; send response_format json_schema",
}
