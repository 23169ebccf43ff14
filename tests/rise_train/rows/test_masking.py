"""Loss falls on what the assistant says and on its stop token, and on nothing else, whatever the template."""

from pathlib import Path
from typing import Any

import pytest
from handmade import ROOT, TOOL_NAMES, build_tokenizer, calls, result, sft_row, trl_template

from rise_train.rows.check import check_sft
from rise_train.rows.masking import MaskError, encode_conversation, encode_turn, use_training_template
from synthesis.errors import UserError


def tiny_tokenizer() -> Any:
    """The shipped base's tokenizer; before the base exists, one built as it was, on a little text."""
    from transformers import AutoTokenizer

    shipped = ROOT / "recipes" / "tiny" / "base"
    if (shipped / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(shipped)
    from rise_train.tiny.tokenizer import build_tokenizer as build

    return build([str(sft_row(i)) for i in range(12)], 800)


@pytest.fixture(params=["tiny", "qwen2_5", "qwen3"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    built = tiny_tokenizer() if request.param == "tiny" else build_tokenizer(trl_template(request.param))
    use_training_template(built)
    return built


@pytest.mark.parametrize("index", range(6))
def test_only_the_assistant_carries_loss(tokenizer: Any, index: int) -> None:
    row = sft_row(index)
    encoded = encode_conversation(tokenizer, row["messages"], row["tools"])
    trained = [tokenizer.decode(target) for target in encoded.targets]
    free = tokenizer.decode([t for t, label in zip(encoded.input_ids, encoded.labels, strict=True) if label == -100])

    turns = [m for m in row["messages"] if m["role"] == "assistant"]
    assert len(trained) == len(turns)
    for text, turn in zip(trained, turns, strict=True):
        assert text.endswith(tokenizer.eos_token)
        assert text.count(tokenizer.eos_token) == 1
        for call in turn.get("tool_calls", []):
            assert call["function"]["name"] in text
            assert all(str(value) in text for value in call["function"]["arguments"].values())
    for message in row["messages"]:
        if message["role"] != "assistant":
            assert message["content"] in free
            assert not any(message["content"] in text for text in trained)
    # The names of tools that are offered but not called are nowhere in what is learnt: schemas carry no loss.
    called = {call["function"]["name"] for turn in turns for call in turn.get("tool_calls", [])}
    for name in set(TOOL_NAMES) - called:
        assert name in free
        assert not any(name in text for text in trained)


def test_target_begins_where_the_serving_prompt_ends(tokenizer: Any) -> None:
    row = sft_row(1)
    encoded = encode_conversation(tokenizer, row["messages"], row["tools"])
    for (start, _), i in zip(encoded.spans, (1, 3, 5), strict=True):
        served = tokenizer.apply_chat_template(
            row["messages"][:i], tools=row["tools"], add_generation_prompt=True, return_dict=False
        )
        assert encoded.input_ids[:start] == served


def test_both_stages_learn_the_same_tokens(tokenizer: Any) -> None:
    row = sft_row(1)
    encoded = encode_conversation(tokenizer, row["messages"], row["tools"])
    prompt, answer = encode_turn(tokenizer, row["messages"][:3], row["messages"][3], row["tools"])
    assert (prompt, answer) == (encoded.input_ids[: encoded.spans[1][0]], encoded.targets[1])


def test_the_templates_own_markers_agree(tokenizer: Any) -> None:
    row = sft_row(2)
    encoded = encode_conversation(tokenizer, row["messages"], row["tools"])
    assert encoded.marked is not None
    by_marker = tokenizer.decode([t for t, m in zip(encoded.input_ids, encoded.marked, strict=True) if m])
    assert "".join(by_marker.split()) == "".join("".join(map(tokenizer.decode, encoded.targets)).split())


def test_works_without_markers() -> None:
    tokenizer = build_tokenizer(trl_template("qwen2_5"))  # as it comes: no markers
    row = sft_row(0)
    with_markers = build_tokenizer(trl_template("qwen2_5"))
    assert use_training_template(with_markers)
    plain, marked = (encode_conversation(t, row["messages"], row["tools"]) for t in (tokenizer, with_markers))
    assert plain.marked is None
    assert (plain.input_ids, plain.spans) == (marked.input_ids, marked.spans)


def test_a_template_that_rewrites_history_is_refused() -> None:
    tokenizer = build_tokenizer(trl_template("qwen3"))  # as it comes: empty thoughts vanish once a tool has answered
    row = sft_row(1)
    with pytest.raises(MaskError, match="the prompt in training is not the prompt when serving"):
        encode_conversation(tokenizer, row["messages"], row["tools"])


def test_a_template_without_its_stop_token_is_refused(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.eos_token = "<|endoftext|>"
    row = sft_row(0)
    with pytest.raises(MaskError, match="does not end an assistant turn with the stop token"):
        encode_conversation(tokenizer, row["messages"], row["tools"])


def test_a_template_that_drops_results_is_refused() -> None:
    tokenizer = build_tokenizer(
        "{{ tools | tojson if tools }}{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(UserError, match="does not render tool calls"):
        use_training_template(tokenizer)


def test_check_agrees_on_values_of_every_kind(tokenizer: Any) -> None:
    arguments = {"cells": [["a", 1], ["b", 2.5]], "path": 'C:\\x "y"', "on": True, "none": None, "näme": "Zoë ½"}
    messages = [
        {"role": "user", "content": "Write it."},
        calls(("excel__write", arguments), ("excel__write", {"cells": [], "deep": {"k": [0, -1e-3]}})),
        result("excel__write", 'ok\n{"rows": 2}'),
        {"role": "assistant", "content": "Done."},
    ]
    row = {"messages": messages, "tools": sft_row(0)["tools"], "meta": {"id": "x"}}
    assert check_sft(tokenizer, [row], None).rows == 1
