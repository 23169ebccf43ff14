"""ToolBench (OpenBMB, Apache-2.0) and StableToolBench: solution paths of ChatGPT over RapidAPI.

Read are the answer files of `data_example/answer` (the path that was chosen) and the results of ToolEval, which hold a
tree that is followed along its first branch. The call `Finish` ends a path and is none of the task's. ToolEval's older
files keep 100 characters of each call: a path with one that was cut is left out, and how many is said.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.reading import documents, object_of
from eval.replies.calls import Call
from eval.scores.quality import Example
from synthesis.records import Json

FINISH = "Finish"
_TEXT = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_CALL = re.compile(rf"\{{'name': {_TEXT}, 'arguments': {_TEXT}")
"""A call as Python writes it, which older files hold."""


def load(path: Path) -> Iterator[Example]:
    """The examples of all answer files under `path`.

    Raises:
        UserError: there is none.
    """
    cut = 0
    for file, document in documents(path, "ToolBench's answers", _wanted):
        if "answer_generation" in document:
            yield _answer(file.stem, document["answer_generation"])
        elif _results(file):
            for key, entry in document.items():
                if (found := _tree(f"{file.stem}-{key}", entry)) is not None:
                    yield found
                else:
                    cut += 1
    if cut:
        print(f"{path}: {cut} paths left out, since the files hold their calls cut off", file=sys.stderr)


def _wanted(file: Path) -> bool:
    return "answer" in str(file.parent) or _results(file)


def _results(file: Path) -> bool:
    return "results" in file.parts or "model_predictions_converted" in file.parts


def _answer(name: str, found: Mapping[str, Any]) -> Example:
    calls: list[Call] = []
    results: list[str] = []
    for message in (found["train_messages"] or [[]])[-1]:
        if made := message.get("function_call"):
            calls += _call(made["name"], made["arguments"])
        elif message["role"] == "function" and len(results) < len(calls):
            results.append(str(message["content"]))
    return Example(name, found["query"], _specs(found["function"]), calls, results, _final(found.get("final_answer")))


def _tree(name: str, entry: Mapping[str, Any]) -> Example | None:
    """The path along the first branches; None where a call of it was cut."""
    calls: list[Call] = []
    results: list[str] = []
    steps = entry["answer"]["answer_details"]
    while steps:
        step = steps[0]
        if step["role"] == "tool":
            said = step["message"] if isinstance(step["message"], dict) else _read(step["message"])
            if said is None:
                return None
            made = _call(said["name"], said["arguments"])
            calls += made
            results += [str(said.get("response", ""))] * len(made)
        steps = step.get("next") or []
    tools = _specs(entry["available_tools"])
    return Example(name, entry["query"], tools, calls, results, _final(entry["answer"].get("final_answer")))


def _specs(functions: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    return [{"type": "function", "function": dict(entry)} for entry in functions if entry["name"] != FINISH]


def _call(name: str, arguments: Json) -> list[Call]:
    """The call; one whose arguments are no object keeps its name, so that it counts."""
    if name == FINISH:
        return []
    found = object_of(arguments)
    return [Call(name, {"": arguments} if found is None else found)]


def _read(text: str) -> dict[str, Json] | None:
    if (match := _CALL.match(text)) is None:
        return {"name": FINISH, "arguments": ""} if text.startswith(f"{{'name': '{FINISH}'") else None
    name, arguments = (str(ast.literal_eval(part)) for part in match.groups())
    return {"name": name, "arguments": arguments, "response": text[match.end() :].removeprefix(", 'response': ")}


def _final(text: Json) -> str:
    try:
        said = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return str(text)
    return str(said.get("final_answer", "")) if isinstance(said, dict) else str(said or "")
