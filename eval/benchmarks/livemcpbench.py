"""LiveMCPBench (Apache-2.0): one agent's 95 trajectories, with a person's verdict on each, from a wheel on PyPI.

The agent finds tools by `route` and calls them by `execute-tool`; what it called is read out of the latter. The tools'
schemas are not there, so the rules that need them say nothing of these examples.
"""

from collections.abc import Iterator
from pathlib import Path

from eval.benchmarks.reading import documents, object_of
from eval.replies.calls import Call, calls_of
from eval.scores.quality import Example
from synthesis.records import Json


def load(path: Path) -> Iterator[Example]:
    """The examples of `annotation/*.json` under `path`, with whether a person found the task solved.

    Raises:
        UserError: there is none.
    """
    for _, rows in documents(path, "LiveMCPBench's annotation/*.json", lambda file: file.parent.name == "annotation"):
        for row in rows:
            asked = {id_of: call for message in row["messages"] for id_of, call in _calls(message)}
            told = {
                str(message["tool_call_id"]): str(message["content"])
                for message in row["messages"]
                if message["role"] == "tool"
            }
            yield Example(
                id=row["task_id"],
                request=row["Question"],
                tools=(),
                calls=list(asked.values()),
                results=[told.get(each, "") for each in asked],
                response=row["response"],
                solved=row["task_success"] == "success",
            )


def _calls(message: dict[str, Json]) -> Iterator[tuple[str, Call]]:
    for entry in message.get("tool_calls") or []:
        call = calls_of({"tool_calls": [entry]})[0]
        if "tool_name" in call.arguments:
            yield entry["id"], Call(str(call.arguments["tool_name"]), object_of(call.arguments.get("params")) or {})
