"""The forms in which raw backbones write calls, as their publishers describe them; prose is none of them."""

from typing import Any

import pytest

from eval.replies.calls import Call, read_reply
from eval.replies.parsing import reply_parser
from eval.replies.templates import FAMILIES
from eval.replies.wire_formats import hermes, llama, mistral

A = '{"city": "Bern", "days": 3}'
ONE = (Call("weather", {"city": "Bern", "days": 3}),)
TWO = (*ONE, Call("weather", {"city": "Basel"}))
CALL = '{"name": "weather", "parameters": ' + A + "}"
OTHER = '{"name": "weather", "parameters": {"city": "Basel"}}'
LLAMA = {
    CALL + "<|eot_id|>": ONE,
    CALL + "<|eom_id|>": ONE,
    "<|python_tag|>" + CALL + "<|eom_id|>": ONE,
    "<|python_tag|>" + CALL + "<|eot_id|>": ONE,
    '{"type": "function", "name": "weather", "parameters": ' + A + "}<|eot_id|>": ONE,
    '{"type": "function", "function": {"name": "weather", "parameters": ' + A + "}}<|eot_id|>": ONE,
    CALL.replace("parameters", "arguments") + "<|eot_id|>": ONE,
    '{\n  "name": "weather",\n  "parameters": {\n    "city": "Bern",\n    "days": 3\n  }\n}\n<|eot_id|>': ONE,
    CALL + "; " + OTHER + "<|eot_id|>": TWO,
    CALL + "\n" + OTHER + "<|eom_id|>": TWO,
    "I will look: " + CALL + "<|eot_id|>": ONE,
    CALL: ONE,
    'The set {1, 2} and {"a": 1} are no calls.<|eot_id|>': (),
    "It is dry in Bern.<|eot_id|>": (),
}
BLOCK = "<tool_call>\n" + CALL.replace("parameters", "arguments") + "\n</tool_call>"
BASEL = "<tool_call>\n" + OTHER.replace("parameters", "arguments") + "\n</tool_call>"
HERMES = {
    BLOCK + "<|im_end|>": ONE,
    BLOCK.replace("arguments", "parameters") + "<|im_end|>": ONE,
    BLOCK + "\n" + BASEL + "<|im_end|>": TWO,
    "Let me look.\n" + BLOCK + "\nDone.<|endoftext|>": ONE,
    "<think>\nshall I <tool_call> now?\n</think>\n\n" + BLOCK + "<|im_end|>": ONE,
    BLOCK.removesuffix("\n</tool_call>") + "<|im_end|>": ONE,
    "<think>\nI might say " + BLOCK: (),
    "It is dry.<|im_end|>": (),
}
LISTED = CALL.replace("parameters", "arguments")
MISTRAL = {
    "[TOOL_CALLS] [" + LISTED + "]</s>": ONE,
    "[TOOL_CALLS][" + LISTED + ", " + OTHER.replace("parameters", "arguments") + "]</s>": TWO,
    "[TOOL_CALLS] [" + LISTED[:-1] + ', "id": "abc123def"}]</s>': ONE,
    "[TOOL_CALLS] " + LISTED + "</s>": ONE,
    "I look. [TOOL_CALLS] [" + LISTED + "]\n\nThe weather is</s>": ONE,
    "[TOOL_CALLS]weather[ARGS]" + A + "</s>": ONE,
    "[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]" + A + '[TOOL_CALLS]weather[ARGS]{"city": "Basel"}</s>': TWO,
    "[TOOL_CALLS]weather" + A + "</s>": ONE,
    "It is dry.</s>": (),
}
FORMS = [(llama, text, calls) for text, calls in LLAMA.items()]
FORMS += [(hermes, text, calls) for text, calls in HERMES.items()]
FORMS += [(mistral, text, calls) for text, calls in MISTRAL.items()]


@pytest.mark.parametrize(("reader", "text", "calls"), FORMS)
def test_every_known_form_is_read_and_prose_is_not(reader: Any, text: str, calls: tuple[Call, ...]) -> None:
    assert read_reply(text, lambda reply: {"tool_calls": reader(reply)}).calls == calls


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (llama, '{"name": "weather", "parameters": {"city": "Bern"<|eot_id|>'),
        (llama, CALL + '; {"name": "weather", <|eot_id|>'),
        (hermes, '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern",}}\n</tool_call>'),
        (hermes, "<tool_call>\nweather\n</tool_call>"),
        (mistral, "[TOOL_CALLS] [" + LISTED + "</s>"),
        (mistral, "[TOOL_CALLS] weather in Bern</s>"),
    ],
)
def test_a_call_that_is_begun_and_broken_is_unreadable(reader: Any, text: str) -> None:
    reply = read_reply(text, lambda reply: {"tool_calls": reader(reply)})
    assert reply.problem.startswith("unreadable tool call")


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_the_templates_of_this_project_read_all_forms_of_their_family(kit: Any, name: str) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    tokenizer = kit.make_tokenizer(["text"])
    tokenizer.chat_template, tokenizer.response_template = family.template, family.response
    parse = reply_parser(tokenizer)
    forms = {"llama3_1": LLAMA, "mistral_v3": MISTRAL, "mistral_nemo": MISTRAL}.get(name, HERMES)
    for text, calls in forms.items():
        reply = read_reply(text, lambda reply: parse(reply, "anything before", kit.tools))
        assert reply.calls == calls, text
