"""A model whose own template knows no tools is shown them as ChatML and Hermes do, and its replies are read so."""

from typing import Any

import pytest
from handmade import build_tokenizer, preference_rows, sft_row, trl_template

from eval.replies import templates
from eval.replies.parsing import reader_of
from rise_train.rows.check import check_preference, check_sft
from rise_train.rows.masking import use_training_template

PLAIN = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("stock", "line"),
    [
        (PLAIN, "chat template: chatml instead of the stock one (it shows no tools)"),
        (None, "chat template: chatml, as the model brings none"),
        ("chatml", ""),
        ("chatml_compact", ""),
    ],
)
def test_rows_are_proved_and_replies_read(stock: str | None, line: str) -> None:
    tokenizer = build_tokenizer(templates.read(stock) if stock in templates.CHATML else stock or PLAIN)
    tokenizer.chat_template = tokenizer.chat_template if stock else None
    assert use_training_template(tokenizer) == line
    assert tokenizer.chat_template == templates.read(stock if stock in templates.CHATML else "chatml")
    rows = [sft_row(i) for i in range(6)]
    report = check_sft(tokenizer, rows, None)
    assert (report.rows, report.linear, report.turn_by_turn) == (6, 0, 0)
    groups = [group for row in rows for group in preference_rows(row)]
    assert check_preference(tokenizer, groups, None).rows > 0
    assert reader_of(tokenizer) is not None


def test_a_template_that_knows_tools_stays() -> None:
    tokenizer = build_tokenizer(trl_template("qwen2_5"))
    before = tokenizer.chat_template
    assert "chatml" not in templates.fit(tokenizer)
    assert tokenizer.chat_template == before


def test_a_tokenizer_without_a_stop_token_stays_as_it_is() -> None:
    tokenizer = build_tokenizer(PLAIN)
    tokenizer.eos_token = None
    assert templates.fit(tokenizer) == ""
    assert tokenizer.chat_template == PLAIN


SIGNATURES: list[tuple[dict[str, Any], str]] = [
    ({"properties": {}}, "f()"),
    (
        {"properties": {"x": {"type": "string"}, "y": {"type": "integer"}}, "required": ["x"]},
        "f(x: string, y?: integer)",
    ),
    ({"properties": {"m": {"enum": ["a", 1]}}, "required": ["m"]}, 'f(m: "a"|1)'),
    ({"properties": {"m": {"enum": ["a", 1]}, "n": {"enum": ["a", 1]}}, "required": ["n"]}, 'f(m?: "a"|1, n: as m)'),
    ({"properties": {"m": {"enum": ["a"]}, "n": {"enum": ["b"]}, "o": True}}, 'f(m?: "a", n?: "b", o?: any)'),
    ({"properties": {"l": {"type": "array", "items": {"type": "number"}}}}, "f(l?: [number])"),
    ({"properties": {"l": {"type": "array"}}}, "f(l?: [any])"),
    ({"properties": {"d": {"type": "string", "format": "date"}}}, "f(d?: string date)"),
    (
        {"properties": {"n": {"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "integer"}]}}},
        "f(n?: string|integer)",
    ),
    ({"properties": {"n": {"type": ["null", "boolean"]}}}, "f(n?: boolean)"),
    ({"properties": {"o": {"type": "object", "properties": {"k": {"const": 3}}, "required": ["k"]}}}, "f(o?: {k: 3})"),
    ({"properties": {"a": True, "b": {}, "c": {"$ref": "#/$defs/c"}}}, "f(a?: any, b?: any, c?: any)"),
]


@pytest.mark.parametrize(("schema", "signature"), SIGNATURES)
def test_a_tool_in_few_tokens_is_its_signature(schema: dict[str, Any], signature: str) -> None:
    tokenizer = build_tokenizer(templates.read("chatml_compact"))
    function = {"name": "f", "description": "Does it.\nAnd more.", "parameters": {"type": "object", **schema}}
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Go."}], tools=[{"type": "function", "function": function}], tokenize=False
    )
    assert f"\n{signature}: Does it.\n</tools>" in shown
