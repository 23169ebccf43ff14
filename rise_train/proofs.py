"""The proofs of the pre-flight check, each about one row and its token ids. A failed one raises `UserError`."""

import json
from typing import Any

from rise_train.masking import Encoded
from synthesis.errors import UserError

Row = dict[str, Any]


def prove_conversation(tokenizer: Any, row: Row, encoded: Encoded) -> None:
    """All proofs on one SFT row: calls learnt, the rest not, no control token, and the template's own markers agree."""
    turns = [message for message in row["messages"] if message["role"] == "assistant"]
    for message, target in zip(turns, encoded.targets, strict=True):
        prove_calls(tokenizer, message, target)
    free = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label == -100]
    prove_untrained(tokenizer, row["messages"], free)
    prove_no_control(tokenizer, row["messages"])
    if encoded.marked is not None:
        _prove_markers(tokenizer, encoded, encoded.marked)


def prove_calls(tokenizer: Any, message: Row, target: list[int]) -> None:
    """Every tool name, argument name and value stands in the decoded target, call by call in order."""
    text, at = tokenizer.decode(target, skip_special_tokens=False), 0
    for call in message.get("tool_calls") or []:
        function = call["function"]
        at = text.find(function["name"], at)
        missing = function["name"] if at < 0 else _missing_leaf(text[at:], function["arguments"])
        if missing is not None:
            raise UserError(f"{missing!r} of the call to {function['name']} is not in the tokens to learn: {text!r}")
        at += len(function["name"])
    if not message.get("tool_calls") and _squeeze(message["content"]) not in _squeeze(text):
        raise UserError(f"the answer {message['content']!r} is not in the tokens to learn: {text!r}")


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
    """The user's words and the tools' results all stand, in order, in the tokens without loss."""
    text, at = _squeeze(tokenizer.decode(free, skip_special_tokens=False)), 0
    for message in messages:
        if message["role"] == "assistant" or not message["content"]:
            continue
        words = _squeeze(message["content"])
        found = text.find(words, at)
        if found < 0:
            raise UserError(f"the {message['role']} message {words[:80]!r} is not in the tokens without loss")
        at = found + len(words)


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


def _squeeze(text: str) -> str:
    return " ".join(text.split())
