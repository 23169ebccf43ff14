"""How the replies of a model are read, by what its tokenizer knows of them."""

from collections.abc import Callable, Mapping
from typing import Any

from eval.replies.calls import parse_hermes
from eval.replies.templates import FAMILIES
from eval.replies.wire_formats import reader_of
from synthesis.records import Json

Parser = Callable[[str, str, list[dict[str, Json]]], Mapping[str, Json]]
"""(reply, prompt, tools) to assistant message."""


def reply_parser(tokenizer: Any) -> Parser:
    """How to read the replies of a model with this tokenizer.

    By the tokenizer's own `response_template`; else by the one that TRL knows for its chat template; else as
    `<tool_call>` blocks of JSON. Where the chat template is of a publisher who taught several forms of a call, all are
    read (`eval.replies.wire_formats`), unless a model brings a reader that neither we nor TRL gave it. The tools are
    passed on only where the template writes arguments as bare text, so that only the schema tells a number from a
    string. For JSON they would mend wrong types and hide the model's error.
    """
    own = getattr(tokenizer, "response_template", None)
    if own is None:
        from trl.chat_template_utils import add_response_schema

        try:
            add_response_schema(tokenizer)
        except ValueError:
            return lambda text, _prompt, _tools: parse_hermes(_without_stop(text, tokenizer))
    field = tokenizer.response_template.get("fields", {}).get("tool_calls", {})
    bare = field.get("content") != "json"

    read_calls = reader_of(tokenizer) if own is None or _given(own) else None

    def by_template(text: str, prompt: str, tools: list[dict[str, Json]]) -> Mapping[str, Json]:
        message: Mapping[str, Json] = tokenizer.parse_response(text, prefix=prompt, tools=tools if bare else None)
        return message

    def parse(text: str, prompt: str, tools: list[dict[str, Json]]) -> Mapping[str, Json]:
        if read_calls is None:
            return by_template(text, prompt, tools)
        calls = read_calls(text)
        try:
            message = dict(by_template(text, prompt, tools))
        except (ValueError, KeyError, TypeError):  # a form that the template does not know
            message = {"role": "assistant", "content": text}
        message.pop("tool_calls", None)
        return {**message, "tool_calls": [_as_made(call) for call in calls]} if calls else message

    return parse


def _given(response_template: Json) -> bool:
    """Whether a response template is one that this project or TRL gives to models, so not their own."""
    from trl.chat_template_utils import llama3_schema, qwen3_schema

    ours = [family.response for family in FAMILIES]
    return response_template in [*ours, llama3_schema, qwen3_schema]


def _as_made(call: Json) -> Json:
    """A call in the one form that conversations have."""
    if not isinstance(call, Mapping):
        return call
    function = call.get("function", call)
    return {"type": "function", "function": function}


def _without_stop(text: str, tokenizer: Any) -> str:
    return text.removesuffix(tokenizer.eos_token) if tokenizer.eos_token else text
