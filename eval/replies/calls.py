"""Tool calls as data: reading them from replies, telling whether they are valid, and when two of them say the same.

Four notions of sameness are kept apart, since benchmarks that mix them cannot be trusted:

- `exact`: the same JSON value. Numbers have no integer/float distinction in JSON, so 3 is 3.0; `true` is never 1.
- `alike`: equal after lower-casing and stripping of spaces, RISE's rule for critical parameters (section 4.3).
- `equivalent`: whole calls that do the same: equal name, `alike` arguments once the schema's defaults are filled in.
- `same`: the same but for the way that values are written: dates, units, paths, names (`synthesis.text.equality`). Two
  values that one schema lists as different choices are different.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from synthesis.records import Json
from synthesis.schemas import Schema, fault, properties, resolved, validator
from synthesis.text.equality import normal_form, same_meaning

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

NO_CALL = "no tool call in the reply"
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)\.\d+")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Call:
    """One tool call: the tool's full name, and its arguments."""

    name: str
    arguments: dict[str, Json]

    def as_dict(self) -> dict[str, Json]:
        """The call as the result file keeps it."""
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Reply:
    """What a policy answered in one turn. Where `problem` is not empty, no call could be read, and `calls` is empty."""

    text: str
    calls: tuple[Call, ...] = ()
    problem: str = ""
    truncated: bool = False
    """Whether the reply was cut off at the token limit."""


def calls_of(message: Mapping[str, Json]) -> tuple[Call, ...]:
    """The calls of an OpenAI-style assistant message; arguments may be an object or its JSON text.

    Raises:
        ValueError: a call without a name, or whose arguments are no JSON object.
    """
    return tuple(_call(entry) for entry in message.get("tool_calls") or [])


def object_arguments(message: Mapping[str, Json]) -> dict[str, Json]:
    """The message with the arguments of its calls as objects; chat templates would quote their JSON text once more.

    Raises:
        ValueError: as `calls_of`.
    """
    made = message.get("tool_calls") or []
    if not any(isinstance(entry["function"]["arguments"], str) for entry in made):
        return dict(message)
    calls = [{**entry, "function": call.as_dict()} for entry, call in zip(made, calls_of(message), strict=True)]
    return {**message, "tool_calls": calls}


def read_reply(text: str, parse: Callable[[str], Mapping[str, Json]], truncated: bool = False) -> Reply:
    """Read the calls in a reply with `parse` (text to assistant message).

    A reply from which no call can be read keeps its text and gets a `problem`; nothing is repaired. One unreadable
    call spoils the whole reply, as it does for an agent that has to act on it.
    """
    try:
        calls = calls_of(parse(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # KeyError: a response template misses a part
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Reply(text, problem=f"unreadable tool call: {reason[:160]}", truncated=truncated)
    return Reply(text, calls, "" if calls else NO_CALL, truncated)


def parse_hermes(text: str) -> dict[str, Json]:
    """Parse `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` blocks, for templates that bring no parser.

    Raises:
        ValueError: a block that holds no JSON.
    """
    content, *blocks = text.split(_OPEN)
    bodies = [block.split(_CLOSE, 1)[0] for block in blocks]
    return {"role": "assistant", "content": content, "tool_calls": [{"function": json.loads(body)} for body in bodies]}


def _call(entry: Json) -> Call:
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("the call names no tool")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise ValueError("the arguments are no JSON object")
    json.dumps(arguments, allow_nan=False)
    return Call(function["name"], dict(arguments))


@lru_cache(maxsize=4096)
def _sound(schema: str) -> "tuple[Schema, Validator] | None":
    """A schema and what judges arguments by it, read once; None where it is one by which nothing can be judged."""
    root = json.loads(schema)
    return None if fault(root) else (root, validator(root, root))


class Toolbox:
    """The tools of one prompt: what a call is checked against.

    Args:
        tools: tool specs in the OpenAI format, as a dataset row holds them.
    """

    def __init__(self, tools: Sequence[Mapping[str, Json]]) -> None:
        functions = [tool.get("function", tool) for tool in tools]
        self.schemas: dict[str, Mapping[str, Json]] = {f["name"]: f.get("parameters") or {} for f in functions}
        self._texts = {name: json.dumps(schema) for name, schema in self.schemas.items()}

    def _judged(self, tool: str) -> "tuple[Schema, Validator] | None":
        return _sound(self._texts.get(tool, "{}"))

    def valid(self, call: Call) -> bool:
        """Whether the prompt offers the tool and its JSON schema accepts the arguments.

        By a schema that cannot be read (`synthesis.schemas.fault`) only the names of the arguments are judged.
        """
        if call.name not in self.schemas:
            return False
        judged = self._judged(call.name)
        if judged is None:
            known = self.parameters(call.name)
            return known is None or set(call.arguments) <= set(known)
        try:
            return bool(judged[1].is_valid(call.arguments))
        except RecursionError:  # a schema that holds itself
            return True

    def fits(self, tool: str, parameter: str, value: Json) -> bool:
        """Whether the value alone is one that the tool's schema takes for the parameter; by no schema everything is."""
        if (judged := self._judged(tool)) is None:
            return True
        root, judge = judged
        part = properties(root).get(parameter)
        return part is None or bool(judge.evolve(schema=part).is_valid(value))

    def parameters(self, tool: str) -> Mapping[str, Json] | None:
        """The schemas of the tool's parameters by name; None where its schema names none."""
        known = self.schemas.get(tool, {}).get("properties")
        return known if isinstance(known, Mapping) else None

    def defaults(self, tool: str) -> dict[str, Json]:
        """What the tool's schema gives the parameters that are left out."""
        known = self.parameters(tool) or {}
        return {
            name: part["default"] for name, part in known.items() if isinstance(part, Mapping) and "default" in part
        }

    def filled(self, call: Call) -> dict[str, Json]:
        """The arguments that take effect: the given ones, and the schema's defaults for those left out."""
        return {**self.defaults(call.name), **call.arguments}

    def equivalent(self, gold: Call, predicted: Call) -> bool:
        """Whether `predicted` does what `gold` does: valid, same tool, no argument that differs, lacks or is added."""
        if gold.name != predicted.name or not self.valid(predicted):
            return False
        return alike(self.filled(gold), self.filled(predicted))

    def same(self, gold: Call, predicted: Call) -> bool:
        """`equivalent`, with values compared by what they mean."""
        if gold.name != predicted.name or not self.valid(predicted):
            return False
        asked, given = ({k: v for k, v in self.filled(call).items() if v is not None} for call in (gold, predicted))
        return asked.keys() == given.keys() and all(self.same_value(gold, k, asked[k], given[k]) for k in asked)

    def same_value(self, call: Call, parameter: str, asked: Json, given: Json) -> bool:
        """Whether two values of a call's parameter mean the same; the order of a list of unique items is free."""
        judged = self._judged(call.name)
        schema = {} if judged is None else resolved(properties(judged[0]).get(parameter, {}), judged[0])
        choices = schema.get("enum")
        if isinstance(choices, list) and asked in choices and given in choices:
            return exact(asked, given)
        if schema.get("uniqueItems") is True and isinstance(asked, list) and isinstance(given, list):
            asked, given = sorted(asked, key=normal_form), sorted(given, key=normal_form)
        return same_meaning(asked, given)


def exact(a: Json, b: Json) -> bool:
    """Equality of JSON values: 3 equals 3.0, `true` differs from 1, the order of keys does not matter."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(exact(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(exact, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def alike(a: Json, b: Json) -> bool:
    """Equality after lower-casing and stripping of spaces (RISE, section 4.3).

    Our reading: scalars are compared as text, so "3" is 3 and 3.0 and "3.0" (a wrong type is the schema's business);
    letters are compared however Unicode puts them together; runs of white space count as one; lists keep their order;
    a member that is null is a member that is not there.
    """
    return bool(_normal(a) == _normal(b))


def _normal(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if value is None:
        return None
    text = " ".join(unicodedata.normalize("NFC", str(value)).lower().split())
    return text.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(text) else text
