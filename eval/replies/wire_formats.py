"""The forms in which backbones are known to write calls, read from the text of a reply.

A response template (`eval.replies.templates`, transformers' own format) reads what a trained model writes, which is
one form. A raw model writes what its publisher taught it, and that is several. Each reader here holds to one
publisher's description:

- Llama 3.1: a JSON object with `name` and `parameters`, also with `"type": "function"`, after `<|python_tag|>` or not,
  ended by `<|eot_id|>` or `<|eom_id|>`; several are parted by `;` (Meta's prompt format page for Llama 3.1 and the
  checkpoints' own habits, which vLLM's `llama3_json` parser follows).
- Hermes and Qwen: `<tool_call>` blocks of a JSON object with `name` and `arguments`, behind a thought or not.
- Mistral: `[TOOL_CALLS]` before a list of objects (tokenizers v2 to v7), or before a name, `[ARGS]` and the arguments
  (v11 and later).

None of them reads words as calls, and none mends JSON.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from synthesis.records import Json

Reader = Callable[[str], list[Json]]
"""A reply's text to its calls; raises `ValueError` where one is begun and cannot be read."""
_STOP = re.compile(
    r"(?:\s|<\|(?:eot_id|eom_id|end_of_text|im_end|endoftext)\|>|</s>|<\uff5cend\u2581of\u2581sentence\uff5c>)+$"
)
_NAMED = re.compile(r"\s*([\w./-]+)\s*(?:\[CALL_ID\]\s*[\w-]+\s*)?(?:\[ARGS\])?\s*(?=\{)")
_DECODER = json.JSONDecoder()


def reader_of(tokenizer: Any) -> Reader | None:
    """How to read the calls of the model that this tokenizer is of; None where its template shows none of these forms.

    A template that writes arguments as bare text is none of them, whatever its tags are.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    if "[TOOL_CALLS]" in template:
        return mistral
    if "<|start_header_id|>" in template and "parameters" in template:
        return llama
    response = getattr(tokenizer, "response_template", None) or {}
    in_json = response.get("fields", {}).get("tool_calls", {}).get("content") == "json"
    return hermes if "<tool_call>" in template and in_json else None


def llama(text: str) -> list[Json]:
    """Objects with a name, one after the other; the first may stand behind words."""
    text = _STOP.sub("", text.replace("<|python_tag|>", "")).strip()
    calls: list[Json] = []
    at = text.find("{")
    while at >= 0:
        try:
            found, end = _DECODER.raw_decode(text, at)
        except ValueError:
            if at == 0 or calls:
                raise
            found, end = None, at + 1
        if _is_call(found):
            calls.append(found)
            rest = text[end:].lstrip("; ,\n")
            at = len(text) - len(rest) if rest.startswith("{") else -1
        else:
            at = text.find("{", end)
    return calls


def _is_call(value: Json) -> bool:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return "parameters" in function or "arguments" in function


def hermes(text: str) -> list[Json]:
    """Blocks behind the thought; the last may lack its closing tag, as that is where a model stops."""
    if "<think>" in text and "</think>" not in text:
        return []
    spoken = _STOP.sub("", text.rsplit("</think>", 1)[-1])
    blocks = spoken.split("<tool_call>")[1:]
    return [json.loads(block.split("</tool_call>", 1)[0]) for block in blocks]


def mistral(text: str) -> list[Json]:
    """What stands behind each `[TOOL_CALLS]`: a list, an object, or a name with its arguments."""
    calls: list[Json] = []
    for part in _STOP.sub("", text).split("[TOOL_CALLS]")[1:]:
        if named := _NAMED.match(part):
            arguments, _ = _DECODER.raw_decode(part, named.end())
            calls.append({"name": named[1], "arguments": arguments})
        else:
            found, _ = _DECODER.raw_decode(part.lstrip())
            calls += found if isinstance(found, list) else [found]
    return calls
