"""The model behind the scripted endpoint: it answers each prompt of the LLM author for any tool, from its schema.

It knows nothing but the prompt: names, descriptions and types of parameters, the files of the sandbox, the steps. It is
no cleverer than a small model: some of its calls fail, and some of its requests are refused by the guards.
"""

import json
import posixpath
import random
import re
from typing import Any

from synthesis.text.saying import say, spaced

Schema = dict[str, Any]

ZONES = ["Europe/Oslo", "Asia/Tokyo", "America/Lima", "Africa/Cairo", "Europe/Rome", "Asia/Kolkata", "America/Bogota"]
TIMES = ["09:15", "18:40", "07:05", "21:50"]
WORDS = ["harbour", "lantern", "orchard", "meadow", "violin", "granite", "saffron", "glacier"]
QUERIES = ["SELECT name FROM sqlite_master", "SELECT count(*) FROM sqlite_master", "SELECT 6 * 7 AS answer"]
SMALL = {"start", "end", "level", "index", "row", "rows", "col", "cols", "order", "count", "line", "timeout"}
BLOCK = re.compile(r'<data name="(\w+)">\n(.*?)\n</data>', re.DOTALL)


def play(request: dict[str, Any]) -> dict[str, Any]:
    """Answer as a model would, from the data in the prompt; the same request gets the same answer."""
    text = request["messages"][1]["content"]
    data = {name: json.loads(block) for name, block in BLOCK.findall(text)}
    rng = random.Random(text)
    name = request["response_format"]["json_schema"]["name"]
    if name == "candidates":
        return Caller(data, rng).calls()
    if name == "compose":
        return _compose(data, text, rng)
    if name == "objection":
        return {"agrees": rng.random() < 0.8, "reason": "the request leaves open which tool is meant"}
    if name == "fitting":
        return {"verdicts": [{"number": change["number"], "fits": rng.random() < 0.1} for change in data["changes"]]}
    return _alternatives(data["parameter"], rng)


class Caller:
    """Invents calls of one tool."""

    def __init__(self, data: dict[str, Any], rng: random.Random) -> None:
        self.tool, self.rng = data["tool"], rng
        self.files: list[str] = data.get("files", [])
        self.siblings = {part["name"].split("__")[1]: part for part in data.get("siblings", [])}

    def calls(self) -> dict[str, Any]:
        """Eight calls of mixed coverage; every second one uses what a setup call made or found, if one does."""
        found = []
        for number in range(8):
            arguments = self._arguments(self.tool, number)
            setup = self._setup(arguments) if number % 2 else []
            found.append({"setup": setup, "arguments": json.dumps(arguments)})
        return {"calls": found}

    def _arguments(self, tool: dict[str, Any], number: int) -> dict[str, Any]:
        root = tool["parameters"]
        properties, required = root.get("properties", {}), root.get("required", [])
        optional = [name for name in properties if name not in required]
        taken = [[], self.rng.sample(optional, min(1, len(optional))), optional][number % 3]
        return {name: self._value(tool, name, properties[name], root) for name in [*required, *taken]}

    def _setup(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """One call before this one, and in `arguments` the reference to what it tells."""
        for name in arguments:
            words = spaced(name).split()
            if words[-1] == "id" and (maker := self.siblings.get(f"create_{words[0]}")):
                pattern = rf"{words[0]}_\d+"
            elif words == ["table", "name"] and (maker := self.siblings.get("list_tables")):
                pattern = r"'name': '(\w+)'"
            elif name == "filename" and (maker := self.siblings.get("create_document")):
                pattern = r"/data/[\w-]+\.docx"
            else:
                continue
            arguments[name] = {"$result": 0, "$pattern": pattern}
            return [{"tool": maker["name"], "arguments": json.dumps(self._arguments(maker, 0))}]
        return []

    def _value(self, tool: dict[str, Any], name: str, schema: Schema, root: Schema) -> Any:
        schema = _resolved(schema, root)
        words = set(spaced(name).split())
        kind = schema.get("type", "string")
        kind = next(part for part in kind if part != "null") if isinstance(kind, list) else kind
        if "enum" in schema:
            return self.rng.choice([value for value in schema["enum"] if value is not None])
        if kind in ("number", "integer"):
            low, high = (1, 3) if words & SMALL else (2, 90)
            return self.rng.randint(max(low, schema.get("minimum", low)), min(high, schema.get("maximum", high)))
        if kind == "boolean":
            return self.rng.random() < 0.5
        if kind == "array" and name == "command":
            return [*self.rng.choice([["cat"], ["wc", "-l"], ["ls", "-a"], ["head", "-n", "2"]]), self._path(tool)]
        if kind == "array":
            items = schema.get("items", {})
            return [self._value(tool, name.removesuffix("s"), items, root) for _ in range(self.rng.randint(1, 2))]
        if kind == "object":
            inner = schema.get("properties", {})
            return {key: self._value(tool, key, inner[key], root) for key in schema.get("required", inner)}
        return self._text(tool, name, schema)

    def _text(self, tool: dict[str, Any], name: str, schema: Schema) -> str:
        told = f"{tool['name'].split('__')[1]} {tool.get('description', '')}"
        words = set(re.sub("file(?=path|name)", "file ", spaced(name)).split())
        part = re.search(rf"\b{re.escape(name)}\s*:(.*?)(?=\n\s*\w+\s*:|\Z)", told, re.DOTALL)
        about = schema.get("description", "") or (part[1] if part else "")
        shown = [*schema.get("examples", []), *re.findall(r"'([^'\n]{1,60})'", about)]
        if words & {"path", "file", "filename"}:
            return self._path(tool)
        if words & {"directory", "folder", "dir"}:
            return "/data"
        if "timezone" in words or "zone" in words:
            return self.rng.choice(ZONES)
        if name == "time":
            return f"{self.rng.randint(10, 23)}:{self.rng.randint(10, 59)}"
        if shown:
            return str(self.rng.choice(shown))
        if words & {"query", "sql"} and "sql" in told.casefold():
            new = f"CREATE TABLE {self.rng.choice(WORDS)} (id INTEGER, town TEXT)"
            return new if "create" in told else self.rng.choice(QUERIES)
        if schema.get("default"):
            return str(schema["default"])
        return " ".join(self.rng.sample(WORDS, 2))

    def _path(self, tool: dict[str, Any]) -> str:
        """A file that is there, of the kind that the tool is about; a new one where it makes one."""
        name = tool["name"].split("__")[1]
        told = f"{tool['name']} {tool.get('description', '')}".casefold()
        ends = next((end for end in ("docx", "xlsx", "pptx") if end in told or end[:-1] in told), "csv")
        ends = "docx" if "word" in told or "document" in told else ends
        fitting = [file for file in self.files if file.endswith(ends)]
        if name.startswith("create") or not fitting:
            return f"/data/{self.rng.choice(WORDS)}-{self.rng.randint(1, 99)}.{ends}"
        return self.rng.choice(fitting)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow a reference, and take the first alternative that is not null."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    options = [option for option in schema.get("anyOf", schema.get("oneOf", [])) if option.get("type") != "null"]
    return {**_resolved(options[0], root), **schema} if options else schema


def _compose(data: dict[str, Any], text: str, rng: random.Random) -> dict[str, Any]:
    twist = "ruled_out" if "rule it out" in text else "correction" if "then corrects it" in text else ""
    critical, clauses, ruled_out = [], [], []
    for step in data["steps"]:
        clause = spaced(step["tool"].split("__")[1]) + " with"
        for name, argument in step["arguments"].items():
            if argument["source"] != "user":
                clause += f" that {spaced(name)},"
                continue
            value = argument["value"]
            if twist and not ruled_out and not isinstance(value, bool | list | dict):
                wrong = other(value, rng)
                clause += f" {spaced(name)} not {say(wrong)} but"
                place = {"step": step["step"], "parameter": name}
                spelt = wrong if isinstance(wrong, str) else json.dumps(wrong)
                ruled_out.append({**place, "value": spelt, "evidence": f"not {say(wrong)}"})
            words = f"{spaced(name)} {say(value)}"
            clause += f" {words},"
            critical.append({"step": step["step"], "parameter": name, "evidence": words})
        clauses.append(clause.rstrip(","))
    greeting = rng.choice(["Please", "Could you", "I need you to", "Now"])
    return {
        "request": f"{greeting} {'; then '.join(clauses)}. {_branches(data)}".strip(),
        "intentions": clauses,
        "critical": critical,
        "ruled_out": ruled_out,
        "response": f"Done: {data['steps'][-1]['result'][:40]}",
    }


def _branches(data: dict[str, Any]) -> str:
    if "condition" not in data:
        return ""
    condition = data["condition"]
    told = [
        ", ".join(f"{spaced(name)} {say(value)}" for name, value in condition[branch]["arguments"].items())
        for branch in ("then", "else")
    ]
    return f"If the first result mentions {condition['value']}, go on with {told[0]}, otherwise with {told[1]}."


def _alternatives(parameter: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    value = parameter["value"]
    if isinstance(value, int | float):
        others = [("co_hyponym", value + 1), ("irrelevance", value * 10 + 7), ("lexical_similarity", value + 10)]
    else:
        choices = [choice for choice in parameter["schema"].get("enum", []) if choice != value]
        found = choices or [other(value, rng) for _ in range(3)]
        others = [("co_hyponym", choice) for choice in found[:3]]
    spelt = [(kind, part if isinstance(part, str) else json.dumps(part)) for kind, part in others]
    return {"alternatives": [{"kind": kind, "value": part} for kind, part in spelt]}


def other(value: Any, rng: random.Random) -> Any:
    """Another value of the same type and look."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + rng.choice([1, 2, 10])
        case list():
            return [*value[:-1], other(value[-1], rng)] if value else [rng.choice(WORDS)]
        case dict():
            last = list(value)[-1] if value else rng.choice(WORDS)
            return {**value, last: other(value.get(last, ""), rng)}
    for known in (ZONES, TIMES, QUERIES):
        if value in known or (known is TIMES and re.fullmatch(r"\d\d?:\d\d", str(value))):
            return rng.choice([choice for choice in known if choice != value])
    word = rng.choice([choice for choice in WORDS if choice != value])
    if "/" in str(value) and "." in str(value):
        return f"{posixpath.dirname(value)}/{word}{posixpath.splitext(value)[1]}"
    return word
