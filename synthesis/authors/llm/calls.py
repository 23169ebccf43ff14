"""What the LLM author's `candidates` is answered with: calls, the calls that come before them, and references.

A reference is `{"$result": i, "$pattern": "regex"}` (see `Candidate`). It comes from a model that has read what anyone
may have written, and runs over what a server answers; so a pattern is held to a size and a shape that stay quick.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from synthesis.authors.base import Candidate, is_reference
from synthesis.authors.llm.answers import parsed
from synthesis.calls.candidates import coverage
from synthesis.calls.effects import reads_only
from synthesis.calls.references import has_reference
from synthesis.llm.client import Answer
from synthesis.records import Json, Tool
from synthesis.schemas import arguments_fault, properties, required, resolved
from synthesis.text.equality import normal_form

TOLD = 3
"""Faults that go back to the model at a time."""
MAX_SETUP = 3
"""Setup calls before one candidate."""
PATTERN_CHARS, REPEATS = 100, 3
"""Longest pattern of a reference, and how many `*`, `+` or `{}` it may hold."""
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_SLOW = re.compile(r"[.)][*+{]|[*+}]\??\(?[^()|][*+{]")
"""A repeated group or dot, or two repeats side by side: what makes a search take for ever."""


def _as_text(arguments: Json) -> Json:
    """Arguments as text; a model without a schema to hold to may give them so, too."""
    return json.dumps(arguments) if isinstance(arguments, dict) else arguments


Arguments = Annotated[str, BeforeValidator(_as_text)]
"""One JSON object; kept as text, for what a model writes need not be one."""


class SetupCall(Answer):
    """A call that comes first, so that there is something to work on."""

    tool: str
    arguments: Arguments


class Call(Answer):
    """One candidate call."""

    setup: list[SetupCall] = Field(default_factory=list)
    arguments: Arguments

    def needed(self, offered: Mapping[str, Tool]) -> tuple[list[dict[str, Json]], dict[str, Json]]:
        """The setup calls that do something for the call, and its arguments with references to just those.

        A setup call does something where an argument comes from its result, or where its tool does not only look.
        """
        arguments = parsed(self.arguments)
        used = {value["$result"] for value in arguments.values() if is_reference(value)}
        kept = [i for i, part in enumerate(self.setup) if i in used or not reads_only(offered[part.tool])]
        renamed = {
            name: {**value, "$result": kept.index(value["$result"])} if is_reference(value) else value
            for name, value in arguments.items()
        }
        return [{"tool": self.setup[i].tool, "arguments": parsed(self.setup[i].arguments)} for i in kept], renamed

    def fault(self, offered: Collection[str]) -> str:
        """What is wrong with setup and references; `offered` are the full names of the tools for setup."""
        if len(self.setup) > MAX_SETUP:
            return f"setup: expected at most {MAX_SETUP} calls, not {len(self.setup)}"
        for index, call in enumerate(self.setup):
            if call.tool not in offered:
                return f"setup.{index}.tool: expected one of the tools offered for setup, not {call.tool!r}"
            if reason := _arguments_fault(call.arguments, index):
                return f"setup.{index}.arguments{reason}"
        reason = _arguments_fault(self.arguments, len(self.setup))
        return f"arguments{reason}" if reason else ""


class Calls(Answer):
    """The answer to `candidates`."""

    calls: list[Call]

    def candidates(
        self, tool: Tool, count: int, offered: Mapping[str, Tool], there: Sequence[Candidate] = ()
    ) -> list[Candidate]:
        """At most `count` distinct calls that are not `there` and have nothing wrong with setup and references."""
        known = {_key(candidate) for candidate in there}
        found: dict[str, Candidate] = {}
        for call in self.calls:
            if call.fault(offered):
                continue
            setup, arguments = call.needed(offered)
            candidate = Candidate(
                tool=tool.full_name, arguments=arguments, setup=setup, coverage=coverage(tool, arguments)
            )
            if _key(candidate) not in known:
                found.setdefault(_key(candidate), candidate)
        return list(found.values())[:count]

    def fault(self, tool: Tool, offered: Mapping[str, Tool], there: Sequence[Candidate] = ()) -> str:
        """Some call that is not `there` must have nothing wrong with it: the others are left out, or rejected later."""
        reasons: list[str] = []
        for number, call in enumerate(self.calls):
            if reason := call.fault(offered):
                reasons.append(f"calls.{number}.{reason}")
            else:
                arguments = parsed(call.arguments)
                reason = "" if has_reference(arguments) else arguments_fault(tool, arguments)
                reasons.append(reason and f"calls.{number}.arguments: do not fit the tool's schema ({reason})")
        if "" not in reasons:
            return "; ".join(reasons[:TOLD]) or "calls: expected at least one"
        fresh = self.candidates(tool, 1, offered, there)
        return "" if fresh else "calls: all of them are there already; expected other values"


def answer_schema(tool: Tool, count: int, offered: Collection[str]) -> Json:
    """The JSON schema of `Calls` for one tool: an endpoint that holds to it can write no name that the tool lacks.

    Of the tool's schema it has the parameters, which of them are required, and plain types and choices; what is deeper
    differs too much between engines. Where there is nothing to set up there is no setup and no reference.
    """
    root = tool.input_schema
    given = {name: _plain_schema(resolved(part, root)) for name, part in properties(root).items()}
    arguments: Json = {
        "type": "object",
        "properties": {name: {"anyOf": [part, REFERRING]} if offered else part for name, part in given.items()},
        "required": required(root),
        "additionalProperties": False,
    }
    members: dict[str, Json] = {"arguments": arguments}
    if offered:
        first = {"tool": {"enum": sorted(offered)}, "arguments": {"type": "object"}}
        members = {"setup": {"type": "array", "items": _object(first), "maxItems": MAX_SETUP}, **members}
    calls = {"type": "array", "items": _object(members), "minItems": 1, "maxItems": count}
    return {**_object({"calls": calls}), **({"$defs": {"reference": REFERENCE}} if offered else {})}


def _object(members: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def _plain_schema(schema: Mapping[str, Json]) -> dict[str, Json]:
    return {key: schema[key] for key in ("type", "enum") if key in schema}


REFERENCE = _object({"$result": {"type": "integer"}, "$pattern": {"type": "string"}})
REFERRING = {"$ref": "#/$defs/reference"}


def _key(candidate: Candidate) -> str:
    return normal_form([candidate.arguments, candidate.setup])


def _arguments_fault(text: str, before: int) -> str:
    """What is wrong with the text of a call's arguments that `before` setup calls precede."""
    arguments = parsed(text)
    if not isinstance(arguments, dict):
        return ": expected one JSON object"
    for name, value in arguments.items():
        if has_reference(value) and (reason := _reference_fault(value, before)):
            return f".{name}: {reason}"
    return ""


def _reference_fault(value: Json, before: int) -> str:
    if not is_reference(value) or set(value) != {"$result", "$pattern"}:
        return 'expected a reference as the whole value of the argument: {"$result": number, "$pattern": "regex"}'
    index = value["$result"]
    if type(index) is not int or not 0 <= index < before:
        return f"$result: expected the number of an earlier setup call, below {before}, not {index!r}"
    reason = pattern_fault(value["$pattern"])
    return f"$pattern: {reason}" if reason else ""


def pattern_fault(pattern: Json) -> str:
    """Why `pattern` is no regular expression that may search a result; an empty string when it is one."""
    if not isinstance(pattern, str) or len(pattern) > PATTERN_CHARS:
        return f"expected a regular expression of at most {PATTERN_CHARS} characters"
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError) as error:
        return f"expected a regular expression ({error})"
    bare = _ATOM.sub("x", pattern)
    if _SLOW.search(bare) or len(re.findall(r"[*+{]", bare)) > REPEATS:
        return f"expected at most {REPEATS} repeats, none of a group or of `.`, none right behind another"
    if found.groups > 1:
        return f"expected one group at most, not {found.groups}"
    return "expected a pattern that no empty text matches" if found.match("") else ""
