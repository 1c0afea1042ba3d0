"""Made-up requests and answers, in the one spelling that comes back from a trip."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

words = st.text(min_size=1, max_size=12)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=3)
schemas = objects.map(
    lambda one: {"type": "object", **{k: v for k, v in one.items() if k != "type"}}
)
base64 = st.sampled_from(["AAAA", "QUJD", "/9j/4AAQ", ""])


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Any part of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


text_parts = words.map(text_part)
image_parts = (
    st.sampled_from(["https://x.test/a.png", "http://x.test/b"])
    | st.builds("data:image/{};base64,{}".format, st.sampled_from(["png", "webp"]), base64)
).map(lambda url: {"type": "image_url", "image_url": {"url": url}})
file_parts = st.builds(
    lambda more, data: {
        "type": "file",
        "file": {**more, "file_data": f"data:application/pdf;base64,{data}"},
    },
    maybe(filename=words),
    base64,
)
text_content = words | st.lists(text_parts, min_size=1, max_size=3)
user_content = words | st.lists(text_parts | image_parts | file_parts, min_size=1, max_size=3)


def call(call_id: str, name: str, given: Json) -> Json:
    arguments = json.dumps(given, separators=(",", ":"), ensure_ascii=False)
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


# arguments whose spelling is the one we write: no floats, which have several
plain_objects = st.dictionaries(
    st.text(st.characters(codec="utf-8", categories=("L", "Nd")), max_size=6),
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | names,
    max_size=3,
)
calls = st.lists(
    st.builds(call, names, names, plain_objects),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one["id"],
)


@st.composite
def turns(draw: st.DrawFn) -> list[Json]:
    """One step of a conversation: somebody speaks, or tools are called and answer."""
    kind = draw(st.sampled_from(["user", "assistant", "system", "tools"]))
    if kind == "user":
        return [{"role": "user", "content": draw(user_content)}]
    if kind != "tools":
        return [{"role": kind, "content": draw(text_content)}]
    said = draw(st.none() | words | st.lists(text_parts, min_size=2, max_size=3))
    called = draw(calls)
    results = [
        {
            "role": "tool",
            "tool_call_id": one["id"],
            "content": draw(st.just("") | text_content),
        }
        for one in called
    ]
    return [{"role": "assistant", "content": said, "tool_calls": called}, *results]


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """Messages that begin with at most one system message and end with somebody who asks."""
    head = draw(st.lists(text_content, max_size=1))
    steps = [one for step in draw(st.lists(turns(), max_size=4)) for one in step]
    while steps and steps[0]["role"] == "system":
        steps.pop(0)
    last = {"role": "user", "content": draw(user_content)}
    return [*({"role": "system", "content": one} for one in head), *steps, last]


functions = st.builds(
    lambda name, schema, more: {
        "type": "function",
        "function": {"name": name, "parameters": schema, **more},
    },
    names,
    schemas,
    maybe(description=st.text(max_size=9), strict=st.booleans()),
)
choices = st.sampled_from(["none", "auto", "required"]) | names.map(
    lambda name: {"type": "function", "function": {"name": name}}
)
formats = schemas.map(
    lambda schema: {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }
)
efforts = st.sampled_from(["none", "low", "medium", "high", "xhigh", "max"])
shares = st.floats(0, 1) | st.sampled_from([0, 1])
stops = st.lists(words.filter(lambda text: bool(text.strip())), min_size=1, max_size=4)


@st.composite
def chat_requests(draw: st.DrawFn) -> Json:
    """Chat requests that Messages can say whole."""
    body: Json = {
        "model": draw(words),
        "max_completion_tokens": draw(st.integers(1, 10**6)),
        "messages": draw(conversations()),
        **draw(maybe(temperature=shares, top_p=shares, stop=stops, user=words, stream=st.booleans(),
                     service_tier=st.sampled_from(["auto", "default"]),
                     reasoning_effort=efforts, response_format=formats)),
    }  # fmt: skip
    if body.get("reasoning_effort") == "none":
        body.pop("response_format", None)
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if draw(st.booleans()):
        body["tools"] = draw(st.lists(functions, min_size=1, max_size=3))
        if draw(st.booleans()):
            body["tool_choice"] = draw(choices)
            if body["tool_choice"] != "none" and draw(st.booleans()):
                body["parallel_tool_calls"] = False
    return body


@st.composite
def spoiled(draw: st.DrawFn, body: Json) -> Json:
    """A request in which some value was replaced by any other."""
    whole = json.loads(json.dumps(body))
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            place[key] = draw(values | st.sampled_from(["", "auto", "system", [], {}]))
            return whole
        place = inner


usages = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(200, 10**6),
        "completion_tokens": st.integers(0, 10**6),
    },
    optional={
        "prompt_tokens_details": st.fixed_dictionaries(
            {"cached_tokens": st.integers(0, 99), "cache_write_tokens": st.integers(0, 99)}
        ),
        "completion_tokens_details": st.fixed_dictionaries(
            {"reasoning_tokens": st.integers(0, 99)}
        ),
    },
)


@st.composite
def chat_answers(draw: st.DrawFn) -> Json:
    """Chat completions that Messages can say whole."""
    text = draw(st.none() | words)
    called = draw(st.just([]) | calls)
    finish = draw(st.sampled_from(["tool_calls", "length"] if called else ["stop", "length"]))
    refusal = None
    if draw(st.integers(0, 4)) == 0:
        finish, refusal = "content_filter", draw(st.none() | words)
    message: Json = {"role": "assistant", "content": text, "refusal": refusal}
    if called:
        message["tool_calls"] = called
    usage = draw(usages)
    usage.setdefault("prompt_tokens_details", {"cached_tokens": 0, "cache_write_tokens": 0})
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return {
        "id": draw(names),
        "object": "chat.completion",
        "created": 7,
        "model": draw(words),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage,
    }


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def chunks_of(draw: st.DrawFn, body: Json) -> list[Json]:
    """The chunks that stream a chat completion, cut anywhere."""
    choice = body["choices"][0]
    message = choice["message"]
    head = {"id": body["id"], "created": body["created"], "model": body["model"],
            "object": "chat.completion.chunk"}  # fmt: skip

    def chunk(delta: Json, finish: str | None = None) -> Json:
        given = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**head, "choices": [given], "usage": None}

    found = [chunk({"role": "assistant", "content": "" if message["content"] else None})]
    found += [chunk({"content": piece}) for piece in cut(draw, message["content"] or "")]
    found += [chunk({"refusal": piece}) for piece in cut(draw, message["refusal"] or "")]
    for index, one in enumerate(message.get("tool_calls", ())):
        function = {"name": one["function"]["name"], "arguments": ""}
        begun = {"index": index, "id": one["id"], "type": "function", "function": function}
        found.append(chunk({"tool_calls": [begun]}))
        for piece in cut(draw, one["function"]["arguments"]):
            found.append(
                chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            )
    found.append(chunk({}, choice["finish_reason"]))
    return [*found, {**head, "choices": [], "usage": body["usage"]}]


blocks = st.one_of(
    words.map(text_part),
    st.builds(
        lambda call_id, name, given: {
            "type": "tool_use", "id": call_id, "name": name, "input": given,
        },
        names, names, plain_objects,
    ),
    st.just({"type": "thinking", "thinking": "hm", "signature": "s"}),
    st.just({"type": "redacted_thinking", "data": "d"}),
)  # fmt: skip


@st.composite
def messages_answers(draw: st.DrawFn) -> Json:
    """Messages answers that chat can say."""
    stop = draw(
        st.sampled_from(
            ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal",
             "model_context_window_exceeded"]
        )
    )  # fmt: skip
    details = {"type": "refusal", "category": None, "explanation": draw(st.none() | words)}
    counts = st.integers(0, 10**6)
    return {
        "id": draw(names),
        "type": "message",
        "role": "assistant",
        "model": draw(words),
        "content": draw(st.lists(blocks, max_size=5)),
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": details if stop == "refusal" else None,
        "usage": {"input_tokens": draw(counts), "output_tokens": draw(counts),
                  "cache_read_input_tokens": draw(counts),
                  "cache_creation_input_tokens": draw(counts)},
    }  # fmt: skip


@st.composite
def events_of(draw: st.DrawFn, body: Json) -> list[Json]:
    """The events that stream a Messages answer, cut anywhere, with pings."""
    empty = {"content": [], "stop_reason": None, "stop_details": None}
    first = {**body, **empty, "usage": {**body["usage"], "output_tokens": 1}}
    found: list[Json] = [{"type": "message_start", "message": first}, {"type": "ping"}]
    for index, block in enumerate(body["content"]):
        blank, deltas = _pieces(draw, block)
        found.append({"type": "content_block_start", "index": index, "content_block": blank})
        found += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        found.append({"type": "content_block_stop", "index": index})
    delta = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {"output_tokens": body["usage"]["output_tokens"]}
    found.append({"type": "message_delta", "delta": delta, "usage": usage})
    return [*found, {"type": "message_stop"}]


def _pieces(draw: st.DrawFn, block: Json) -> tuple[Json, list[Json]]:
    if block["type"] == "text":
        pieces = cut(draw, block["text"])
        return {**block, "text": ""}, [{"type": "text_delta", "text": one} for one in pieces]
    if block["type"] == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        pieces = cut(draw, text)
        deltas = [{"type": "input_json_delta", "partial_json": one} for one in pieces]
        return {**block, "input": {}}, deltas
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]},
                  {"type": "signature_delta", "signature": block["signature"]}]  # fmt: skip
        return {**block, "thinking": "", "signature": ""}, deltas
    return block, []
