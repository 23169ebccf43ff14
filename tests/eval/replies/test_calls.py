"""Reading calls from replies, and the three notions of sameness."""

import json

import pytest

from eval.replies import calls
from eval.replies.calls import NO_CALL, Call, Toolbox, alike, calls_of, exact, parse_hermes, read_reply


def tools(**properties: object) -> Toolbox:
    parameters = {"type": "object", "properties": properties, "required": ["a"], "additionalProperties": False}
    return Toolbox([{"type": "function", "function": {"name": "t", "parameters": parameters}}])


def test_hermes_blocks_are_read_in_order() -> None:
    text = 'Sure. <tool_call>\n{"name": "x", "arguments": {"n": 1}}\n</tool_call>\n<tool_call>{"name": "y"}</tool_call>'
    assert read_reply(text, parse_hermes).calls == (Call("x", {"n": 1}), Call("y", {}))


def test_a_last_block_may_lack_its_end() -> None:
    assert read_reply('<tool_call>{"name": "x", "arguments": {}}', parse_hermes).calls == (Call("x", {}),)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "x", "arg</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "x", "arguments": [1]}</tool_call>',
        '<tool_call>["x"]</tool_call>',
        '<tool_call>{"name": "x", "arguments": {"n": NaN}}</tool_call>',
        "<tool_call>" + "[" * 100_000,
        '<tool_call>{"name": "x", "arguments": {}}</tool_call><tool_call>broken',
    ],
)
def test_what_cannot_be_read_is_a_problem_and_keeps_its_text(text: str) -> None:
    reply = read_reply(text, parse_hermes)
    assert reply.calls == ()
    assert reply.problem.startswith("unreadable tool call")
    assert reply.text == text


def test_plain_words_are_a_problem_of_their_own() -> None:
    assert read_reply("I cannot do that.", parse_hermes).problem == NO_CALL


def test_arguments_may_come_as_json_text() -> None:
    message = {"tool_calls": [{"function": {"name": "x", "arguments": '{"n": 2}'}}]}
    assert calls_of(message) == (Call("x", {"n": 2}),)


def test_exact_follows_json_not_python() -> None:
    assert exact(3, 3.0)
    assert exact({"a": [1, {"b": None}], "c": "x"}, {"c": "x", "a": [1.0, {"b": None}]})
    assert not exact(True, 1)
    assert not exact("a", "A")
    assert not exact({"a": 1}, {"a": 1, "b": None})
    assert not exact([1, 2], [2, 1])


def test_alike_ignores_case_spaces_and_how_a_scalar_is_written() -> None:
    assert alike("  New   York ", "new york")
    assert alike(3, 3.0)
    assert alike("3", 3)
    assert alike(True, "true")
    assert alike(["A", {"k": 2.0}], ["a", {"k": 2}])
    assert alike(5.0, "5.0")
    assert alike("5.50", 5.5)
    assert alike({"a": 1, "b": None}, {"a": 1})
    assert alike({"a": {"b": None}}, {"a": {}})
    assert alike("Zu\u0308rich", "Z\u00fcrich")


def test_alike_keeps_real_differences() -> None:
    assert not alike("2024-01-19", "2024-01-20")
    assert not alike(3, 3.1)
    assert not alike(True, 1)
    assert not alike(None, "none")
    assert not alike(None, "")
    assert not alike("007", 7)
    assert not alike("1.10.0", "1.1.0")
    assert not alike(["a", "b"], ["b", "a"])


def test_validity_needs_a_known_tool_and_its_schema() -> None:
    box = tools(a={"type": "integer"})
    assert box.valid(Call("t", {"a": 3}))
    assert box.valid(Call("t", {"a": 3.0}))
    assert not box.valid(Call("t", {"a": "3"}))
    assert not box.valid(Call("t", {}))
    assert not box.valid(Call("t", {"a": 3, "z": 1}))
    assert not box.valid(Call("other", {"a": 3}))


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "string", "pattern": "^\\p{L}+$"},
        {"type": "string", "pattern": "^(?<year>\\d{4})$"},
        {"$ref": "#/$defs/none"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"type": "strng"},
    ],
)
def test_a_schema_that_cannot_be_read_costs_no_result(broken: dict[str, object]) -> None:
    box = tools(a=broken)
    assert box.valid(Call("t", {"a": "x"}))
    assert not box.valid(Call("t", {"z": "x"}))
    assert box.equivalent(Call("t", {"a": "x"}), Call("t", {"a": "X"}))


def test_null_and_left_out_are_one_where_there_is_no_default() -> None:
    box = tools(a={"type": "string"}, b={"type": ["string", "null"]})
    assert box.equivalent(Call("t", {"a": "x"}), Call("t", {"a": "x", "b": None}))


def test_schemas_with_local_references_are_followed() -> None:
    parameters = {"$defs": {"n": {"type": "integer"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    box = Toolbox([{"type": "function", "function": {"name": "t", "parameters": parameters}}])
    assert box.valid(Call("t", {"a": 1}))
    assert not box.valid(Call("t", {"a": "x"}))


def test_defaults_written_out_or_left_out_are_the_same_call() -> None:
    box = tools(a={"type": "string"}, limit={"type": ["integer", "null"], "default": 10})
    short, long = Call("t", {"a": "x"}), Call("t", {"a": "X", "limit": 10})
    assert box.equivalent(short, long)
    assert box.equivalent(long, short)
    assert not box.equivalent(short, Call("t", {"a": "x", "limit": 11}))
    assert not box.equivalent(short, Call("t", {"a": "x", "limit": None}))


def test_an_added_argument_that_is_no_default_is_another_call() -> None:
    box = tools(a={"type": "string"}, b={"type": "string"})
    assert not box.equivalent(Call("t", {"a": "x"}), Call("t", {"a": "x", "b": "y"}))


def test_a_value_of_the_wrong_type_is_no_equivalent_call() -> None:
    box = tools(a={"type": "integer"})
    assert box.equivalent(Call("t", {"a": 3}), Call("t", {"a": 3.0}))
    assert not box.equivalent(Call("t", {"a": 3}), Call("t", {"a": "3"}))


def test_calls_survive_the_result_file() -> None:
    reply = read_reply('<tool_call>{"name": "x", "arguments": {"s": "\\ud800"}}</tool_call>', parse_hermes)
    assert json.loads(json.dumps(reply.calls[0].as_dict())) == {"name": "x", "arguments": {"s": "\ud800"}}


def test_a_schema_is_judged_once_however_many_values_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    monkeypatch.setattr(calls, "fault", lambda root: judged.append(root) or "")
    part = {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "description": "judged once"}
    tools = [{"function": {"name": "t", "parameters": {"type": "object", "properties": {"names": part}}}}]
    gold = Call("t", {"names": ["a", "b"]})
    for _ in range(3):
        box = Toolbox(tools)  # one a task, as in an evaluation
        assert box.valid(gold)
        assert box.fits("t", "names", ["b"])
        assert not box.fits("t", "names", "b")
        assert box.same(gold, Call("t", {"names": ["b", "a"]}))
    assert len(judged) == 1
