"""How replies are read: by the tokenizer's own response template, by TRL's, or as blocks of JSON."""

from typing import Any

import pytest

from eval.replies.calls import Call, read_reply
from eval.replies.parsing import reply_parser

CALL_TEXT = '<tool_call>\n{"name": "excel__read", "arguments": {"sheet": "A", "rows": "3"}}\n</tool_call><|im_end|>'
BARE_TEXT = (
    "<tool_call>\n<function=excel__read>\n<parameter=sheet>\n12\n</parameter>\n<parameter=rows>\n3\n</parameter>\n"
)
BARE_TEXT += "</function>\n</tool_call><|im_end|>"


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "hermes-like"])
def test_a_wrong_type_in_json_is_not_mended(kit: Any, name: str) -> None:
    tokenizer = kit.make_tokenizer(["text"])
    tokenizer.chat_template = "{{ messages }}" if name == "hermes-like" else kit.template(name)
    parse = reply_parser(tokenizer)
    reply = read_reply(CALL_TEXT, lambda text: parse(text, "<|im_start|>assistant\n", kit.tools))
    assert reply.calls == (Call("excel__read", {"sheet": "A", "rows": "3"}),)


def test_bare_text_arguments_get_their_type_from_the_schema(kit: Any) -> None:
    tokenizer = kit.make_tokenizer(["text"])
    tokenizer.chat_template = kit.template("qwen3_5_nothink")
    parse = reply_parser(tokenizer)
    reply = read_reply(BARE_TEXT, lambda text: parse(text, "<|im_start|>assistant\n", kit.tools))
    assert reply.calls == (Call("excel__read", {"sheet": "12", "rows": 3}),)


def test_a_model_of_its_own_brings_its_own_parser(kit: Any) -> None:
    tokenizer = kit.make_tokenizer(["text"])
    fields = {"tool_calls": {"open": "[", "close": "]", "repeats": True, "content": "json"}}
    fields["tool_calls"]["transform"] = {"type": "function", "function": "{content}"}
    tokenizer.response_template = {"defaults": {"role": "assistant"}, "start_anchor": "A:", "fields": fields}
    parse = reply_parser(tokenizer)
    reply = read_reply('[{"name": "x", "arguments": {}}]', lambda text: parse(text, "A:", kit.tools))
    assert reply.calls == (Call("x", {}),)


def test_words_before_a_call_and_thoughts_do_not_hide_it(kit: Any) -> None:
    tokenizer = kit.make_tokenizer(["text"])
    parse = reply_parser(tokenizer)
    text = "<think>\nread it\n</think>\n\nOf course.\n" + CALL_TEXT
    assert len(read_reply(text, lambda t: parse(t, "<|im_start|>assistant\n", kit.tools)).calls) == 1
