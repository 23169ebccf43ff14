"""Chat templates of the project's own, for models whose stock template cannot train or cannot show tools.

A template is chosen once, and travels with the model from then on: training, evaluation and serving see one and the
same prompt. Each file renders its model's published wire format, and says in its head which one and what it adds.
The reply is read by a `response_template` that stands beside it (transformers' own format).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthesis.errors import UserError
from synthesis.records import Json

_CALL = {"name": "{name}", "arguments": "{arguments}"}
_HERMES = {
    "open": "<tool_call>",
    "close_pattern": r"</tool_call>\s*",
    "repeats": True,
    "content": "json",
    "transform": {"type": "function", "function": "{content}"},
}


def _response(anchor: str | list[str], calls: dict[str, Json], stop: str) -> dict[str, Json]:
    """How to read a reply that begins behind `anchor`: its calls, and what is left as text, up to the stop token."""
    content = {"close": stop, "content": "text"}
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": anchor,
        "fields": {"tool_calls": calls, "content": content},
    }


_MISTRAL = _response(
    ["[/INST]", "[/TOOL_RESULTS]"],
    {
        "open": "[TOOL_CALLS]",
        "close": "</s>",
        "content": "json",
        "transform": {"type": "function", "function": _CALL},
        "transform_each": True,
    },
    "</s>",
)


def _text(name: str) -> str:
    return (Path(__file__).parent / f"{name}.jinja").read_text("utf-8")


@dataclass(frozen=True)
class Family:
    """Models of one wire format."""

    name: str
    """Name of the template: its file here without `.jinja`, and what `chat_template_path` of a recipe may say."""
    marks: tuple[str, ...]
    """What the stock template of these models holds, all of it, and that of no other."""
    why: str
    """What is wrong with the stock template."""
    response: dict[str, Json]

    @property
    def template(self) -> str:
        """The template's text."""
        return _text(self.name)


FAMILIES = (
    Family(
        "llama3_1",
        ("<|start_header_id|>", "only supports single tool-calls at once"),
        "it drops text beside a call without a word, and marks no answers",
        _response(
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            {
                "open_pattern": r'\{"name":\s*"(?P<name>[^"]+)",\s*"parameters":\s*',
                "close_pattern": r"\}<\|eot_id\|>",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
            },
            "<|eot_id|>",
        ),
    ),
    Family(
        "qwen3",
        ("ns.last_query_index", "enable_thinking is false", '<tool_call>\\n{"name": "'),
        "it writes history otherwise once a tool has answered, and an empty thought into answers",
        _response("<|im_start|>assistant\n<think>\n\n</think>\n\n", _HERMES, "<|im_end|>"),
    ),
    Family(
        "mistral_v3",
        ("[AVAILABLE_TOOLS] [", "[TOOL_CALLS] [", "Tool call IDs should be alphanumeric"),
        "it wants drawn ids in every call, and drops the system text once a tool has answered",
        _MISTRAL,
    ),
    Family(
        "mistral_nemo",
        ("[AVAILABLE_TOOLS][", "[TOOL_CALLS][", "Tool call IDs should be alphanumeric"),
        "it wants drawn ids in every call, and drops the system text once a tool has answered",
        _MISTRAL,
    ),
    Family(
        "deepseek_llm",
        ("{{ 'User: ' + message['content'] + '\\n\\n' }}", "{{ 'Assistant: ' + message['content'] + eos_token }}"),
        "it shows no tools, which are prompted instead",
        _response("Assistant:", _HERMES, "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    ),
)

CHATML = ("chatml", "chatml_compact")
"""For any model whose own template knows no tools: whole schemas, or signatures in few tokens."""


def read(name: str) -> str:
    """The text of one of these templates, or of a file. Raises `UserError` where `name` is neither."""
    names = [*(family.name for family in FAMILIES), *CHATML]
    if name in names:
        return _text(name)
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"chat_template_path: {name} cannot be read; expected a Jinja file, or one of {', '.join(names)}"
        ) from error


def marked(template: str) -> bool:
    """Whether a template says by markers what the assistant writes."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def fit(tokenizer: Any) -> str:
    """Give `tokenizer` its family's template where the stock one is known to be unfit, and how to read replies.

    One whose template knows no tools, or that has none, gets `chatml`. Returns one line that says what was changed;
    empty where nothing was. A template that came from here, by name or with a trained model, gets its response template
    and no line.
    """
    stock = tokenizer.chat_template
    if stock is not None and not isinstance(stock, str):  # several by name, which only the user can choose among
        return ""
    if ours := [name for name in CHATML if stock == _text(name)]:
        _use_chatml(tokenizer, ours[0])
        return ""
    if stock is None:
        return _use_chatml(tokenizer, CHATML[0], "chat template: chatml, as the model brings none")
    for family in FAMILIES:
        known = stock == family.template
        if known or (all(mark in stock for mark in family.marks) and not marked(stock)):
            tokenizer.chat_template = family.template
            tokenizer.response_template = family.response
            return "" if known else f"chat template: {family.name} instead of the stock one ({family.why})"
    if not re.search(r"\btools\b", stock):
        return _use_chatml(tokenizer, CHATML[0], "chat template: chatml instead of the stock one (it shows no tools)")
    return ""


def _use_chatml(tokenizer: Any, name: str, line: str = "") -> str:
    """Give `tokenizer` a template of `CHATML`, if it has the stop token that ends a turn there; else change nothing."""
    if not tokenizer.eos_token:
        return ""
    tokenizer.chat_template = _text(name)
    tokenizer.response_template = _response("<|im_start|>assistant\n", _HERMES, tokenizer.eos_token)
    return line
