"""References: arguments that stand for a piece of an earlier call's result (`Candidate`), resolved, kept, put back."""

import json
import re
from collections.abc import Sequence

from synthesis.authors.base import Candidate, is_reference
from synthesis.records import Json, Primitive, Tool
from synthesis.schemas import accepts


class UnresolvedError(Exception):
    """An argument was to come from an earlier result, and its pattern does not match there."""


def has_reference(value: Json) -> bool:
    """Whether a `{"$result": ..., "$pattern": ...}` stands anywhere in `value`."""
    if is_reference(value):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(has_reference(item) for item in items)


def resolve(value: Json, texts: Sequence[str]) -> Json:
    """`value` with every reference replaced by the match of its pattern in the result it names.

    A pattern with a group gives the group. Raises `UnresolvedError` where nothing matches.
    """
    if is_reference(value):
        index, pattern = value["$result"], value["$pattern"]
        found = re.search(pattern, texts[index]) if index < len(texts) else None
        text = found.group(min(1, found.re.groups)) if found else None
        if not text:
            raise UnresolvedError(f"{pattern!r} is not in the result of call {index}")
        return text
    if isinstance(value, dict):
        return {key: resolve(item, texts) for key, item in value.items()}
    return [resolve(item, texts) for item in value] if isinstance(value, list) else value


def fill(tool: Tool, arguments: dict[str, Json], texts: Sequence[str]) -> dict[str, Json]:
    """`arguments` resolved, and what came from a text made a number where the tool's schema wants one."""
    filled: dict[str, Json] = {}
    for name, value in arguments.items():
        filled[name] = resolve(value, texts)
        if is_reference(value):
            filled[name] = _typed(tool, name, filled[name])
    return filled


def _typed(tool: Tool, name: str, text: str) -> Json:
    if accepts(tool, name, text):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if accepts(tool, name, value) else text


def with_feeds(candidate: Candidate) -> list[dict[str, Json]]:
    """The setup calls, each with what the call takes from its result: `feeds: {parameter: pattern}`.

    A primitive holds its arguments as they were sent; this is how a trajectory knows which of them are data flow.
    """
    setup = [dict(call) for call in candidate.setup]
    for parameter, value in candidate.arguments.items():
        if is_reference(value) and value["$result"] < len(setup):
            call = setup[value["$result"]]
            call["feeds"] = {**call.get("feeds", {}), parameter: value["$pattern"]}
    return setup


def unresolved(primitive: Primitive) -> dict[str, Json]:
    """The primitive's arguments with data flow put back as references to its setup calls: `with_feeds` reversed."""
    arguments = dict(primitive.arguments)
    for index, call in enumerate(primitive.setup):
        for parameter, pattern in call.get("feeds", {}).items():
            arguments[parameter] = {"$result": index, "$pattern": pattern}
    return arguments
