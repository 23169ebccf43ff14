"""What the LLM author's `candidates` is answered with: calls, the calls that come before them, and references.

A reference is `{"$result": i, "$pattern": "regex"}` (see `Candidate`). It comes from a model that has read what anyone
may have written, and runs over what a server answers; so a pattern is held to a size and a shape that stay quick.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator

from synthesis.authors.base import Candidate, is_reference
from synthesis.authors.llm.answers import parsed
from synthesis.calls.candidates import coverage
from synthesis.calls.references import has_reference
from synthesis.llm.client import Answer
from synthesis.records import Json, Tool
from synthesis.schemas import arguments_fault
from synthesis.text.equality import normal_form

MAX_SETUP = 3
"""Setup calls before one candidate."""
PATTERN_CHARS, REPEATS = 100, 3
"""Longest pattern of a reference, and how many `*`, `+` or `{}` it may hold."""
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_SLOW = re.compile(r"[.)][*+{]|[*+}]\??\(?[^()|][*+{]")
"""A repeated group or dot, or two repeats side by side: what makes a search take for ever."""


def _as_text(arguments: Json) -> Json:
    """Arguments as text, also where a model gives them as the object itself."""
    return json.dumps(arguments) if isinstance(arguments, dict) else arguments


Arguments = Annotated[str, BeforeValidator(_as_text)]
"""The text of one JSON object."""


class SetupCall(Answer):
    """A call that comes first, so that there is something to work on."""

    tool: str
    arguments: Arguments


class Call(Answer):
    """One candidate call."""

    coverage: Literal["required", "some", "all"]
    setup: list[SetupCall]
    arguments: Arguments

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

    def candidates(self, tool: Tool, count: int, there: Sequence[Candidate] = ()) -> list[Candidate]:
        """At most `count` distinct calls that are not `there`; the class is that of the arguments, not the model's."""
        known = {_key(candidate) for candidate in there}
        found: dict[str, Candidate] = {}
        for call in self.calls:
            arguments = parsed(call.arguments)
            setup = [{"tool": part.tool, "arguments": parsed(part.arguments)} for part in call.setup]
            candidate = Candidate(
                tool=tool.full_name, arguments=arguments, setup=setup, coverage=coverage(tool, arguments)
            )
            if _key(candidate) not in known:
                found.setdefault(_key(candidate), candidate)
        return list(found.values())[:count]

    def fault(self, tool: Tool, offered: Collection[str], there: Sequence[Candidate] = ()) -> str:
        """Every text must parse, and some call that is not `there` must fit the schema.

        Another that does not fit is rejected later, alone.
        """
        reasons: list[str] = []
        for number, call in enumerate(self.calls):
            if reason := call.fault(offered):
                return f"calls.{number}.{reason}"
            arguments = parsed(call.arguments)
            reasons.append("" if has_reference(arguments) else arguments_fault(tool, arguments))
        if "" not in reasons:
            return f"calls: none fits the tool's schema ({reasons[0] if reasons else 'no call'})"
        return "" if self.candidates(tool, 1, there) else "calls: all of them are there already; expected other values"


def _key(candidate: Candidate) -> str:
    return normal_form([candidate.arguments, candidate.setup])


def _arguments_fault(text: str, before: int) -> str:
    """What is wrong with the text of a call's arguments that `before` setup calls precede."""
    arguments = parsed(text)
    if not isinstance(arguments, dict):
        return ": expected the text of one JSON object"
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
