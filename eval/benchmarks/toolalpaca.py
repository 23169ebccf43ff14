"""ToolAlpaca (Apache-2.0): instructions with the right calls, for APIs that are described in text.

A parameter's line reads `Required. integer. One of: [a, b]. What it is`. `getDetails` asks the user and is no API.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.benchmarks.reading import documents, object_of
from eval.replies.calls import Call
from eval.scores.quality import Example
from synthesis.records import Json

ASK = "getDetails"
TYPES = {"integer", "number", "boolean", "string", "array", "object"}
_CHOICES = re.compile(r"One of: \[([^\]]*)\]")


def load(path: Path) -> Iterator[Example]:
    """The examples of `data/eval_*.json` under `path`.

    Raises:
        UserError: there is none.
    """
    for _, document in documents(path, "ToolAlpaca's eval_*.json", lambda file: file.name.startswith("eval_")):
        for api in document:
            tools = [_spec(name, text) for name, text in api["Function_Description"].items() if name != "components"]
            for at, (request, gold) in enumerate(zip(api["Instructions"], api["Golden_Answers"], strict=True)):
                calls = [_call(step) for step in gold if step["Action"] != ASK]
                yield Example(f"{api['Name']}-{at}", request, tools, calls)


def _call(step: Mapping[str, str]) -> Call:
    """The call; arguments that are no JSON, since they name another call's result, are left out."""
    return Call(step["Action"], object_of(step["Action_Input"]) or {})


def _spec(name: str, text: str) -> dict[str, Json]:
    described = text.partition("\nParameters: ")[2].partition("\nOutput:")[0]
    parameters: dict[str, Any] = {"type": "object"}
    if (lines := object_of(described or "{}")) is not None:
        parameters["properties"] = {key: _parameter(str(line)) for key, line in lines.items()}
        parameters["required"] = [key for key, line in lines.items() if str(line).startswith("Required")]
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def _parameter(line: str) -> dict[str, Json]:
    told = line.removeprefix("Required.").strip()
    kind = re.split(r"[\s.(\[]", told, maxsplit=1)[0].lower()
    schema: dict[str, Json] = {"description": line}
    if kind in TYPES:
        schema["type"] = kind
    if (choices := _CHOICES.search(line)) and schema.get("type") == "string":
        schema["enum"] = [choice.strip() for choice in choices[1].split(",")]
    return schema
