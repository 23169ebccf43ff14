"""Rows as others write them: read into the one shape that everything behind relies on, or refused in a sentence.

The shape: messages with `role` and a `content` that is text; calls as `{"type": "function", "function": {"name",
"arguments": {...}}}`; tools in the OpenAI format; `meta` an object with an `id`.
"""

import json
from collections.abc import Mapping
from typing import Any

from synthesis.errors import UserError
from synthesis.schemas import properties

Json = Any
Row = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
_VALUES = {"enum", "const", "default", "examples", "required"}
"""Keys of a schema under which a null is a value."""


class ShapeError(Exception):
    """A field is not what it has to be: where, and what was expected."""

    def __init__(self, field: str, expected: str, found: Json) -> None:
        super().__init__(f"{field}: expected {expected}, not {_kind(found)}")


def read_rows(rows: list[Row], table: str, place: str) -> list[Row]:
    """The rows of a table, `sft` or `preference`, in the one shape. `place` says where they are from.

    Raises `UserError` that names the row, the field and what was expected.
    """
    read = []
    for number, row in enumerate(rows):
        try:
            read.append(_sft(row, number) if table == "sft" else _preference(row, number))
        except ShapeError as error:
            raise UserError(f"{place}: row {number}: {error}") from None
    return read


def _sft(row: Row, number: int) -> Row:
    tools = _tools(row["tools"])
    messages = _messages(row["messages"], "messages", tools)
    opening = next((message["role"] for message in messages if message["role"] not in ("system", "developer")), "")
    if opening != "user":
        raise ShapeError("messages", "the user's message first", opening or "nothing")
    return {**row, "messages": messages, "tools": tools, "meta": _meta(row["meta"], number)}


def _preference(row: Row, number: int) -> Row:
    tools = _tools(row["tools"])
    prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    if isinstance(prompt, str) and not prompt.lstrip().startswith("["):
        prompt = [{"role": "user", "content": prompt}]
    answers = _parsed(rejected)
    if not isinstance(answers, list):
        raise ShapeError("rejected", "a list of answers, each a list of messages", answers)
    if answers and isinstance(answers[0], Mapping):
        answers = [answers]
    return {
        **row,
        "prompt": _messages(prompt, "prompt", tools),
        "chosen": _messages(chosen, "chosen", tools),
        "rejected": [_messages(answer, f"rejected.{index}", tools) for index, answer in enumerate(answers)],
        "tools": tools,
        "meta": _meta(row["meta"], number),
    }


def _meta(meta: Json, number: int) -> dict[str, Json]:
    meta = _parsed(meta)
    if meta is not None and not isinstance(meta, dict):
        raise ShapeError("meta", "an object", meta)
    return {"id": f"row {number}", **(meta or {})}


def _tools(tools: Json) -> list[Json]:
    """The tools, without the nulls by which Arrow fills up what other tools have."""
    tools = _parsed(tools)
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise ShapeError("tools", "a list", tools)
    read = []
    for index, tool in enumerate(map(_parsed, tools)):
        function = tool.get("function", tool) if isinstance(tool, dict) else tool
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ShapeError(f"tools.{index}", "an object with `function` and its `name`", tool)
        read.append({"type": "function", "function": _without_nulls(function)})
    return read


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            key: part if key in _VALUES else _without_nulls(part) for key, part in value.items() if part is not None
        }
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _messages(messages: Json, field: str, tools: list[Json]) -> list[Row]:
    messages = _parsed(messages)
    if not isinstance(messages, list) or not messages:
        raise ShapeError(field, "a list of messages", messages)
    known = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    return [_message(message, f"{field}.{index}", known) for index, message in enumerate(messages)]


def _message(given: Json, field: str, known: Mapping[str, Row]) -> Row:
    if not isinstance(given, dict):
        raise ShapeError(field, "an object", given)
    message: Row = {str(key): value for key, value in given.items() if value is not None}
    if message.get("role") == "function":
        message["role"] = "tool"
    if message.get("role") not in ROLES:
        raise ShapeError(f"{field}.role", f"one of {', '.join(ROLES)}", message.get("role"))
    if "function_call" in message:  # how calls were written before there were several to a turn
        message.setdefault("tool_calls", [message.pop("function_call")])
    message["content"] = _content(message.get("content", ""), f"{field}.content", message["role"])
    if "tool_calls" in message:
        calls = _parsed(message.pop("tool_calls"))
        if not isinstance(calls, list):
            raise ShapeError(f"{field}.tool_calls", "a list", calls)
        read = [_call(call, f"{field}.tool_calls.{index}", known) for index, call in enumerate(calls)]
        message |= {"tool_calls": read} if read else {}
    return message


def _content(content: Json, field: str, role: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "\n".join(part["text"] for part in content)
    if role == "tool":
        return json.dumps(content, ensure_ascii=False)
    raise ShapeError(field, "text", content)


def _call(call: Json, field: str, known: Mapping[str, Row]) -> Row:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ShapeError(field, "an object with `function` and its `name`", call)
    arguments = _parsed(function.get("arguments")) or {}
    if not isinstance(arguments, dict):
        raise ShapeError(f"{field}.function.arguments", "an object", arguments)
    members = properties(known.get(function["name"], {}))
    kept = {name: value for name, value in arguments.items() if value is not None or _takes_null(members.get(name))}
    extra = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**extra, "type": "function", "function": {"name": function["name"], "arguments": kept}}


def _takes_null(schema: Row | None) -> bool:
    """Whether a null may have been meant; else it is what Arrow fills up with."""
    if schema is None:
        return False
    kinds = schema.get("type", "null")
    options = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return "null" in (kinds if isinstance(kinds, list) else [kinds]) and (
        "type" in schema or not options or any(option.get("type") == "null" for option in options)
    )


def _parsed(value: Json) -> Json:
    """What a JSON text holds; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _kind(value: Json) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", bool: "a truth value", int: "a number"}
    return names.get(type(value), f"{str(value)[:40]!r}")
