"""Tools as strangers list them: what can be read is used, the rest is left out by name, and no run ends by it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from broken import HERE
from datasets import load_from_disk

from rise_train.commands.servers import show
from synthesis import pipeline
from synthesis.errors import UserError
from synthesis.pipeline import synthesize

LISTING = HERE / "faulty" / "listing.py"
WORDS = {"type": "string", "description": "For example 'Emma', 'Dune', 'Kim' or 'Molloy'"}


def tool(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    listed = {"name": name, "description": f"Find {name}.", "annotations": {"readOnlyHint": True}}
    return listed | {"inputSchema": schema} | more


def about(members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"title": WORDS, **members}, "required": ["title", *members]}


GOOD = {
    "plain": about({}),
    "anything": about({"force": True}),
    "dates": about({"start": {"type": "string", "format": "date"}, "end": {"$ref": "#/properties/start"}}),
    "pair": about({"at": {"type": "array", "items": [{"type": "number"}, {"type": "number"}], "minItems": 2}}),
}
BAD = {
    "no_type": {"anyOf": [about({})]},
    "kind": about({"count": {"type": "int"}}),
    "fetched": about({"more": {"$ref": "http://127.0.0.1:9/schema"}}),
    "letters": about({"code": {"type": "string", "pattern": "^\\p{L}+$"}}),
    "null": {"type": "object", "properties": {}, "required": None},
    "circle": about({"a": {"$ref": "#/properties/a"}}),
    "text": "no schema at all",
}


def servers(folder: Path, tools: list[dict[str, Any]]) -> Path:
    (folder / "tools.json").write_text(json.dumps(tools))
    entry = {"command": sys.executable, "args": [str(LISTING), "tools.json"], "rise": {"state": "none"}}
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"odd": entry}}))
    return path


def test_odd_tools_over_many_pages_are_used_or_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    odd_answer = {"outputSchema": {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/out"}}}}
    tools = [tool(name, schema) for name, schema in (GOOD | BAD).items()] + [tool("answers", about({}), **odd_answer)]
    named = [
        tool(name, about({})) for name in ("查询天气", "查询新闻", "a.b", "a_b", "long" * 20 + "1", "long" * 20 + "2")
    ]
    tools += [{"name": 3}, tool("plain", about({})), *named]
    synthesize(servers(tmp_path, tools), tmp_path / "run", positives=12, negatives=2, per_tool=3)
    called = {json.loads(line)["tool"] for line in (tmp_path / "run" / "primitives.jsonl").read_text().splitlines()}
    assert called > {f"odd__{name}" for name in [*GOOD, "answers", "a_b"]}
    assert len(called) == len(GOOD) + 1 + 5, "each name is one tool's; of a.b and a_b the second is left out"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in called)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[2] for line in said] == [*BAD, "a_b"]
    left_out = json.loads((tmp_path / "run" / "manifest.json").read_text())["tools_left_out"]
    assert [f"left out: {name}: {why}" for name, why in left_out.items()] == said


def test_where_no_tool_may_be_called_the_run_says_what_to_set(tmp_path: Path) -> None:
    path = servers(tmp_path, [tool("plain", about({}), annotations={}), tool("other", about({}), annotations={})])
    with pytest.raises(UserError, match=r"no tool may be called: of 2 tools none is marked.*`rise\.allow`"):
        synthesize(path, tmp_path / "run")


def test_what_the_data_lacks_is_said_with_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    unmarked = [tool(name, about({}), annotations={}) for name in ("a", "b", "c")]
    path = servers(tmp_path, [tool("plain", about({})), *unmarked])
    made = synthesize(path, tmp_path / "run", positives=400, negatives=2, per_tool=3)
    few, fewer = made.advice
    assert few.startswith("only 1 of 4 tools may run; the others (odd__a, odd__b, odd__c, ...)")
    assert "`rise.allow`" in few
    assert " positives instead of 400: " in fewer
    assert synthesize(path, tmp_path / "run", positives=400, negatives=2, per_tool=3).advice == made.advice
    made = synthesize(path, tmp_path / "small", positives=2, negatives=2, per_tool=1)
    assert any(sentence.startswith("no rows in sft/test, preference/test: ") for sentence in made.advice)
    sft, preference = (load_from_disk(str(made.run / "dataset" / name)) for name in ("sft", "preference"))
    assert (len(sft["test"]), len(preference["test"])) == (0, 0), "what is empty can be read all the same"


def test_calls_with_nothing_to_deviate_in_are_said_to_give_no_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    nothing = {"type": "object", "properties": {}}
    path = servers(tmp_path, [tool(name, nothing) for name in ("list_books", "list_films", "list_plays")])
    made = synthesize(path, tmp_path / "run", positives=4, negatives=2, per_tool=1)
    assert any(sentence.startswith("there are no negatives, so nothing for DPO") for sentence in made.advice)
    card = (made.run / "dataset" / "README.md").read_text()
    assert "not executed: no tool was asked" in card


def test_the_list_of_tools_names_those_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(servers(tmp_path, [tool("plain", GOOD["plain"]), tool("kind", BAD["kind"])]))
    listed = capsys.readouterr().out.splitlines()
    assert listed[1].split() == ["read-only", "odd__plain"]
    assert listed[2].startswith("  unusable    kind: ")
