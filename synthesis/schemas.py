"""A tool's JSON schema, read here and nowhere else: its parameters, their types, and which values it accepts.

Servers, calls, authors and negatives all read schemas, so this stands where each of them may import it. A part of a
schema is always judged with the whole around it, for its references point there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from synthesis.records import Json, Tool

Schema = dict[str, Any]
_DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK, _OFFSET = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?", r"(?:[Zz]|[+-][01]\d:[0-5]\d)"
_known: dict[tuple[int, str], tuple[Schema, Validator]] = {}
"""Validators by the identity of the whole schema and the parameter; the schema itself is held, so none takes its id."""


_drafts: dict[int, tuple[Schema, type[Validator]]] = {}
_NOTHING_MORE: Registry[Any] = Registry()
"""References outside of a schema lead nowhere."""


FORMATS = FormatChecker(("date", "email", "idn-email", "ipv4", "ipv6", "uuid"))
"""Formats that texts are held to where calls are made up; besides those of `jsonschema`, some that it leaves out."""


@FORMATS.checks("date-time")
def _date_time(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(rf"{_DAY}[Tt ]{_CLOCK}{_OFFSET}", value) is not None


@FORMATS.checks("time")
def _time(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(rf"{_CLOCK}{_OFFSET}", value) is not None


@FORMATS.checks("duration")
def _duration(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"P(?!$)(\d+[YMWD])*(T(\d+[HMS])+)?", value) is not None


@FORMATS.checks("uri")
def _uri(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+", value) is not None


@FORMATS.checks("hostname")
def _hostname(value: object) -> bool:
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return not isinstance(value, str) or re.fullmatch(rf"{label}(?:\.{label})*", value) is not None


def properties(schema: Mapping[str, Json]) -> dict[str, Schema]:
    """The schemas of an object's members, by name: of a tool's input schema, its parameters."""
    return {name: _as_object(part) for name, part in (schema.get("properties") or {}).items()}


def _as_object(schema: Json) -> Schema:
    """`true` accepts everything and `false` nothing; said as an object each."""
    return schema if isinstance(schema, dict) else {} if schema else {"not": {}}


def required(schema: Mapping[str, Json]) -> list[str]:
    """The members that an object must have."""
    return list(schema.get("required") or [])


def schema_of(tool: Tool, name: str) -> Schema:
    """The schema of one parameter as it stands, without what its references point to; empty for an unknown one."""
    return properties(tool.input_schema).get(name, {})


def resolved(schema: Schema, root: Schema) -> Schema:
    """Follow a local reference into the whole schema `root`, and of alternatives take the first that is not null."""
    if isinstance(reference := schema.get("$ref"), str):
        target = _follow(reference, root)
        return resolved({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, root)
    for key in ("anyOf", "oneOf"):
        options = [option for option in map(_as_object, schema.get(key, [])) if option.get("type") != "null"]
        if options:
            kept = {name: value for name, value in schema.items() if name in ("description", "examples")}
            return {**resolved(options[0], root), **kept}
    return schema


def type_of(schema: Schema) -> str:
    """The declared type, the first that is not null where there are several; `string` where nothing is declared."""
    declared = schema.get("type", "string")
    kinds = [kind for kind in declared if kind != "null"] if isinstance(declared, list) else [declared]
    return kinds[0] if kinds else "string"


def fault(root: Json, named: str = "its input schema") -> str:
    """Why nothing can be judged by the schema `root`, in one sentence that calls it `named`; empty where it is sound.

    Judged by the draft that `$schema` names. Many servers name none and write lists as draft 7 has it, so what is no
    schema of draft 2020-12 may be one of draft 7. Nothing is ever fetched.
    """
    if not isinstance(root, dict):
        return f"{named} is no object"
    try:
        _draft(root).check_schema(root)
    except SchemaError as error:
        where = "/".join(str(step) for step in error.absolute_path)
        return f"{named} is no JSON schema{' at ' + where if where else ''}: {error.message}"[:200]
    except RecursionError:
        return f"{named} is too deep"
    return next(filter(None, (_part_fault(part, root, named) for part in _parts(root))), "")


def _parts(value: Json) -> Iterator[Schema]:
    """All objects in a schema, itself first."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []


def _part_fault(part: Schema, root: Schema, named: str) -> str:
    reference, pattern, patterns = part.get("$ref"), part.get("pattern"), part.get("patternProperties")
    if isinstance(reference, str):
        try:
            _follow(reference, root)
        except Unresolvable:
            return f"{named} refers to {reference}, which is not in it, and nothing is fetched"
        except RecursionError:
            return f"{named} refers to {reference}, which refers to itself"
    texts = [pattern] if isinstance(pattern, str) else []
    for text in texts + list(patterns if isinstance(patterns, dict) else []):
        try:
            re.compile(text)
        except re.error as error:
            return f"{named} has the pattern {text}, which cannot be read here: {error}"
    return ""


def _follow(reference: str, root: Schema) -> Schema:
    """What a reference in the end points to. Raises `Unresolvable`, or `RecursionError` where that is itself."""
    resource = DRAFT202012.create_resource(root)
    base = resource.id() or ""
    resolver = _NOTHING_MORE.with_resource(base, resource).resolver(base)
    seen = {reference}
    while True:
        found = resolver.lookup(reference).contents
        if not isinstance(found, dict) or not isinstance(found.get("$ref"), str):
            return _as_object(found)
        reference = found["$ref"]
        if reference in seen:
            raise RecursionError
        seen.add(reference)


def _draft(root: Schema) -> type[Validator]:
    """The draft that a whole schema is read by; chosen once a schema."""
    if id(root) not in _drafts:
        chosen: type[Validator] = validator_for(root, default=Draft202012Validator)
        if "$schema" not in root:
            chosen = chosen if _fits(root, chosen) else Draft7Validator
        _drafts[id(root)] = (root, chosen)
    return _drafts[id(root)][1]


def _fits(root: Schema, draft: type[Validator]) -> bool:
    try:
        draft.check_schema(root)
    except SchemaError:
        return False
    return True


def validator(schema: Schema, root: Schema, formats: bool = False) -> Validator:
    """What judges values by `schema`, a part of `root`, in which its references point. Nothing is ever fetched.

    With `formats` a text has to be of its `format`, too, as far as it is one of `FORMATS`; a schema only names it.
    """
    checker = FORMATS if formats else None
    return _draft(root)(root, registry=_NOTHING_MORE, format_checker=checker).evolve(schema=schema)


def _validator(tool: Tool, name: str) -> Validator:
    """The validator of one parameter, or of all arguments for the empty name; made once a schema."""
    root = tool.input_schema
    if (id(root), name) not in _known:
        _known[id(root), name] = (root, validator(schema_of(tool, name) if name else root, root, formats=True))
    return _known[id(root), name][1]


def accepts(tool: Tool, name: str, value: Json) -> bool:
    """Whether the schema of the parameter `name` accepts `value`."""
    return bool(_validator(tool, name).is_valid(value))


def arguments_fault(tool: Tool, arguments: Mapping[str, Json]) -> str:
    """Why `arguments` break the tool's input schema; an empty string when they fit. Unknown parameters never fit."""
    if unknown := sorted(set(arguments) - set(properties(tool.input_schema))):
        return f"unknown parameter {unknown[0]!r}"
    error = next(_validator(tool, "").iter_errors(arguments), None)
    return f"{error.json_path}: {error.message}"[:200] if error else ""


def answer_fault(tool: Tool, structured: Json) -> str:
    """Why a structured answer breaks the tool's output schema; an empty string when it fits, or there is none."""
    if tool.output_schema is None:
        return ""
    error = next(validator(tool.output_schema, tool.output_schema).iter_errors(structured), None)
    return error.message if error else ""


def items(schema: Schema) -> list[Schema]:
    """The schemas of a list's elements: those of the first ones, each its own, or one for all."""
    first = schema.get("prefixItems") or schema.get("items", {})
    return [_as_object(part) for part in (first if isinstance(first, list) else [first])]


def in_order(tool: Tool, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """`arguments` in the order of the input schema's properties; unknown ones last."""
    order = {name: index for index, name in enumerate(properties(tool.input_schema))}
    return dict(sorted(arguments.items(), key=lambda item: order.get(item[0], len(order))))
