"""A tool's JSON schema, read here and nowhere else: its parameters, their types, and which values it accepts.

Servers, calls, authors and negatives all read schemas, so this stands where each of them may import it. A part of a
schema is always judged with the whole around it, for its references point there.
"""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from synthesis.records import Json, Tool

Schema = dict[str, Any]
_known: dict[tuple[int, str], tuple[Schema, Validator]] = {}
"""Validators by the identity of the whole schema and the parameter; the schema itself is held, so none takes its id."""


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
    if (reference := str(schema.get("$ref", ""))).startswith("#/"):
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part, {})
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    for key in ("anyOf", "oneOf"):
        options = [option for option in schema.get(key, []) if option.get("type") != "null"]
        if options:
            kept = {name: value for name, value in schema.items() if name in ("description", "examples")}
            return {**resolved(options[0], root), **kept}
    return schema


def type_of(schema: Schema) -> str:
    """The declared type, the first that is not null where there are several; `string` where nothing is declared."""
    declared = schema.get("type", "string")
    kinds = [kind for kind in declared if kind != "null"] if isinstance(declared, list) else [declared]
    return kinds[0] if kinds else "string"


def validator(schema: Schema, root: Schema) -> Validator:
    """What judges values by `schema`, a part of `root`, in which its references point."""
    return Draft202012Validator(root).evolve(schema=schema)


def _validator(tool: Tool, name: str) -> Validator:
    """The validator of one parameter, or of all arguments for the empty name; made once a schema."""
    root = tool.input_schema
    if (id(root), name) not in _known:
        _known[id(root), name] = (root, validator(schema_of(tool, name) if name else root, root))
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
    error = next(Draft202012Validator(tool.output_schema).iter_errors(structured), None)
    return error.message if error else ""


def in_order(tool: Tool, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """`arguments` in the order of the input schema's properties; unknown ones last."""
    order = {name: index for index, name in enumerate(properties(tool.input_schema))}
    return dict(sorted(arguments.items(), key=lambda item: order.get(item[0], len(order))))
