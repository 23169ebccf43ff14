"""Why a critical parameter was missed: what stands in its place, and where that comes from.

Only some causes are what a preference pair of mutated values speaks of: the model had the right tool and took another
value that was at hand. A call that is not there, or text that no reading of the prompt gives, is something else.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eval.replies.calls import Call, Reply, Toolbox
from eval.scores.metrics import align, met
from synthesis.records import Json

CAUSES = {
    "unreadable": "no call can be read in the reply",
    "other_tool": "the call is not there; another tool, or none, was called",
    "left_out": "the call lacks the argument",
    "of_request": "another value that the request says",
    "of_result": "a value that an earlier call or its result holds",
    "miscopied": "most of the right value, with mistakes",
    "invented": "a value from nowhere in the prompt",
}
"""Each cause of a missed parameter; the first that fits counts."""
NEAR = 0.6
"""Similarity (`difflib`, 0 to 1) from which a wrong value counts as the right one with mistakes."""


def missed(
    messages: Sequence[Mapping[str, Json]],
    gold: Sequence[Call],
    critical: Sequence[Mapping[str, Json]],
    reply: Reply,
    tools: Toolbox,
) -> list[dict[str, Json]]:
    """The critical parameters of a turn that the reply does not meet, each with "call", "parameter" and "cause".

    Args:
        messages: what the model saw before the turn.
    """
    aligned = align(gold, reply.calls, critical, tools)
    found = []
    for entry in critical:
        call = reply.calls[aligned[entry["call"]]] if entry["call"] in aligned else None
        if call is None or not met(entry, call, tools):
            cause = "unreadable" if reply.problem else _cause(messages, entry, call, tools)
            found.append({"call": entry["call"], "parameter": entry["parameter"], "cause": cause})
    return found


def tally(tasks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each cause occurs in the tasks of a result file."""
    counts = Counter(entry["cause"] for task in tasks for turn in task["turns"] for entry in turn["missed"])
    return {cause: counts[cause] for cause in CAUSES}


def _cause(messages: Sequence[Mapping[str, Json]], entry: Mapping[str, Json], call: Call | None, tools: Toolbox) -> str:
    if call is None:
        return "other_tool"
    arguments = tools.filled(call)
    if entry["parameter"] not in arguments:
        return "left_out"
    said, right = _text(arguments[entry["parameter"]]), _text(entry["value"])
    asked = [str(message["content"]) for message in messages if message["role"] == "user"]
    known = [_text(message) for message in messages if message["role"] in ("assistant", "tool")]
    if any(_stands_in(said, text) for text in asked):
        return "of_request"
    if any(_stands_in(said, text) for text in known):
        return "of_result"
    return "miscopied" if difflib.SequenceMatcher(None, said, right).ratio() >= NEAR else "invented"


def _text(value: Json) -> str:
    return " ".join(str(value).lower().split())


def _stands_in(value: str, text: str) -> bool:
    """Whether the value stands in the text as whole words."""
    return value != "" and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", _text(text)) is not None
