"""The proofs of the pre-flight check, each about one row and its token ids. A failed one raises `UserError`.

A letter and its accent are compared as one sign (Unicode's NFC), since some tokenizers (Qwen's) put them together in
whatever they read, when serving as in training.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from eval.replies.calls import calls_of, exact, read_reply
from rise_train.rows.masking import Encoded
from synthesis.errors import UserError

Row = dict[str, Any]
Reader = Callable[[str, str, list[Row]], Mapping[str, Any]]
"""Reads a reply as evaluation does: (reply, prompt, tools) to assistant message."""
NEAR = 64
"""Tokens of the prompt's end that a reader needs to see, to know where the reply begins."""


def reader_of(tokenizer: Any) -> Reader | None:
    """How evaluation reads this tokenizer's replies; None where the tokenizer does not say it itself."""
    from eval.replies.parsing import reply_parser

    return reply_parser(tokenizer) if tokenizer.response_template is not None else None


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The exact text of token ids, control tokens included."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def prove_conversation(tokenizer: Any, row: Row, encoded: Encoded, reader: Reader | None = None) -> None:
    """All proofs on one SFT sequence: calls learnt, the rest not, no control token, and the template's markers agree.

    The sequence has a target for every assistant message, or for the last of them alone.
    """
    turns = [message for message in row["messages"] if message["role"] == "assistant"]
    for message, (start, end) in zip(turns[-len(encoded.spans) :], encoded.spans, strict=True):
        prove_answer(tokenizer, message, encoded.input_ids[:start], encoded.input_ids[start:end], row["tools"], reader)
    free = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label == -100]
    prove_untrained(tokenizer, row["messages"], free)
    prove_no_control(tokenizer, row["messages"])
    if encoded.marked is not None:
        _prove_markers(tokenizer, encoded, encoded.marked)


def prove_answer(
    tokenizer: Any, message: Row, prompt: list[int], target: list[int], tools: list[Row], reader: Reader | None
) -> None:
    """All proofs on one assistant message and the tokens to learn for it: what is said, no empty thought, read back."""
    message, text = _composed(message), _composed(text_of(tokenizer, target))
    prove_calls(message, text)
    if re.search(r"<think>\s*</think>", text):
        raise UserError(
            f"an empty thought is in the tokens to learn: {text[:80]!r}; leave `chat_template_path` out, or name a "
            "template that writes no thoughts"
        )
    if reader is not None:
        _prove_read_back(reader, message, text_of(tokenizer, prompt[-NEAR:]), text, tools)


def prove_calls(message: Row, text: str) -> None:
    """Every tool name, argument name and value stands in the text of the target, call by call in order; so do words."""
    at = 0
    for call in message.get("tool_calls") or []:
        function = call["function"]
        at = text.find(function["name"], at)
        missing = function["name"] if at < 0 else _missing_leaf(text[at:], function["arguments"])
        if missing is not None:
            raise UserError(f"{missing!r} of the call to {function['name']} is not in the tokens to learn: {text!r}")
        at += len(function["name"])
    if _squeeze(message["content"] or "") not in _squeeze(text):
        raise UserError(f"the answer {message['content']!r} is not in the tokens to learn: {text!r}")


def _prove_read_back(reader: Reader, message: Row, prompt: str, text: str, tools: list[Row]) -> None:
    """What evaluation would read in the learnt reply is the row's calls, value by value and type by type."""
    reply = read_reply(text, lambda said: reader(said, prompt, tools))
    wanted = calls_of(message)
    same = len(reply.calls) == len(wanted) and all(
        read.name == call.name and exact(read.arguments, call.arguments)
        for read, call in zip(reply.calls, wanted, strict=True)
    )
    if not same:
        found = "; ".join(json.dumps(call.as_dict(), ensure_ascii=False) for call in reply.calls) or reply.problem
        raise UserError(f"the calls in the tokens to learn read back as {found}: {text!r}")


def _missing_leaf(text: str, value: Any) -> str | None:
    """The first name or scalar of a JSON value that `text` holds in no usual spelling; None if all are there."""
    if isinstance(value, dict):
        parts = [part for key, item in value.items() for part in (key, item)]
        return next((m for m in (_missing_leaf(text, p) for p in parts) if m is not None), None)
    if isinstance(value, list):
        return next((m for m in (_missing_leaf(text, p) for p in value) if m is not None), None)
    return None if any(spelling in text for spelling in _spellings(value)) else str(value)


def _spellings(value: Any) -> list[str]:
    plain = json.dumps(value, ensure_ascii=False)
    both = [plain, json.dumps(value)] + ([value] if isinstance(value, str) else [str(value)])
    # Templates that take the arguments as a JSON string write every quote once more.
    inner = [s[1:-1] for s in both[:2]] if isinstance(value, str) else []
    return [*both, *inner, *(json.dumps(s, ensure_ascii=False)[1:-1] for s in [*both, *inner])]


def prove_untrained(tokenizer: Any, messages: list[Row], free: list[int]) -> None:
    """The user's words and the tools' results all stand, in order, in the tokens without loss.

    As they are, or as a JSON string; the system text wherever the template puts it.
    """
    text, at = _squeeze(_composed(text_of(tokenizer, free))), 0
    for message in map(_composed, messages):
        if message["role"] == "assistant" or not message["content"]:
            continue
        words = _squeeze(message["content"])
        quoted = _squeeze(json.dumps(message["content"], ensure_ascii=False)[1:-1])
        start = 0 if message["role"] == "system" else at
        found = next(((p, w) for w in (words, quoted) if (p := text.find(w, start)) >= 0), None)
        if found is None:
            raise UserError(f"the {message['role']} message {words[:80]!r} is not in the tokens without loss")
        at = at if message["role"] == "system" else found[0] + len(found[1])


def prove_no_control(tokenizer: Any, messages: list[Row]) -> None:
    """No message holds a control token: it would end the turn or forge one. Raises `UserError`."""
    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for message in messages:
        text = (message["content"] or "") + json.dumps(message.get("tool_calls") or [], ensure_ascii=False)
        hit = next((token for token in control if token in text), None)
        if hit:
            raise UserError(f"the {message['role']} message holds the control token {hit!r}: {text[:80]!r}")


def _prove_markers(tokenizer: Any, encoded: Encoded, marked: list[int]) -> None:
    """The template's own generation markers agree, up to blank tokens at the edges of a turn."""
    labels = encoded.labels
    for i, token in enumerate(encoded.input_ids):
        trained, by_marker = labels[i] != -100, bool(marked[i])
        if trained != by_marker and tokenizer.decode([token]).strip():
            who = "our mask" if trained else "the template's generation marker"
            raise UserError(f"only {who} gives loss to the token {tokenizer.decode([token])!r} at position {i}")


def _composed(value: Any) -> Any:
    """Text, or JSON of any depth, in Unicode's composed form (NFC)."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {_composed(key): _composed(item) for key, item in value.items()}
    return [_composed(item) for item in value] if isinstance(value, list) else value


def _squeeze(text: str) -> str:
    return " ".join(text.split())
