"""STE, simulated trial and error (MIT): test requests, each with its one right call.

An API is described in prose with a JSON-like line (`{{"date" : string, "days" : integer, }}`), or as JSON with
required and optional parameters.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.benchmarks.reading import documents, object_of
from eval.replies.calls import Call
from eval.scores.quality import Example
from synthesis.records import Json

TYPES = {"string", "integer", "number", "boolean"}
_LINE = re.compile(r"\(args json schema\): \{\{(.*?)\}\}", re.DOTALL)
_MEMBER = re.compile(r'"([^"]+)"\s*:\s*(\w+)')


def load(path: Path) -> Iterator[Example]:
    """The examples of `tool_test.json` under `path`.

    Raises:
        UserError: there is none.
    """
    for _, document in documents(path, "STE's tool_test.json", lambda file: file.name == "tool_test.json"):
        for name, entries in document.items():
            for at, entry in enumerate(entries):
                yield Example(f"{name}-{at}", entry["query"], [_spec(name, entry["api_descriptions"])], [_call(entry)])


def _call(entry: Mapping[str, str]) -> Call:
    found = object_of(entry["action_input"])
    return Call(entry["action"], {"": entry["action_input"]} if found is None else found)


def _spec(name: str, text: str) -> dict[str, Json]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    if line := _LINE.search(text):
        properties = {key: _typed(kind) for key, kind in _MEMBER.findall(line[1])}
    elif (start := text.find("{")) >= 0:
        told = object_of(text[start:]) or {}
        for field in ("required_parameters", "optional_parameters"):
            properties |= {entry["name"]: _typed(str(entry.get("type", ""))) for entry in told.get(field, [])}
        required = [entry["name"] for entry in told.get("required_parameters", [])]
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def _typed(kind: str) -> dict[str, Json]:
    return {"type": kind.lower()} if kind.lower() in TYPES else {}
