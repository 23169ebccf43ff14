"""A result as one text: what differs in the answer differs in it."""

from typing import Any

import pytest
from mcp_types import CallToolResult

from synthesis.calls.verdicts import judge
from synthesis.records import Tool, ToolResult
from synthesis.servers.result_text import DEEPEST, result_text, structured


def result(*blocks: dict[str, Any], **more: Any) -> CallToolResult:
    return CallToolResult.model_validate({"content": list(blocks), **more})


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_data_that_the_text_only_sums_up_is_shown_with_it() -> None:
    first, second = (
        result(text("1 recipe found"), structuredContent={"recipes": [{"name": name}]}) for name in ("goulash", "ramen")
    )
    assert result_text(first) == '1 recipe found\n{"recipes": [{"name": "goulash"}]}'
    assert result_text(first) != result_text(second)


def test_data_without_a_text_is_the_answer_and_no_failure() -> None:
    said = result_text(result(structuredContent={"degrees": 12}))
    assert said == '{"degrees": 12}'
    assert judge(Tool(server="s", name="t", input_schema={}), ToolResult(text=said)) == ""


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ('{"city": "Zürich", "degrees": 12.5, "dry": true}', {"city": "Zürich", "degrees": 12.5, "dry": True}),
        ("12 degrees in Zürich", {"result": "12 degrees in Zürich"}),
        ('a "quoted" word', {"result": 'a "quoted" word'}),
        ("3", {"result": 3, "none": None, "empty": []}),
        ('{"value":1.7e-6,"of":12}', {"value": 1.7e-06, "of": 12.0}),
    ],
)
def test_data_that_the_text_says_already_is_not_said_twice(words: str, data: Any) -> None:
    assert result_text(result(text(words), structuredContent=data)) == words


def test_bytes_that_differ_are_told_apart() -> None:
    pictures = [result({"type": "image", "data": data, "mimeType": "image/png"}) for data in ("AAAA", "BBBB", "AAAA")]
    first, second, again = map(result_text, pictures)
    assert first.startswith("[image image/png sha256 ")
    assert first == again
    assert first != second
    blobs = [result({"type": "resource", "resource": {"uri": "file:///x", "blob": data}}) for data in ("AAAA", "BBBB")]
    assert result_text(blobs[0]) != result_text(blobs[1])


def test_nesting_without_end_is_not_read_as_data() -> None:
    deep: Any = 1
    for _ in range(DEEPEST + 1):
        deep = {"a": deep}
    assert structured(result(text("deep"), structuredContent=deep)) is None
    assert result_text(result(text("deep"), structuredContent=deep)) == "deep"


@pytest.mark.parametrize("words", ["[" * 20_000, "[" * 600 + "]" * 600, '{"a":' * 800 + "1" + "}" * 800])
def test_a_text_of_deep_json_is_judged_like_any_other(words: str) -> None:
    assert judge(Tool(server="s", name="t", input_schema={}), ToolResult(text=words)) == ""
