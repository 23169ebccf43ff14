"""A result as one text, in which all that the server answered can be told apart: that is compared, shown and learnt."""

import hashlib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_types import CallToolResult

Json = Any
DEEPEST = 100
"""Lists and objects nested deeper than this are not read as data; nobody answers so in earnest."""


def result_text(result: "CallToolResult") -> str:
    """The blocks of a result, one below the other, then the structured content where they do not say it already.

    A block that is no text is named by its kind and by a hash of its bytes.
    """
    text = "\n".join(_block(block) for block in result.content)
    data = structured(result)
    if data is None or all(_said(leaf, text) for leaf in _leaves(data)):
        return text
    return "\n".join(filter(None, [text, json.dumps(data, ensure_ascii=False)]))


def structured(result: "CallToolResult") -> Json:
    """The structured content; None where there is none, or where it is nested too deep to be read."""
    level, depth = [result.structured_content], 0
    while level := [part for value in level for part in _parts(value)]:
        depth += 1
        if depth > DEEPEST:
            return None
    return result.structured_content


def _block(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource_link":
        return f"[resource {block.uri}]"
    if block.type != "resource":
        return f"[{block.type} {block.mime_type}{_hash(block.data)}]"
    if (text := getattr(block.resource, "text", None)) is not None:
        return str(text)
    return f"[resource {block.resource.uri}{_hash(block.resource.blob)}]"


def _hash(data: str) -> str:
    return f" sha256 {hashlib.sha256(data.encode()).hexdigest()[:16]}" if data else ""


def _parts(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _leaves(value: Json) -> list[Json]:
    parts = _parts(value)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [value]


def _said(leaf: Json, text: str) -> bool:
    """Whether a value stands in the text, as it is or as JSON has it; of truth values and what is empty: always."""
    if leaf in (None, "", [], {}) or isinstance(leaf, bool):
        return True
    if isinstance(leaf, int | float):
        return float(leaf) in _numbers(text)
    forms = {str(leaf), json.dumps(leaf), json.dumps(leaf, ensure_ascii=False)}
    return any(form.strip('"') in text for form in forms)


@lru_cache(maxsize=64)
def _numbers(text: str) -> frozenset[float]:
    """All numbers in a text, however they are written."""
    return frozenset(map(float, re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", text)))
