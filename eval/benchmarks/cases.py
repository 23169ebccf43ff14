"""What a benchmark's file gives: cases, each with a prompt, what is right, and how a reply to it is scored.

Each benchmark is one file with the same four functions: `load(folder)` gives its cases and names what is missing,
`prompt(case)` what the model is asked, `parse(case, reply)` the calls of a reply by the benchmark's names, and
`score(case, reply)` two verdicts: `own` by the benchmark's rule, `exact` by ours.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eval.policies.base import Message
from eval.replies.calls import Call, Reply
from synthesis.records import Json

KINDS = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "any": "string", "bool": "boolean"}
"""Types as benchmarks write them, where JSON Schema has another word."""
_LOOSE = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True)
class Case:
    """One test case."""

    id: str
    category: str
    messages: Sequence[Message]
    functions: Sequence[Mapping[str, Any]]
    """As the benchmark describes them."""
    gold: Json
    """What is right, in the benchmark's own form."""
    right: Reply
    """A right reply."""
    cluster: str = ""
    """Cases of one dialogue, which stand or fall together; empty where it is alone."""


class Score(NamedTuple):
    """Whether a reply is right: by the benchmark's own rule, and by ours, which reads values as they are.

    `own` is None where the benchmark asks a judge.
    """

    own: bool | None
    exact: bool


@dataclass
class Loaded:
    """The cases of a benchmark that can be scored here, and the others: category, how many, why not."""

    cases: list[Case] = field(default_factory=list)
    missing: list[dict[str, Json]] = field(default_factory=list)

    def lacks(self, category: str, count: int, reason: str) -> None:
        """Say that cases are not scored."""
        self.missing.append({"id": category, "n": count, "reason": reason})


def tool(name: str, description: str, parameters: Json) -> dict[str, Json]:
    """A function in the OpenAI format, its parameters as JSON Schema."""
    schema = schema_of(parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def schema_of(described: Json) -> Json:
    """A benchmark's description of parameters as JSON Schema: the same with the types that JSON Schema has."""
    if isinstance(described, list):
        return [schema_of(part) for part in described]
    if not isinstance(described, dict):
        return described
    found = {key: schema_of(part) for key, part in described.items()}
    if isinstance(kind := described.get("type"), str):
        found["type"] = KINDS.get(kind, kind)
    return found


def plain(value: Json) -> Json:
    """A text as BFCL and ACEBench compare it: lower case, without blanks and ,./-_*^, one kind of quotes."""
    return _LOOSE.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def matched(gold: Sequence[Any], calls: Sequence[Call], right: Any) -> bool:
    """Whether each gold call has a call of its own for which `right(gold, call)` holds, and none is left over.

    The calls are gone through in order and the first that fits is taken, as BFCL does.
    """
    left = list(calls)
    for wanted in gold:
        if (found := next((call for call in left if right(wanted, call)), None)) is None:
            return False
        left.remove(found)
    return not left
