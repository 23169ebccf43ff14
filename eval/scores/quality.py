"""Quality of data (RISE, research question 1, section 4.2), as far as a rule can tell.

The paper scores eight things, one by exact string matching and seven by GPT-4o from 1 to 5. Four of the eight need no
judge: whether names and values are what the tools allow, whether a call is made twice, and whether values are those
that the user gave. They are the same rules for every dataset, so that none of ours is measured by labels of our own.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.replies.calls import Call, Toolbox, exact
from eval.scores.stats import ratio_interval
from synthesis.records import Json
from synthesis.text.equality import same_meaning
from synthesis.text.evidence import supported

REFERENCE = re.compile(r"\$\{|^\$\w|^API_call_\d+$")
"""A value that stands for another call's result, as benchmarks write it."""
SPAN = 5
"""Words of a request that are compared with a value as a whole, at most."""


@dataclass(frozen=True)
class Example:
    """One request with the calls that its dataset gives as right."""

    id: str
    request: str
    tools: Sequence[dict[str, Json]]
    """In the OpenAI format."""
    calls: Sequence[Call]
    results: Sequence[str] = ()
    """What the calls brought, in their order, as far as the dataset says so."""
    response: str | None = None
    """The closing words; None where the dataset has none."""
    solved: bool | None = None
    """Whether a person found the task solved; None where nobody said."""


RULES = {
    "call_conciseness": "calls that do not repeat an earlier one, letter by letter",
    "name_validity": "calls whose tool is offered and knows the arguments' names",
    "value_validity": "argument values that fit the tool's schema",
    "value_consistency": "argument values that the request says, of those that no result and no default gives",
}
JUDGED = ("naturalness", "tool_relevance", "chain_coherence", "response_correctness")
"""What a rule cannot tell."""
PAPER = {
    "RISE": {
        "naturalness": 0.96,
        "tool_relevance": 0.97,
        "chain_coherence": 0.98,
        "name_validity": 0.98,
        "value_validity": 0.99,
        "value_consistency": 0.93,
        "response_correctness": 0.74,
    },
    "ToolBench": {
        "naturalness": 0.95,
        "tool_relevance": 0.80,
        "value_consistency": 0.77,
        "response_correctness": 0.17,
    },
    "ToolAlpaca": {"tool_relevance": 0.80, "value_consistency": 0.79},
    "STE": {"response_correctness": 0.58},
    "GPT4Tools": {"naturalness": 0.95, "response_correctness": 0.57},
}
"""Figure 3 of the paper, as far as its text gives the numbers; all judged by GPT-4o."""


def counts_of(example: Example) -> dict[str, tuple[int, int]]:
    """For each rule how many of the example's calls or values keep it, and how many there are."""
    box = Toolbox(example.tools)
    found = {name: [0, 0] for name in RULES}

    def add(name: str, holds: bool) -> None:
        found[name][0] += holds
        found[name][1] += 1

    for at, call in enumerate(example.calls):
        add("call_conciseness", not any(_same(call, earlier) for earlier in example.calls[:at]))
        if not example.tools:  # by schemas that are not there nothing can be judged
            continue
        known = box.parameters(call.name)
        names = set(call.arguments if known is None else known)
        add("name_validity", call.name in box.schemas and set(call.arguments) <= names)
        told = "\n".join(example.results[:at])
        for name, value in call.arguments.items():
            if call.name not in box.schemas or name not in names or _refers(value):
                continue
            add("value_validity", box.fits(call.name, name, value))
            if not exact(box.defaults(call.name).get(name), value) and not _empty(value):
                said = _says(example.request, value)
                if said or not _stands_in(value, told):
                    add("value_consistency", said)
    return {name: (hits, total) for name, (hits, total) in found.items()}


def quality(examples: Sequence[Example], seed: int = 0) -> dict[str, dict[str, float]]:
    """The rate of each rule over the examples, with the 95 % bootstrap interval over them: value, low, high, n."""
    counted = [counts_of(example) for example in examples]
    found = {}
    for name in RULES:
        counts = np.array([entry[name] for entry in counted], dtype=np.float64).reshape(-1, 2)
        hits, total = (round(number) for number in counts.sum(axis=0))
        low, high = ratio_interval(counts, seed)
        found[name] = {"value": hits / total if total else 0.0, "low": low, "high": high, "n": total}
    return found


def _same(first: Call, second: Call) -> bool:
    return first.name == second.name and exact(first.arguments, second.arguments)


def _refers(value: Json) -> bool:
    return isinstance(value, str) and REFERENCE.search(value) is not None


def _empty(value: Json) -> bool:
    """Whether the value says nothing that could stand in a text."""
    return isinstance(value, bool) or value in (None, "", [], {})


def _says(request: str, value: Json) -> bool:
    """Whether the request says the value: in one of its forms, or by words that mean it (China for CN, 20 for -20)."""
    if supported(value, request):
        return True
    if isinstance(value, int | float):
        return value < 0 and supported(-value, request)
    if isinstance(value, list):
        return all(_says(request, item) for item in value)
    if isinstance(value, dict):
        return all(_says(request, item) for item in value.values() if not _empty(item))
    words = [word.strip(".,;:!?\"'()") for word in request.split()]
    spans = (" ".join(words[at : at + width]) for width in range(1, SPAN + 1) for at in range(len(words) - width + 1))
    return any(same_meaning(value, span) for span in spans)


def _stands_in(value: Json, told: str) -> bool:
    return supported(value, told) or json.dumps(value, ensure_ascii=False).strip('"') in told
