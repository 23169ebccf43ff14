"""Parallel calls made one after the other, for chat templates that have room for one call a turn (Llama 3.1).

The assistant's turn with n calls and its n results becomes n turns: call, result, call, result. Nothing is executed
again, and nothing is lost: the calls of a parallel turn do not depend on each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from synthesis.errors import UserError
from synthesis.seeds import digest

Row = dict[str, Any]
Message = dict[str, Any]
MARK = "one_at_a_time"
"""The key of a row's `meta` that records what was done to it."""
BLOCKS = "calls_a_turn"
"""The key of a row's `meta` under which the turns' numbers of calls stand, as they were before."""


def takes_parallel_calls(tokenizer: Any) -> bool:
    """Whether the chat template shows two calls of one turn; some refuse them, and some drop the second."""
    from jinja2 import TemplateError

    calls = [{"type": "function", "function": {"name": f"probe_{c}", "arguments": {"of": c}}} for c in "ab"]
    results = [{"role": "tool", "name": f"probe_{c}", "content": c} for c in "ab"]
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError):
        return False
    return "probe_a" in text and "probe_b" in text


def linear_messages(messages: Sequence[Message]) -> list[Message]:
    """The conversation with one call a turn; text beside the calls goes with the first of them.

    Raises `UserError` where results do not follow the calls, one for each. A last turn without results keeps none.
    """
    out: list[Message] = []
    at = 0
    while at < len(messages):
        message, calls = messages[at], messages[at].get("tool_calls") or []
        at += 1
        if len(calls) < 2:
            out.append(message)
            continue
        results = list(messages[at : at + len(calls)])
        at += len(results)
        if results and [m["role"] for m in results] != ["tool"] * len(calls):
            raise UserError(f"{len(calls)} calls of one turn are not followed by {len(calls)} results")
        for i, turn in enumerate(_turns(message)):
            out += [turn, *results[i : i + 1]]
    return out


def linear_row(row: Row) -> Row:
    """An SFT row with one call a turn; `meta.critical` follows, `meta.one_at_a_time` counts the turns that changed.

    `meta.calls_a_turn` lists how many calls each turn had.
    """
    turns = [len(m["tool_calls"]) for m in row["messages"] if m.get("tool_calls")]
    if max(turns, default=0) < 2:
        return row
    first = [sum(turns[:turn]) for turn in range(len(turns))]
    critical = [{**c, "turn": first[c["turn"]] + c["call"], "call": 0} for c in row["meta"].get("critical", [])]
    meta = {**row["meta"], "critical": critical, MARK: sum(n > 1 for n in turns), BLOCKS: turns}
    return {**row, "messages": linear_messages(row["messages"]), "meta": meta}


def linear_groups(group: Row, conversation: Sequence[Message] | None) -> tuple[list[Row], int]:
    """A preference group as groups of one call a turn, and how many of its pairs fell away.

    A wrong turn is compared with the right one call by call. The pair is then at the first call that differs, and the
    calls before it, with their results, are history. `conversation` is the sample's whole SFT row, where the results
    are; without it only pairs that differ in the first call remain. A wrong turn that merely stops early has no wrong
    answer of its own, since nobody knows what it would have said next.
    """
    chosen = group["chosen"][0]
    if all(len(turn.get("tool_calls") or []) < 2 for turn in (chosen, *(r[0] for r in group["rejected"]))):
        return [{**group, "prompt": linear_messages(group["prompt"])}], 0
    prompt = linear_messages(group["prompt"])
    start = len(group["prompt"])
    known = conversation is not None and conversation[start : start + 1] == group["chosen"]
    line = linear_messages(conversation) if conversation and known else [*prompt, _turns(chosen)[0]]
    right, wrong = _turns(chosen), [_turns(rejected[0]) for rejected in group["rejected"]]
    places: dict[int, list[int]] = {}
    for k, turns in enumerate(wrong):
        call = next((i for i, turn in enumerate(turns) if i >= len(right) or turn != right[i]), None)
        at = len(prompt) + 2 * call if call is not None else len(line)
        if call is not None and at < len(line) and line[at]["role"] == "assistant" and line[at] != turns[call]:
            places.setdefault(call, []).append(k)
    groups = [
        _at_call(group, call, line[: len(prompt) + 2 * call + 1], {k: wrong[k][call] for k in picks})
        for call, picks in sorted(places.items())
    ]
    return groups, len(wrong) - sum(len(g["rejected"]) for g in groups)


def _at_call(group: Row, call: int, line: list[Message], wrong: Mapping[int, Message]) -> Row:
    """The group of the pairs that first differ in `call`; `line` ends with its right answer. Equal ones count once."""
    kept = {k: turn for k, turn in wrong.items() if turn not in [wrong[j] for j in wrong if j < k]}
    meta = group["meta"]
    changed: Row = {"id": digest(MARK, meta["id"], call), MARK: {"group": meta["id"], "call": call}}
    changed["critical"] = _only(meta.get("critical", []), call)
    if "negatives" in meta:
        picked = [meta["negatives"][k] for k in kept]
        changed["negatives"] = [{**n, "mutations": _only(n["mutations"], call)} for n in picked]
    rejected = [[turn] for turn in kept.values()]
    return {**group, "prompt": line[:-1], "chosen": line[-1:], "rejected": rejected, "meta": {**meta, **changed}}


def _only(entries: Sequence[Row], call: int) -> list[Row]:
    return [{**entry, "call": 0} for entry in entries if entry["call"] == call]


def _turns(message: Message) -> list[Message]:
    """One message for each call; the message itself where it has none."""
    calls = message.get("tool_calls") or []
    parts = [{**message, "content": "" if i else message["content"], "tool_calls": [c]} for i, c in enumerate(calls)]
    return parts or [message]
