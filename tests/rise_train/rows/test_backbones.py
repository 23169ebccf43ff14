"""The backbones' wire formats: the exact text that is trained, the prompt that is served, and replies read back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from handmade import ROOT, calls, preference_rows, result, sft_row, trl_template

from eval.replies import templates
from eval.replies.calls import calls_of, read_reply
from eval.replies.one_call_a_turn import takes_parallel_calls
from eval.replies.parsing import reply_parser
from rise_train.rows.check import check_preference, check_sft
from rise_train.rows.masking import encode_conversation, render_ids, use_training_template
from synthesis.errors import UserError

DEEPSEEK_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
SPECIAL = {
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"]),
    "qwen3": (None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"]),
    "qwen2_5": (None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"]),
    "mistral_v3": (
        "<s>",
        "</s>",
        [f"[{mark}{name}]" for name in ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS") for mark in ("", "/")]
        + ["[TOOL_CALLS]"],
    ),
    "mistral_nemo": (
        "<s>",
        "</s>",
        [f"[{mark}{name}]" for name in ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS") for mark in ("", "/")]
        + ["[TOOL_CALLS]"],
    ),
    "deepseek_llm": ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", DEEPSEEK_END, []),
}
"""Of each family the token that begins a text, the stop token, and the other control tokens."""
PLAIN = {"qwen3": ["<tool_call>", "</tool_call>", "<think>", "</think>"], "qwen2_5": ["<tool_call>", "</tool_call>"]}
"""Tokens of their own that are not control tokens."""


WORDS = r" ?[\p{L}\p{N}]+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Where tokens may not run across, much as in Llama 3's and Qwen's tokenizers."""


def build(family: str, words: str | None = WORDS) -> Any:
    """The shipped tiny tokenizer with the family's control tokens, its template, and word borders like the model's."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "recipes" / "tiny" / "base")
    if words is not None:
        split = pre_tokenizers.Split(Regex(words), "isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    bos, eos, others = SPECIAL[family]
    tokenizer.add_special_tokens({"bos_token": bos or eos, "eos_token": eos, "additional_special_tokens": others})
    tokenizer.add_tokens(PLAIN.get(family, []))
    tokenizer.response_template = None
    tokenizer.chat_template = trl_template(family) if family == "qwen2_5" else templates.read(family)
    use_training_template(tokenizer)
    return tokenizer


@pytest.fixture(scope="module", params=sorted(SPECIAL))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family: str) -> Any:
    return build(family)


ODD = {
    "city": 'Zürich "HB"',
    "date": "C:\\neu\n½",
    "hour": 8,
    "share": 0.5,
    "on": True,
    "tags": ["a", None],
    "of": {"k": {}},
}
CALL = ("weather__forecast", {"city": "Bern"})
TOOL = sft_row(0)["tools"][:1]


def row(*messages: Any, system: str = "") -> dict[str, Any]:
    head = [{"role": "system", "content": system}] if system else []
    asked = {"role": "user", "content": "What about Bern, and “HB”?"}
    said = [m if isinstance(m, dict) else {"role": "assistant", "content": m} for m in messages]
    return {"messages": [*head, asked, *said], "tools": TOOL, "meta": {"id": "r"}}


ROWS = {
    "answer": row("It is dry: 10 °C."),
    "system": row("It is dry.", system="Be brief."),
    "one call": row(calls(CALL), result("weather__forecast", 'dry,\n"10" degrees'), "Dry."),
    "many steps": row(
        calls(CALL),
        result("weather__forecast", '{"degrees": 10}'),
        calls(("shop__find_order", {"customer": "Ada"})),
        result("shop__find_order", "none"),
        "Nothing.",
        system="Be brief.",
    ),
    "odd values": row(calls(("excel__write", ODD)), result("excel__write", "ok"), "Done."),
    "no argument": row(calls(("clock__now", {})), result("clock__now", "noon"), "Noon."),
    "parallel": row(
        calls(CALL, ("clock__now", {})), result("weather__forecast", "dry"), result("clock__now", "noon"), "Dry, noon."
    ),
}


def written(family: str, message: dict[str, Any]) -> str:
    """What the family's model itself writes for an assistant message, by its published format."""
    made = [
        (c["function"]["name"], json.dumps(c["function"]["arguments"], ensure_ascii=False))
        for c in message.get("tool_calls", [])
    ]
    stop, words = SPECIAL[family][1], message["content"]
    if family == "llama3_1":
        assert len(made) < 2
        return (words or "".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in made)) + stop
    if family in ("mistral_v3", "mistral_nemo"):
        space = " " if family == "mistral_v3" else ""
        listed = ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in made)
        return (f"[TOOL_CALLS]{space}[{listed}]" if made else f"{space}{words}") + stop
    blocks = "\n".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in made)
    lead = {"deepseek_llm": " ", "qwen2_5": "", "qwen3": ""}[family]
    return lead + (blocks or words) + stop


@pytest.mark.parametrize("name", ROWS)
def test_trained_text_is_what_the_model_writes(tokenizer: Any, family: str, name: str) -> None:
    report = check_sft(tokenizer, [ROWS[name]], None)  # every proof of the check, parallel calls made linear
    encoded = report.encoded[0]
    turns = [m for m in ROWS[name]["messages"] if m["role"] == "assistant"]
    if name == "parallel" and family == "llama3_1":
        assert report.linear == 1
        turns = [{"content": "", "tool_calls": [c]} for c in turns[0]["tool_calls"]] + turns[1:]
    assert [tokenizer.decode(t) for t in encoded.targets] == [written(family, turn) for turn in turns]
    assert all(target[-1] == tokenizer.eos_token_id for target in encoded.targets)
    assert tokenizer.decode(encoded.input_ids).count("<think>\n\n</think>") == (len(turns) if family == "qwen3" else 0)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "parallel"])
def test_prompt_in_training_is_the_prompt_when_serving(tokenizer: Any, name: str) -> None:
    messages, tools = ROWS[name]["messages"], ROWS[name]["tools"]
    encoded = encode_conversation(tokenizer, messages, tools)
    places = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for i, (start, _) in zip(places, encoded.spans, strict=True):
        served = tokenizer.apply_chat_template(messages[:i], tools=tools, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(encoded.input_ids[:start]) == served
        assert encoded.input_ids[:start] == tokenizer(served, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", [name for name in ROWS if name != "parallel"])
def test_replies_are_read_back(tokenizer: Any, name: str) -> None:
    parse = reply_parser(tokenizer)
    messages = ROWS[name]["messages"]
    encoded = encode_conversation(tokenizer, messages, ROWS[name]["tools"])
    turns = [m for m in messages if m["role"] == "assistant"]
    for turn, (start, end) in zip(turns, encoded.spans, strict=True):
        prompt, text = (tokenizer.decode(part) for part in (encoded.input_ids[:start], encoded.input_ids[start:end]))
        reply = read_reply(text, lambda said, prompt=prompt: parse(said, prompt, []))
        assert reply.calls == calls_of(turn)
        assert turn.get("tool_calls") or parse(text, prompt, [])["content"] == turn["content"]


@pytest.mark.parametrize("name", [name for name in ROWS if name != "parallel"])
def test_a_token_across_the_beginning_of_an_answer_is_never_learnt(family: str, name: str) -> None:
    """The shipped tokenizer joins any signs, so `:` and what follows are one token that no server would see."""
    joining, row_ = build(family, words=None), ROWS[name]
    report = check_sft(joining, [row_], None)
    turns = [i for i, m in enumerate(row_["messages"]) if m["role"] == "assistant"]
    targets = [
        (encoded.input_ids[:start], encoded.input_ids[start:end])
        for encoded in report.encoded
        for start, end in encoded.spans
    ]
    for i, (prompt, target) in zip(turns, targets, strict=True):
        assert prompt == render_ids(joining, row_["messages"][:i], row_["tools"], serve=True)
        assert joining.decode(target) == written(family, row_["messages"][i])
    assert (report.turn_by_turn > 0) == (family in ("llama3_1", "deepseek_llm") and len(turns) > 1)


def test_a_reply_that_breaks_off_or_lacks_a_part_is_unreadable(tokenizer: Any, family: str) -> None:
    parse = reply_parser(tokenizer)
    prompt = tokenizer.decode(render_ids(tokenizer, ROWS["answer"]["messages"][:1], TOOL, serve=True))
    whole = written(family, calls(CALL))
    for text in (whole[:-25], whole.replace('"arguments"', '"args"').replace('"name"', '"nome"')):
        assert not read_reply(text, lambda said: parse(said, prompt, [])).calls


def test_no_pair_left_by_a_template_of_one_call_a_turn_is_said_so() -> None:
    """A wrong turn that only stops early has no wrong answer of its own where calls come one after the other."""
    chosen, *_ = ROWS["parallel"]["messages"][1:]
    early = {**chosen, "tool_calls": chosen["tool_calls"][:1]}
    sides = {"prompt": ROWS["parallel"]["messages"][:1], "chosen": [chosen], "rejected": [[early]]}
    with pytest.raises(UserError, match=r"no row is left to train on \(1 pairs fell away where a template of one call"):
        check_preference(build("llama3_1"), [{**ROWS["parallel"], **sides}], None)


def test_preference_groups(tokenizer: Any, family: str) -> None:
    rows = [sft_row(i) for i in range(6)]
    groups = [group for r in rows for group in preference_rows(r)]
    report = check_preference(tokenizer, groups, None, conversations={r["meta"]["id"]: r["messages"] for r in rows})
    assert report.rows == sum(len(g["rejected"]) for g in groups)
    assert report.lost == 0
    for pair in report.pairs:
        assert pair.chosen_ids != pair.rejected_ids
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == tokenizer.eos_token_id


def test_arguments_as_json_text_are_trained_as_an_object(tokenizer: Any) -> None:
    as_text = json.loads(json.dumps(ROWS["odd values"]))
    function = as_text["messages"][1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    one, other = (check_sft(tokenizer, [r], None).encoded[0] for r in (ROWS["odd values"], as_text))
    assert one.targets == other.targets
    function["arguments"] = "[1]"
    with pytest.raises(UserError, match=r"sft row 0 \(id r\): .*the arguments are no JSON object"):
        check_sft(tokenizer, [as_text], None)


def test_only_llama_has_one_call_a_turn(tokenizer: Any, family: str) -> None:
    assert takes_parallel_calls(tokenizer) == (family != "llama3_1")


def test_the_choice_and_its_reader_travel_with_the_model(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == tokenizer.chat_template
    assert again.response_template == tokenizer.response_template is not None
    assert templates.fit(again) == ""


@pytest.mark.parametrize("name", [name for name in ROWS if name != "parallel"])
@pytest.mark.parametrize(("family_name", "stock"), [("llama3_1", "llama3_1"), ("qwen3", "qwen3")])
def test_our_rendering_is_the_published_one(family_name: str, stock: str, name: str) -> None:
    tokenizer = build(family_name)
    ours, published = (
        tokenizer.apply_chat_template(ROWS[name]["messages"], tools=TOOL, tokenize=False, chat_template=template)
        for template in (templates.read(family_name), trl_template(stock))
    )
    thought = "<think>\n\n</think>\n\n"
    assert re.sub(thought, "", ours) == re.sub(thought, "", published)


@pytest.mark.parametrize(("name", "space"), [("mistral_v3", " "), ("mistral_nemo", "")])
def test_mistral_is_written_as_its_own_tokenizer_writes_it(name: str, space: str) -> None:
    """The text that mistral-common 1.9's v3 tokenizers give for this conversation, with calls that have no id."""
    messages = ROWS["many steps"]["messages"]
    text = build(name).apply_chat_template(messages, tools=TOOL, tokenize=False)
    assert text == (
        f"<s>[AVAILABLE_TOOLS]{space}{json.dumps(TOOL)}[/AVAILABLE_TOOLS]"
        f"[INST]{space}Be brief.\n\nWhat about Bern, and “HB”?[/INST]"
        f'[TOOL_CALLS]{space}[{{"name": "weather__forecast", "arguments": {{"city": "Bern"}}}}]</s>'
        f'[TOOL_RESULTS]{space}{{"content": {{"degrees": 10}}, "call_id": "000000001"}}[/TOOL_RESULTS]'
        f'[TOOL_CALLS]{space}[{{"name": "shop__find_order", "arguments": {{"customer": "Ada"}}}}]</s>'
        f'[TOOL_RESULTS]{space}{{"content": "none", "call_id": "000000002"}}[/TOOL_RESULTS]{space}Nothing.</s>'
    )


def test_mistral_moves_tools_with_the_last_user_so_turns_train_apart() -> None:
    tokenizer = build("mistral_v3")
    later = row(
        calls(CALL), result("weather__forecast", "dry"), "Dry.", {"role": "user", "content": "And Oslo?"}, "Wet."
    )
    report = check_sft(tokenizer, [later], None)
    assert (report.rows, report.turn_by_turn, len(report.encoded)) == (1, 1, 3)
    assert [tokenizer.decode(e.targets[0]) for e in report.encoded] == [
        written("mistral_v3", m) for m in later["messages"] if m["role"] == "assistant"
    ]
    for place, encoded in zip((1, 3, 5), report.encoded, strict=True):
        served = render_ids(tokenizer, later["messages"][:place], TOOL, serve=True)
        assert encoded.input_ids[: encoded.spans[0][0]] == served


def test_mistral_says_tools_and_system_text_once_with_the_last_user() -> None:
    head = row("Dry.", {"role": "user", "content": "And Oslo?"}, system="Be brief.")["messages"]
    text = build("mistral_v3").apply_chat_template(head, tools=TOOL, tokenize=False)
    assert text == (
        f"<s>[INST] What about Bern, and “HB”?[/INST] Dry.</s>[AVAILABLE_TOOLS] {json.dumps(TOOL)}[/AVAILABLE_TOOLS]"
        "[INST] Be brief.\n\nAnd Oslo?[/INST]"
    )


def test_deepseek_lists_the_tools_before_the_first_turn() -> None:
    tokenizer = build("deepseek_llm")
    text = tokenizer.apply_chat_template(ROWS["many steps"]["messages"], tools=TOOL, tokenize=False)
    head, _, talk = text.partition("User: ")
    assert head.startswith(tokenizer.bos_token + "Be brief.\n\n")
    assert json.dumps(TOOL[0]["function"]) in head
    assert talk.startswith("What about Bern, and “HB”?\n\nAssistant: <tool_call>\n")
    assert 'User: <tool_response>\n{"degrees": 10}\n</tool_response>\n\nAssistant: ' in text


STOCK = {
    "llama3_1": trl_template("llama3_1"),
    "qwen3": trl_template("qwen3"),
    "mistral_v3": "{{ '[AVAILABLE_TOOLS] [' }}{{ '[TOOL_CALLS] [' }}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}",
    "mistral_nemo": "{{ '[AVAILABLE_TOOLS][' }}{{ '[TOOL_CALLS][' }}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}",
    "deepseek_llm": "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("name", STOCK)
def test_an_unfit_stock_template_is_replaced_aloud(name: str) -> None:
    tokenizer = build(name)
    tokenizer.chat_template, tokenizer.response_template = STOCK[name].replace("\n\n' }}", "\\n\\n' }}"), None
    line = use_training_template(tokenizer)
    assert line.startswith(f"chat template: {name} instead of the stock one (it ")
    assert tokenizer.chat_template == templates.read(name)
    assert tokenizer.response_template is not None


@pytest.mark.parametrize(
    "name", ["qwen2_5", "qwen3_instruct_2507", "qwen3_vl", "qwen3_5_think", "glm4moe", "qwen3_training"]
)
def test_other_templates_are_left_to_trl(name: str) -> None:
    tokenizer = build("qwen2_5")
    tokenizer.chat_template = trl_template(name)
    assert templates.fit(tokenizer) == ""
    assert tokenizer.chat_template == trl_template(name)


def test_a_recipe_names_a_template_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    assert templates.read(str(tmp_path / "own.jinja")) == "{{ messages }}"
    assert "[TOOL_CALLS]" in templates.read("mistral_v3")
    with pytest.raises(UserError, match=r"chat_template_path: mistral_v9 cannot be read; expected .* llama3_1, qwen3"):
        templates.read("mistral_v9")


def test_an_empty_thought_is_never_trained() -> None:
    tokenizer = build("qwen3")
    tokenizer.chat_template = trl_template("qwen3_training")
    with pytest.raises(UserError, match="an empty thought is in the tokens to learn"):
        check_sft(tokenizer, [ROWS["one call"]], None)


def test_text_beside_a_call_is_refused_where_the_format_has_no_room_for_it() -> None:
    both = calls(CALL) | {"content": "One moment."}
    for name in ("llama3_1", "mistral_v3", "mistral_nemo"):
        with pytest.raises(UserError, match=r"the chat template refuses this conversation: .*no text beside"):
            check_sft(build(name), [row(both)], None)
    stock = build("llama3_1")
    stock.chat_template = trl_template("llama3_1")  # drops it without a word
    with pytest.raises(UserError, match=r"the answer 'One moment.' is not in the tokens to learn"):
        check_sft(stock, [row(both)], None)


def test_a_tokenizer_may_put_letters_and_their_accents_together() -> None:
    """As Qwen's do, so that no model of theirs ever sees or writes the two as they are in the row."""
    from tokenizers import normalizers

    tokenizer = build("qwen3")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    apart = "Cafe\u0301 Zu\u0308rich"
    row_ = row(calls(("weather__forecast", {"city": apart})), result("weather__forecast", apart), f"Dry in {apart}.")
    report = check_sft(tokenizer, [row_], None)
    assert tokenizer.decode(report.encoded[0].targets[0]).count("Café Zürich") == 1
    wrong = calls(("weather__forecast", {"city": "Cafe Zürich"}))
    group = {"prompt": row_["messages"][:1], "chosen": [row_["messages"][1]], "rejected": [[wrong]]}
    assert check_preference(tokenizer, [{**row_, **group}], None).rows == 1
    same = calls(("weather__forecast", {"city": "Café Zürich"}))
    with pytest.raises(UserError, match="a rejected answer has the same tokens as the chosen one"):
        check_preference(tokenizer, [{**row_, **group, "rejected": [[same]]}], None)


def test_a_call_that_reads_back_as_another_is_refused() -> None:
    tokenizer = build("qwen3")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "c.arguments | tojson)", "(c.arguments | tojson).replace('8', '\"8\"'))"
    )
    assert check_sft(tokenizer, [ROWS["one call"]], None).rows == 1
    with pytest.raises(UserError, match=r'the calls in the tokens to learn read back as .*"hour": "8"'):
        check_sft(tokenizer, [ROWS["odd values"]], None)
