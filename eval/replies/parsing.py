"""How the replies of a model are read, by what its tokenizer knows of them."""

from collections.abc import Callable, Mapping
from typing import Any

from eval.replies.calls import parse_hermes
from synthesis.records import Json

Parser = Callable[[str, str, list[dict[str, Json]]], Mapping[str, Json]]
"""(reply, prompt, tools) to assistant message."""


def reply_parser(tokenizer: Any) -> Parser:
    """How to read the replies of a model with this tokenizer.

    By the tokenizer's own `response_template`; else by the one that TRL knows for its chat template; else as
    `<tool_call>` blocks of JSON. The tools are passed on only where the template writes arguments as bare text, so that
    only the schema tells a number from a string. For JSON they would mend wrong types and hide the model's error.
    """
    if getattr(tokenizer, "response_template", None) is None:
        from trl.chat_template_utils import add_response_schema

        try:
            add_response_schema(tokenizer)
        except ValueError:
            return lambda text, _prompt, _tools: parse_hermes(_without_stop(text, tokenizer))
    field = tokenizer.response_template.get("fields", {}).get("tool_calls", {})
    bare = field.get("content") != "json"

    def parse(text: str, prompt: str, tools: list[dict[str, Json]]) -> Mapping[str, Json]:
        message: Mapping[str, Json] = tokenizer.parse_response(text, prefix=prompt, tools=tools if bare else None)
        return message

    return parse


def _without_stop(text: str, tokenizer: Any) -> str:
    return text.removesuffix(tokenizer.eos_token) if tokenizer.eos_token else text
