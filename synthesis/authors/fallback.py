"""A phrasebook entry made from a tool's schema alone, for servers that nobody wrote a phrasebook for."""

import re
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from synthesis.authors.lexicon import lexicon
from synthesis.authors.phrasebook import Phrasebook, ToolEntry, canonical
from synthesis.records import Json, Tool
from synthesis.values import spaced

_NUMBERS = [3, 5, 2, 10, 1, 20, 7, 12, 4, 50, 15, 8, 100, 30, 25, 250, 0, 1000]
_DECIMALS = [2.5, 12, 0.5, 40, 3.75, 100, 7, 1.2, 18, 99.5, 0.1, 1, 0]
_QUOTED = re.compile(r"['\"`]([^'\"`\n]{1,40})['\"`]")
_READING = {
    "get",
    "list",
    "read",
    "find",
    "search",
    "describe",
    "check",
    "show",
    "fetch",
    "convert",
    "calculate",
    "count",
}
Schema = dict[str, Any]


def make_book(tool: Tool) -> Phrasebook:
    """Write a one-tool phrasebook from the tool's name, description and schema.

    A required parameter for which no valid value can be found leaves a case that the schema check will refuse, with a
    reason that names the parameter.
    """
    root = tool.input_schema
    properties: dict[str, Schema] = root.get("properties", {})
    required = [name for name in root.get("required", []) if name in properties]
    pools = {name: samples(name, schema, root) for name, schema in properties.items()}
    entry = ToolEntry(
        effect="read" if tool.read_only or spaced(tool.name).split()[0] in _READING else "write",
        object=" ".join(spaced(tool.name).split()[1:]) or "result",
        heads=heads(tool),
        phrases={name: phrases(name, pools[name]) for name in properties if pools[name]},
        cases=[{name: {"pool": name} for name in required if pools[name]}],
        optional={name: {"pool": name} for name in properties if name not in required and pools[name]},
    )
    return Phrasebook(
        server=tool.server, field="other", pools={k: v for k, v in pools.items() if v}, tools={tool.name: entry}
    )


def heads(tool: Tool) -> list[str]:
    """Make ways of asking for the tool from its name, and from a short first sentence of its description."""
    verb, *rest = spaced(tool.name).split()
    thing = " ".join(rest)
    known = lexicon().verbs.get(verb)
    found = (
        [f"{way} the {thing}" if thing else way for way in known]
        if known
        else [f"use {verb} {thing}".strip(), f"run {verb} {thing}".strip()]
    )
    sentence = re.split(r"[.\n(:]", re.sub(r"[^\x20-\x7e\n]", " ", tool.description))[0].strip()
    words = sentence.split()
    if 2 <= len(words) <= 9 and words[0].lower() in lexicon().verbs and "{" not in sentence:
        found.append(sentence[0].lower() + sentence[1:])
    return list(dict.fromkeys(found))


def phrases(name: str, values: list[Json]) -> list[str] | dict[str, list[str]]:
    """Make ways of saying a parameter."""
    words = spaced(name)
    if values and all(isinstance(value, bool) for value in values):
        return {
            canonical(True): [f"with {words}", f"{words} on"],
            canonical(False): [f"without {words}", f"{words} off"],
        }
    for cue, ways in (
        ("from source start", ["from {v}"]),
        ("to target destination", ["to {v}"]),
        ("path file folder directory", ["in {v}"]),
    ):
        if words.split()[-1] in cue.split() or words.split()[0] in cue.split()[:1]:
            return [*ways, f"with {words} {{v}}"]
    return [f"with {words} {{v}}", f"{words} {{v}}", f"with {{v}} as {words}", f"where {words} is {{v}}"]


def samples(name: str, schema: Schema, root: Schema, depth: int = 0) -> list[Json]:
    """List plausible values of a parameter that its schema accepts, best first; empty if none was found.

    `root` is the tool's whole schema, in which references point.
    """
    schema = resolved(schema, root)
    try:
        validator = Draft202012Validator({**schema, "$defs": root.get("$defs", {})})
        raw = _raw(name, schema, root, depth)
        valid = [value for value in raw if validator.is_valid(value)]
    except (SchemaError, re.error, RecursionError):
        return []
    return list({canonical(value): value for value in valid}.values())


def resolved(schema: Schema, root: Schema) -> Schema:
    """Follow a local reference, and of alternatives take the first that is not null."""
    if (reference := str(schema.get("$ref", ""))).startswith("#/"):
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part, {})
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    for key in ("anyOf", "oneOf"):
        options = [option for option in schema.get(key, []) if option.get("type") != "null"]
        if options:
            return {
                **resolved(options[0], root),
                **{k: v for k, v in schema.items() if k in ("description", "examples")},
            }
    return schema


def _raw(name: str, schema: Schema, root: Schema, depth: int) -> list[Json]:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return [value for value in schema["enum"] if value is not None]
    given = list(schema.get("examples", []))
    match _type(schema):
        case "boolean":
            return [True, False]
        case "integer":
            return [*given, *_near(schema), *_NUMBERS]
        case "number":
            return [*given, *_near(schema), *_DECIMALS]
        case "array":
            return given + _lists(name, schema, root, depth)
        case "object":
            return given + _objects(schema, root, depth)
        case _:
            return given + _strings(name, schema)


def _type(schema: Schema) -> str:
    declared = schema.get("type", "string")
    kinds = [kind for kind in declared if kind != "null"] if isinstance(declared, list) else [declared]
    return kinds[0] if kinds else "string"


def _near(schema: Schema) -> list[Json]:
    """Values at the allowed limits, for where the ordinary ones fall outside."""
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    found = [low, low + 1] if isinstance(low, int | float) else []
    return [*found, high - 1, high] if isinstance(high, int | float) else found


def _lists(name: str, schema: Schema, root: Schema, depth: int) -> list[Json]:
    parts = samples(name.rstrip("s"), schema.get("items", {}), root, depth + 1) if depth < 4 else []
    least = max(1, int(schema.get("minItems", 1)))
    sizes = [size for size in (least, least + 1, least + 2) if size <= len(parts)]
    return [parts[start : start + size] for size in sizes for start in range(len(parts) - size + 1)][:12]


def _objects(schema: Schema, root: Schema, depth: int) -> list[Json]:
    properties = schema.get("properties", {})
    if depth >= 4 or not properties:
        return []
    names = schema.get("required") or list(properties)[:1]
    pools = {key: samples(key, properties.get(key, {}), root, depth + 1) for key in names}
    if not all(pools.values()):
        return []
    return [{key: pool[i % len(pool)] for key, pool in pools.items()} for i in range(max(map(len, pools.values())))][
        :12
    ]


def _strings(name: str, schema: Schema) -> list[Json]:
    """Values for a string: those quoted as examples in its description, else by the words of its name or format."""
    lex = lexicon()
    description = str(schema.get("description", ""))
    quoted: list[str] = _QUOTED.findall(description) if re.search(r"e\.g\.|example|such as|like", description) else []
    formats = {"date": "date", "time": "time", "email": "email", "uri": "url"}
    words = [formats.get(str(schema.get("format", "")), ""), *reversed(spaced(name).split())]
    concepts = [lex.parameter_words.get(word, word if word in lex.values else "") for word in words]
    concept = next((c for c in concepts if c), "word")

    return [*quoted, *lex.values[concept]]
