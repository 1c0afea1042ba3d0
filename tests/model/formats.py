"""Chat formats of the hub's families: templates written for these tests, and by hand what each must
make of a conversation, special token by special token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from tests.model.words import save_words, tokenizer_of

SYSTEM = {"role": "system", "content": "Be brief."}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "How are you?"},
]  # fmt: skip
ANSWER = "I am fine."


@dataclass(frozen=True, slots=True)
class Format:
    """A family's way to write a conversation. `prompt` is what it makes of TALK (after SYSTEM
    where `has_system`), `ending` what follows the answer in the template's own words."""

    kind: str
    source: str
    specials: tuple[str | AddedToken, ...]
    prompt: str
    end: str
    config: Mapping[str, Any]
    added: tuple[str, ...] = ()
    has_system: bool = True
    opening: str = ""
    lead: str = ""
    tail: str = ""
    keeps_turns: bool = True
    continues: bool = True
    tools: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [SYSTEM, *TALK] if self.has_system else TALK

    def save(self, folder: Path) -> Path:
        """The tokenizer's folder, template and all."""
        made = tokenizer_of(self.kind, self.specials, self.added)
        return save_words(folder, made, chat_template=self.source, **self.config)

    def load(self, folder: Path) -> ChatTemplate:
        """The template from a folder as `save` writes it."""
        self.save(folder)
        return ChatTemplate.load(folder, Tokenizer.load(folder))


_LLAMA2 = """\
{% if messages[0].role == 'system' %}
    {% set turns = messages[1:] %}
    {% set first = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}
{% else %}
    {% set turns = messages %}
    {% set first = '' %}
{% endif %}
{% for turn in turns %}
    {% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('user and assistant must take turns') }}
    {% endif %}
    {% if turn.role == 'user' %}
        {{- bos_token + '[INST] ' + (first if loop.first else '') }}
        {{- turn.content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + turn.content | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""

_LLAMA3 = """\
{% for turn in messages %}
    {%- if loop.first %}{{ bos_token }}{% endif %}
    {%- if loop.first and tools %}
        {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + tools | tojson + '<|eot_id|>' }}
    {%- endif %}
    {{- '<|start_header_id|>' + ('ipython' if turn.role == 'tool' else turn.role) }}
    {{- '<|end_header_id|>\\n\\n' }}
    {%- if turn.tool_calls %}
        {%- set call = turn.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' }}
        {{- '<|eom_id|>' }}
    {%- else %}
        {{- turn.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

_MISTRAL = """\
{%- if messages[0].role == 'system' %}
    {%- set said = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}
{%- else %}{% set said = '' %}{% set turns = messages %}{% endif %}
{{- bos_token }}
{%- set asked = turns | selectattr('role', 'equalto', 'user') | list %}
{%- for turn in turns %}
    {%- if turn.role == 'user' %}
        {%- if turn == asked[-1] and tools %}
            {{- '[AVAILABLE_TOOLS]' + SP + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' + SP + (said if turn == asked[-1] else '') + turn.content + END }}
    {%- elif turn.tool_calls %}
        {{- '[TOOL_CALLS]' + SP + '[' }}
        {%- for call in turn.tool_calls %}
            {{- '{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- ', "id": "' + call.id + '"}' }}{{ '' if loop.last else ', ' }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif turn.role == 'tool' %}
        {{- '[TOOL_RESULTS]' + SP + '{"content": ' + (turn.content | tojson) + '}' }}
        {{- '[/TOOL_RESULTS]' }}
    {%- else %}{{ SP + turn.content + eos_token }}{% endif %}
{%- endfor %}"""

_QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(asked=0) %}
{%- for turn in messages %}{% if turn.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}
{%- endfor %}
{%- for turn in messages %}
    {%- if turn.role == 'assistant' %}
        {%- set said = (turn.content or '').split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.asked %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
        {{- said }}
        {%- for call in turn.tool_calls or [] %}
            {{- '\\n' if said or not loop.first else '' }}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif turn.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + turn.content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' }}
    {%- elif turn.role == 'user' %}
        {{- '<|im_start|>user\\n' + turn.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

_GEMMA = """\
{{ bos_token }}
{%- for turn in messages %}
    {%- if turn.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}
    {{- '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\\n' }}
    {{- turn.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

_ROLES = "{% for turn in messages %}{{ '<|' + turn.role + '|>OPEN' + turn.content + CLOSE }}"
_ASSISTANT = "{% if add_generation_prompt %}{{ '<|assistant|>OPEN' }}"

_DEEPSEEK = """\
{{ bos_token }}
{%- for turn in messages %}
    {%- if turn.role == 'user' %}{{ '<｜User｜>' + turn.content }}
    {%- elif turn.role == 'system' %}{{ turn.content }}
    {%- else %}{{ '<｜Assistant｜>' + turn.content.split('</think>')[-1] + eos_token }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}THOUGHT{% endif %}"""

_CHANNELS = """\
{% for turn in messages %}
    {{- '<|start|>' + turn.role }}
    {%- if turn.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}
    {%- set is_answer = loop.last and turn.role == 'assistant' %}
    {{- '<|message|>' + turn.content + ('<|return|>' if is_answer else '<|end|>') }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

_CHATML = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn.role + NL + turn.content"
    " + '<|im_end|>' + NL2 }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' + NL }}{% endif %}"
)
_BYTES_EOS = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_SPM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
_TOOL_MARKS = (
    "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
)  # fmt: skip

FORMATS: dict[str, Format] = {
    "chatml": Format(
        "bytes", _CHATML.replace("NL2", r"'\n'").replace("NL", r"'\n'"),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>", {**_BYTES_EOS, "pad_token": "<|im_end|>"},
    ),
    "llama2": Format(
        "words_every", _LLAMA2, (),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi there [/INST] Hello. </s>"
        "<s>[INST] How are you? [/INST]",
        "</s>", _SPM, lead=" ", tail=" ",
    ),
    "llama3": Format(
        "bytes", _LLAMA3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
         "<|eot_id|>", "<|eom_id|>"),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>", {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        tools='{"name": "look_up", "parameters": {"word": "teapot"}}<|eom_id|>',
    ),
    "mistral_v1": Format(
        "words_every",
        _MISTRAL.replace("'[INST]' + SP", "'[INST] '").replace("END", "' [/INST]'")
        .replace("SP", "''"), (),
        "<s>[INST] Hi there [/INST]Hello.</s>[INST] Be brief.\n\nHow are you? [/INST]",
        "</s>", _SPM, keeps_turns=False,
        tools='[TOOL_CALLS][{"name": "look_up", "arguments": {"word": "teapot"}, '
        '"id": "a1b2c3d4e"}]</s>',
    ),
    "mistral_v3": Format(
        "words_first", _MISTRAL.replace("END", "'[/INST]'").replace("SP", "' '"), _TOOL_MARKS[:7],
        "<s>[INST] Hi there[/INST] Hello.</s>[INST] Be brief.\n\nHow are you?[/INST]",
        "</s>", _SPM, lead=" ", keeps_turns=False,
        tools='[TOOL_CALLS] [{"name": "look_up", "arguments": {"word": "teapot"}, '
        '"id": "a1b2c3d4e"}]</s>',
    ),
    "mistral_tekken": Format(
        "bytes", _MISTRAL.replace("END", "'[/INST]'").replace("SP", "''"),
        ("<unk>", "<s>", "</s>", *_TOOL_MARKS),
        "<s>[INST]Hi there[/INST]Hello.</s>[INST]Be brief.\n\nHow are you?[/INST]",
        "</s>", _SPM, keeps_turns=False,
        tools='[TOOL_CALLS][{"name": "look_up", "arguments": {"word": "teapot"}, '
        '"id": "a1b2c3d4e"}]</s>',
    ),
    "gemma": Format(
        "words_none", _GEMMA, ("<start_of_turn>", "<end_of_turn>"),
        "<s><start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nHow are you?<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>", {**_SPM, "pad_token": "<unk>"}, has_system=False,
    ),
    "phi3": Format(
        "words_every",
        (_ROLES + "{% endfor %}" + _ASSISTANT + "{% else %}{{ eos_token }}{% endif %}")
        .replace("OPEN", r"\n").replace("CLOSE", r"'<|end|>\n'"),
        tuple(AddedToken(name, rstrip=True, special=True, normalized=False)
              for name in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi there<|end|>\n<|assistant|>\nHello.<|end|>\n"
        "<|user|>\nHow are you?<|end|>\n<|assistant|>\n",
        "<|end|>", _SPM,
    ),
    "phi4": Format(
        "bytes", _CHATML.replace("NL2", "''").replace("NL", "'<|im_sep|>'"),
        ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi there"
        "<|im_end|><|im_start|>assistant<|im_sep|>Hello.<|im_end|><|im_start|>user<|im_sep|>"
        "How are you?<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|im_end|>", {**_BYTES_EOS, "bos_token": "<|endoftext|>"},
    ),
    "qwen3": Format(
        "bytes", _QWEN, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_end|>", _BYTES_EOS,
        added=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
               "</tool_response>"),
        keeps_turns=False, extra={"enable_thinking": False},
        tools='<tool_call>\n{"name": "look_up", "arguments": {"word": "teapot"}}\n</tool_call>'
        "<|im_end|>",
    ),
    "zephyr": Format(
        "words_first",
        (_ROLES + "{% endfor %}" + _ASSISTANT + "{% endif %}")
        .replace("OPEN", r"\n").replace("CLOSE", r"eos_token + '\n'"), (),
        "<|system|>\nBe brief.</s>\n<|user|>\nHi there</s>\n<|assistant|>\nHello.</s>\n"
        "<|user|>\nHow are you?</s>\n<|assistant|>\n",
        "</s>", _SPM,
    ),
    "deepseek": Format(
        "bytes", _DEEPSEEK.replace("THOUGHT", ""),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi there<｜Assistant｜>Hello."
        "<｜end▁of▁sentence｜><｜User｜>How are you?<｜Assistant｜>",
        "<｜end▁of▁sentence｜>",
        {"bos_token": "<｜begin▁of▁sentence｜>",
         "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"},
         "pad_token": "<｜end▁of▁sentence｜>"},
    ),
    "deepseek_thinking": Format(
        "bytes", _DEEPSEEK.replace("THOUGHT", r"{{ '<think>\n' }}"),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi there<｜Assistant｜>Hello."
        "<｜end▁of▁sentence｜><｜User｜>How are you?<｜Assistant｜><think>\n",
        "<｜end▁of▁sentence｜>",
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
        added=("<think>", "</think>"), keeps_turns=False, continues=False,
    ),
    "channels": Format(
        "bytes", _CHANNELS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|endoftext|>"),
        "<|start|>system<|message|>Be brief.<|end|><|start|>user<|message|>Hi there<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello.<|end|>"
        "<|start|>user<|message|>How are you?<|end|><|start|>assistant",
        "<|return|>", {"bos_token": None, "eos_token": "<|return|>"},
        opening="<|channel|>final<|message|>", keeps_turns=False,
    ),
}  # fmt: skip
