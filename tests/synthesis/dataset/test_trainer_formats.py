"""From each foreign format back to the very same requests, calls, results and pairs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthesis.dataset.reading import Stored, read
from synthesis.dataset.trainer_formats import FORMATS, export
from synthesis.errors import UserError

Row = dict[str, Any]
Turns = list[tuple[str, Any]]
"""What a conversation says: (user, text), (calls, list of (name, arguments)), (results, list), (assistant, text)."""


def spoken(messages: list[Row]) -> Turns:
    """Our own messages in that neutral form."""
    turns: Turns = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [call["function"] for call in message["tool_calls"]]
            turns.append(("calls", [(call["name"], call["arguments"]) for call in calls]))
        else:
            add(turns, message["role"], message["content"])
    return turns


def add(turns: Turns, role: str, content: str) -> None:
    """One message more; results of calls of one turn stand together."""
    if role != "tool":
        turns.append((role, content))
    elif turns[-1][0] == "results":
        turns[-1][1].append(content)
    else:
        turns.append(("results", [content]))


def from_swift(messages: list[Row]) -> Turns:
    turns: Turns = []
    for message in messages:
        assert set(message) == {"role", "content"}
        assert isinstance(message["content"], str)
        if message["role"] == "tool_call":
            call = json.loads(message["content"])
            if turns[-1][0] != "calls":
                turns.append(("calls", []))
            turns[-1][1].append((call["name"], call["arguments"]))
        else:
            add(turns, message["role"].replace("tool_response", "tool"), message["content"])
    return turns


def from_openai(messages: list[Row]) -> Turns:
    turns: Turns = []
    open_ids: list[str] = []
    for message in messages:
        if message.get("tool_calls"):
            assert all(isinstance(call["function"]["arguments"], str) for call in message["tool_calls"])
            calls = [call["function"] for call in message["tool_calls"]]
            turns.append(("calls", [(call["name"], json.loads(call["arguments"])) for call in calls]))
            open_ids = [call["id"] for call in message["tool_calls"]]
        else:
            if message["role"] == "tool":
                assert message["tool_call_id"] == open_ids.pop(0)
            add(turns, message["role"], message["content"])
    return turns


def from_sharegpt(messages: list[Row]) -> Turns:
    turns: Turns = []
    for number, message in enumerate(messages):
        assert message["from"] in (("human", "observation"), ("function_call", "gpt"))[number % 2], "speakers alternate"
        said = message["value"]
        if message["from"] == "function_call":
            found = json.loads(said)
            calls = found if isinstance(found, list) else [found]
            turns.append(("calls", [(call["name"], call["arguments"]) for call in calls]))
        elif message["from"] == "observation":
            turns.append(("results", json.loads(said) if len(turns[-1][1]) > 1 else [said]))
        else:
            turns.append(({"human": "user", "gpt": "assistant"}[message["from"]], said))
    return turns


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def swift_pair(row: Row) -> tuple[Turns, Turns, Any]:
    assert row["tools"] == row["rejected_tools"]
    return from_swift(row["messages"]), from_swift(row["rejected_messages"]), json.loads(row["tools"])


def openai_pair(row: Row) -> tuple[Turns, Turns, Any]:
    given = row["input"]
    first, second = (from_openai(given["messages"] + row[f"{kind}_output"]) for kind in ("preferred", "non_preferred"))
    return first, second, given["tools"]


def sharegpt_pair(row: Row) -> tuple[Turns, Turns, Any]:
    first, second = (from_sharegpt([*row["conversations"], row[kind]]) for kind in ("chosen", "rejected"))
    return first, second, json.loads(row["tools"])


@pytest.fixture(scope="module")
def stored(tiny_dataset: Path) -> Stored:
    return read(tiny_dataset)


def expected(stored: Stored, split: str) -> list[tuple[Turns, Turns, Any]]:
    return [
        (spoken(row["prompt"] + row["chosen"]), spoken(row["prompt"] + rejected), row["tools"])
        for row, rejected in stored.pairs(split)
    ]


@pytest.mark.parametrize(
    ("to", "positive", "pair"),
    [
        ("ms-swift", lambda row: (from_swift(row["messages"]), json.loads(row["tools"])), swift_pair),
        ("openai", lambda row: (from_openai(row["messages"]), row["tools"]), openai_pair),
        ("llamafactory", lambda row: (from_sharegpt(row["conversations"]), json.loads(row["tools"])), sharegpt_pair),
    ],
)
def test_json_lines_lead_back_to_the_same_calls(
    stored: Stored, tmp_path: Path, to: str, positive: Callable[[Row], Any], pair: Callable[[Row], Any]
) -> None:
    written = export(stored, to, tmp_path / "out")
    assert all(path.exists() for path in written)
    parallel = 0
    for split in ("train", "test"):
        rows = lines(tmp_path / "out" / f"sft.{split}.jsonl")
        assert [positive(row) for row in rows] == [(spoken(r["messages"]), r["tools"]) for r in stored.sft[split]]
        parallel += sum(len(turn[1]) > 1 for row in rows for turn in positive(row)[0] if turn[0] == "calls")
        pairs = [pair(row) for row in lines(tmp_path / "out" / f"preference.{split}.jsonl")]
        assert pairs == expected(stored, split)
        assert all(chosen != rejected for chosen, rejected, _ in pairs)
    assert parallel > 0


def test_trl_gets_declared_features_without_foreign_arguments(stored: Stored, tmp_path: Path) -> None:
    from datasets import load_from_disk

    export(stored, "trl", tmp_path / "out")
    pairs = load_from_disk(str(tmp_path / "out" / "preference"))
    assert set(pairs["train"].column_names) == {"prompt", "chosen", "rejected", "tools", "meta"}
    for split in ("train", "test"):
        back = [
            (spoken(r["prompt"] + r["chosen"]), spoken(r["prompt"] + r["rejected"]), r["tools"]) for r in pairs[split]
        ]
        assert back == expected(stored, split)
    assert load_from_disk(str(tmp_path / "out" / "sft"))["test"].to_list() == stored.sft["test"]


def test_dataset_info_describes_every_file_of_llama_factory(stored: Stored, tmp_path: Path) -> None:
    export(stored, "llamafactory", tmp_path / "out")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert {entry["file_name"] for entry in info.values()} == {p.name for p in (tmp_path / "out").glob("*.jsonl")}
    for entry in info.values():
        row = lines(tmp_path / "out" / entry["file_name"])[0]
        assert set(entry["columns"].values()) == set(row)
        assert entry.get("ranking", False) == ("chosen" in row)


def test_wrong_arguments_are_one_sentence(stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--to: expected one of trl"):
        export(stored, "axolotl", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="new or empty folder"):
        export(stored, "trl", tmp_path / "full")
    with pytest.raises(UserError, match="expected a run"):
        read(tmp_path / "full")
    assert set(FORMATS) == {"trl", "ms-swift", "llamafactory", "openai"}
