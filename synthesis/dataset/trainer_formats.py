"""The dataset in the formats of other trainers, groups unrolled to pairs; the calls stay the same to the last argument.

- `trl`: Hugging Face datasets with declared features (`Json()`), for stock `SFTTrainer` and `DPOTrainer`. Not JSONL:
  features that are inferred fill foreign arguments with nulls.
- `ms-swift`: its agent format. Calls are messages of role `tool_call`; a pair is `messages` with `rejected_messages`,
  which take `rejected_tools` beside `tools`.
- `llamafactory`: ShareGPT with `function_call` and `observation`, `dataset_info.json` beside it. Speakers have to
  alternate, so the results of parallel calls are one observation, a JSON list.
- `openai`: chat format of the fine-tuning API, arguments as a JSON string; pairs as `preferred_output` and
  `non_preferred_output`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from synthesis.dataset.reading import Stored
from synthesis.dataset.source import Row
from synthesis.dataset.writing import SFT, save
from synthesis.errors import UserError
from synthesis.records import Json

PAIR = {"prompt": "list", "chosen": "list", "rejected": "list", "tools": "list", "meta": "object"}


def export(stored: Stored, to: str, folder: Path) -> list[Path]:
    """Write all splits of both configs into the new folder `folder`, in the format `to`; returns what was written.

    Raises `UserError` for a format that is not in `FORMATS`, and for a folder that holds something.
    """
    if to not in FORMATS:
        raise UserError(f"--to: expected one of {', '.join(FORMATS)}, not {to!r}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or empty folder to export to.")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[to](stored, folder)


def _trl(stored: Stored, folder: Path) -> list[Path]:
    pairs = {
        split: [
            {**row, "rejected": rejected, "meta": {"id": row["meta"]["id"]}} for row, rejected in stored.pairs(split)
        ]
        for split in stored.preference
    }
    save(stored.sft, SFT, folder / "sft")
    save(pairs, PAIR, folder / "preference")
    return [folder / "sft", folder / "preference"]


def _ms_swift(stored: Stored, folder: Path) -> list[Path]:
    def positive(row: Row) -> Row:
        return {"messages": _swift_messages(row["messages"]), "tools": _text(row["tools"])}

    def pair(row: Row, rejected: list[Row]) -> Row:
        tools = _text(row["tools"])
        chosen, deviating = (_swift_messages([*row["prompt"], *turn]) for turn in (row["chosen"], rejected))
        return {"messages": chosen, "rejected_messages": deviating, "tools": tools, "rejected_tools": tools}

    return _json_lines(stored, folder, positive, pair)


def _swift_messages(messages: Iterable[Row]) -> list[Row]:
    shown = []
    for message in messages:
        if message.get("tool_calls"):
            shown += [{"role": "tool_call", "content": _text(call["function"])} for call in message["tool_calls"]]
        else:
            role = "tool_response" if message["role"] == "tool" else message["role"]
            shown.append({"role": role, "content": message["content"]})
    return shown


def _openai(stored: Stored, folder: Path) -> list[Path]:
    def positive(row: Row) -> Row:
        return {"messages": _openai_messages(row["messages"]), "tools": row["tools"], "parallel_tool_calls": True}

    def pair(row: Row, rejected: list[Row]) -> Row:
        before = _openai_messages(row["prompt"])
        chosen, deviating = (
            _openai_messages([*row["prompt"], *turn])[len(before) :] for turn in (row["chosen"], rejected)
        )
        given = {"messages": before, "tools": row["tools"], "parallel_tool_calls": True}
        return {"input": given, "preferred_output": chosen, "non_preferred_output": deviating}

    return _json_lines(stored, folder, positive, pair)


def _openai_messages(messages: Iterable[Row]) -> list[Row]:
    """Calls get ids, by which their results refer to them; a message of calls has no content."""
    shown: list[Row] = []
    waiting: Iterator[str] = iter(())
    number = 0
    for message in messages:
        if message.get("tool_calls"):
            calls = []
            for call in message["tool_calls"]:
                function = {"name": call["function"]["name"], "arguments": _text(call["function"]["arguments"])}
                calls.append({"id": f"call_{number}", "type": "function", "function": function})
                number += 1
            waiting = iter([str(call["id"]) for call in calls])
            shown.append({"role": "assistant", "tool_calls": calls})
        elif message["role"] == "tool":
            shown.append({"role": "tool", "tool_call_id": next(waiting), "content": message["content"]})
        else:
            shown.append({"role": message["role"], "content": message["content"]})
    return shown


def _llamafactory(stored: Stored, folder: Path) -> list[Path]:
    def positive(row: Row) -> Row:
        return {"conversations": _sharegpt(row["messages"]), "tools": _text(row["tools"])}

    def pair(row: Row, rejected: list[Row]) -> Row:
        turns = {"chosen": _sharegpt(row["chosen"])[0], "rejected": _sharegpt(rejected)[0]}
        return {"conversations": _sharegpt(row["prompt"]), **turns, "tools": _text(row["tools"])}

    written = _json_lines(stored, folder, positive, pair)
    columns = {"messages": "conversations", "tools": "tools"}
    info: dict[str, Json] = {}
    for path in written:
        entry: Row = {"file_name": path.name, "formatting": "sharegpt", "columns": columns}
        if path.name.startswith("preference"):
            entry |= {"ranking": True, "columns": {**columns, "chosen": "chosen", "rejected": "rejected"}}
        info["rise_" + path.stem.replace(".", "_")] = entry
    about = folder / "dataset_info.json"
    about.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return [*written, about]


def _sharegpt(messages: Iterable[Row]) -> list[Row]:
    shown = []
    for role, found in groupby(messages, key=lambda message: str(message["role"])):
        for message in found:
            if role == "tool":
                results = [message["content"], *(other["content"] for other in found)]
                shown.append({"from": "observation", "value": results[0] if len(results) == 1 else _text(results)})
            elif message.get("tool_calls"):
                calls = [call["function"] for call in message["tool_calls"]]
                shown.append({"from": "function_call", "value": _text(calls[0] if len(calls) == 1 else calls)})
            else:
                shown.append({"from": {"user": "human", "assistant": "gpt"}[role], "value": message["content"]})
    return shown


def _json_lines(
    stored: Stored, folder: Path, positive: Callable[[Row], Row], pair: Callable[[Row, list[Row]], Row]
) -> list[Path]:
    written = []
    for split in stored.sft:
        positives = (positive(row) for row in stored.sft[split])
        pairs = (pair(row, rejected) for row, rejected in stored.pairs(split))
        for config, rows in (("sft", positives), ("preference", pairs)):
            path = folder / f"{config}.{split}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                file.writelines(_text(row) + "\n" for row in rows)
            written.append(path)
    return written


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


FORMATS: dict[str, Callable[[Stored, Path], list[Path]]] = {
    "trl": _trl,
    "ms-swift": _ms_swift,
    "llamafactory": _llamafactory,
    "openai": _openai,
}
