"""Rows as others write them: read into one shape, or refused by row and field."""

import json
from typing import Any

import pytest

from rise_train.rows.row_schema import read_rows
from synthesis.errors import UserError

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "day": {"type": ["string", "null"]}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": PARAMETERS}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
MESSAGES = [
    {"role": "user", "content": "Weather in Bern?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "dry"},
    {"role": "assistant", "content": "It is dry."},
]
ROW: dict[str, Any] = {"messages": MESSAGES, "tools": TOOLS, "meta": {"id": "row 0"}}


def with_message(at: int, **changed: Any) -> dict[str, Any]:
    """The row with fields of one message replaced; of None, left out."""
    message = {key: value for key, value in (MESSAGES[at] | changed).items() if value is not None}
    return ROW | {"messages": [*MESSAGES[:at], message, *MESSAGES[at + 1 :]]}


def with_call(call: Any) -> dict[str, Any]:
    return with_message(1, tool_calls=[call])


SAME = {
    "as it is": ROW,
    "no content": with_message(1, content=None),
    "nulls of Arrow": with_call({"function": {"name": "weather", "arguments": {"city": "Bern", "customer": None}}}),
    "arguments as text": with_call({"function": {"name": "weather", "arguments": '{"city": "Bern"}'}}),
    "flat call": with_call({"name": "weather", "arguments": {"city": "Bern"}}),
    "the older call": with_message(
        1, tool_calls=None, function_call={"name": "weather", "arguments": '{"city":"Bern"}'}
    ),
    "the older role": with_message(2, role="function"),
    "parts": with_message(0, content=[{"type": "text", "text": "Weather in Bern?"}]),
    "texts": {"messages": json.dumps(MESSAGES), "tools": json.dumps(TOOLS), "meta": None},
    "list of texts": ROW | {"tools": [json.dumps(tool) for tool in TOOLS]},
    "bare tools": ROW | {"tools": [TOOLS[0]["function"]]},
    "padded tools": ROW
    | {"tools": [json.loads(json.dumps(TOOLS[0]).replace('"city": {', '"limit": null, "city": {'))]},
}


@pytest.mark.parametrize("row", SAME.values(), ids=SAME)
def test_what_means_the_same_is_read_as_the_same(row: dict[str, Any]) -> None:
    assert read_rows([row], "sft", "here") == [ROW]


def test_a_null_that_the_schema_allows_is_kept() -> None:
    (read,) = read_rows([with_call({"name": "weather", "arguments": {"city": "Bern", "day": None}})], "sft", "here")
    assert read["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Bern", "day": None}


REFUSED = {
    "messages.1.tool_calls.0.function.arguments: expected an object, not a list": with_call(
        {"name": "weather", "arguments": ["Bern"]}
    ),
    "messages.0.content: expected text, not an object": with_message(0, content={"a": 1}),
    "messages.0.role: expected one of system, .*, not 'narrator'": with_message(0, role="narrator"),
    "messages: expected the user's message first, not 'assistant'": ROW | {"messages": MESSAGES[1:]},
    "messages: expected a list of messages, not a list": ROW | {"messages": []},
    "tools.0: expected an object with `function`": ROW | {"tools": ["weather"]},
    "meta: expected an object, not a list": ROW | {"meta": []},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_meant_is_refused_by_row_and_field(said: str) -> None:
    with pytest.raises(UserError, match=f"^here: row 1: {said}"):
        read_rows([ROW, REFUSED[said]], "sft", "here")


def test_a_pair_of_texts_and_turns_without_content_is_read() -> None:
    turn = {"role": "assistant", "tool_calls": [CALL]}
    row = {"prompt": "Weather in Bern?", "chosen": [turn], "rejected": [turn], "tools": TOOLS, "meta": None}
    (read,) = read_rows([row], "preference", "here")
    assert read["prompt"] == MESSAGES[:1]
    assert read["chosen"] == [MESSAGES[1]]
    assert read["rejected"] == [[MESSAGES[1]]]
