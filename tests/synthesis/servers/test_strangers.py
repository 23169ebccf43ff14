"""A whole synthesis over strangers' servers: it ends well, keeps every key to itself, and reaches nobody else."""

import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from broken import HERE, remote
from handmade import ROOT

from rise_train.commands.check import check_config
from synthesis import pipeline
from synthesis.pipeline import synthesize

LISTING = str(HERE / "faulty" / "listing.py")
WORDS = {"type": "string", "description": "For example 'Emma', 'Dune', 'Kim' or 'Molloy'"}
BOOK = {"type": "object", "properties": {"title": WORDS}, "required": ["title"]}
KEYS = {
    "env": "hunter-2/sesame&more",
    "variable": "tok-9f8e7d6c5b",
    "option": "sk-live-51HxQ",
    "equals": "AKIA7Q2MZXCVB",
    "dsn": "p4ss.word-9",
    "header": "ghp_16C7e42F292c",
    "bearer": "eyJhbGciOi.J9",
    "url": "k3y-in-the-url",
}


def tool(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    marks = {"annotations": {"readOnlyHint": True}}
    return {"name": name, "description": f"Find {name.replace('_', ' ')}.", "inputSchema": schema, **marks} | more


def about(members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"title": WORDS, **members}, "required": ["title", *members], **more}


def odd(outside: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tools whose schemas can be used, and tools whose cannot. What refers to something leads to `outside`."""
    deep: Any = WORDS
    for _ in range(40):
        deep = {"type": "object", "properties": {"in": deep}}
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}
    usable = {
        "anything": about({"force": True}),
        "dates": about({"start": {"type": "string", "format": "date"}, "end": {"$ref": "#/properties/start"}}),
        "pair": about({"at": {"type": "array", "items": [{"type": "number"}, {"type": "number"}], "minItems": 2}}),
        "draft7": about({}, **{"$schema": "http://json-schema.org/draft-07/schema#"}),
        "nullable": about({"more": {"anyOf": [{"type": "null"}, WORDS]}}),
        "open": about({}, additionalProperties=True),
        "closed": about({}, additionalProperties=False),
        "recursive": {
            **BOOK,
            "$defs": {"tree": tree},
            "properties": {"title": WORDS, "tree": {"$ref": "#/$defs/tree"}},
        },
        "deep": {**BOOK, "properties": {"title": WORDS, "deep": deep}},
        "constant": about({"kind": {"const": "book"}}),
        "definitions": about({"more": {"$ref": "#/definitions/more"}}, definitions={"more": WORDS}),
        "any_items": {**BOOK, "properties": {"title": WORDS, "more": {"type": "array", "items": True}}},
        "mixed": about({"count": {"type": ["integer", "string"], "minimum": 1, "maximum": 9}}),
        "identified": about({}, **{"$id": f"{outside}/own", "title": "Book", "x-order": 1}),
        "own_draft": about({}, **{"$schema": f"{outside}/draft"}),
        "default": {**BOOK, "properties": {"title": WORDS, "limit": {"type": "integer", "default": 5}}},
        "查询_书": about({}),
        "chercher_été": about({}),
        "Ω" * 70: about({}),
    }
    unusable = {
        "no_type": {"anyOf": [BOOK]},
        "kind": about({"count": {"type": "int"}}),
        "fetched": about({"more": {"$ref": f"{outside}/schema"}}),
        "letters": about({"code": {"type": "string", "pattern": "^\\p{L}+$"}}),
        "null": {"type": "object", "properties": {}, "required": None},
        "circle": about({"a": {"$ref": "#/properties/a"}}),
        "text": "no schema at all",
        "list": [],
        "array": {"type": "array", "items": WORDS},
        "nowhere": about({"a": {"$ref": "#/$defs/nowhere"}}),
        "negative": about({"a": {"type": "string", "minLength": -1}}),
        "required": {"type": "object", "properties": {"title": WORDS}, "required": "title"},
        "no_enum": about({"a": {"enum": "book"}}),
    }
    pictured = {"icons": [{"src": f"{outside}/icon.png"}], "_meta": {"see": f"{outside}/meta"}}
    good = [tool(name, schema, **pictured) for name, schema in usable.items()]
    kinds = ("image", "audio", "link", "file", "blob", "structured", "tell")
    good += [tool(f"{kind}_{number}", BOOK) for kind in kinds for number in range(40)]
    answer = {"outputSchema": {"type": "object", "properties": {"x": {"$ref": f"{outside}/answer"}}}}
    return [*good, tool("answers", BOOK, **answer)], [tool(name, schema) for name, schema in unusable.items()]


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback, and who came there."""
    came: list[str] = []

    def accept(server: socket.socket) -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            came.append(str(address))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)


def test_a_run_over_odd_servers_ends_well_tells_nothing_and_reaches_nobody(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    monkeypatch.setenv("RISE_TEST_TOKEN", KEYS["variable"])
    with listener() as (outside, came), remote() as (port, _process):
        good, bad = odd(outside)
        assert len(good) + len(bad) > 300
        (tmp_path / "tools.json").write_text(json.dumps([*good, *bad], ensure_ascii=False))
        dsn = f"postgres://reader:{KEYS['dsn']}@127.0.0.1/books"
        local = {
            "command": sys.executable,
            "args": [LISTING, "tools.json", "", "--api-key", KEYS["option"], f"SECRET={KEYS['equals']}", dsn],
            "env": {"API_KEY": KEYS["env"], "TOKEN": "${RISE_TEST_TOKEN}", "REGION": "us-east-1"},
            "rise": {"state": "none"},
        }
        far = {
            "url": f"http://127.0.0.1:{port}/mcp?key={KEYS['url']}",
            "headers": {"Authorization": f"Bearer {KEYS['bearer']}", "X-Api": KEYS["header"]},
        }
        path = tmp_path / "mcp.json"
        path.write_text(json.dumps({"mcpServers": {"odd": local, "far": far}}))
        run = tmp_path / "run"
        made = synthesize(path, run, positives=60, negatives=3, per_tool=1)
        said = capsys.readouterr().err
        for stage in ("sft", "dpo"):
            config = ROOT / "recipes" / "tiny" / stage / "config_full.yaml"
            dataset = ["--dataset_name", str(run / "dataset"), "--max_length", "32768"]
            report = check_config(config, ["--model_name_or_path", str(tiny_model), *dataset], html=run / "check.html")
            assert report.rows > 0
            assert report.foreign == 0
        assert came == []
        socket.create_connection(("127.0.0.1", int(outside.rsplit(":", 1)[1]))).close()
        assert until(lambda: len(came) == 1), "it listens"
    assert made.counts["positives"] == 60
    left_out = json.loads((run / "manifest.json").read_text())["tools_left_out"]
    assert set(left_out) == {f"odd: {one['name']}" for one in bad}
    for name, why in left_out.items():
        assert f"left out: {name}: {why}" in said
    primitives = [json.loads(line) for line in (run / "primitives.jsonl").read_text().splitlines()]
    assert len({primitive["tool"] for primitive in primitives}) == len(good) + 2
    told = [p["result"] for p in primitives if p["tool"].startswith("odd__tell")]
    assert all("us-east-1" in result and result.count("<secret>") >= 4 for result in told)
    shutil.copy(path, run / "for-the-search.json")
    found = {key for key in KEYS.values() for file in files(run) if key.encode() in file.read_bytes()}
    assert found == {KEYS[name] for name in ("env", "option", "equals", "dsn", "header", "bearer", "url")}, (
        "it searches"
    )
    (run / "for-the-search.json").unlink()
    assert not [(key, file) for key in KEYS.values() for file in files(run) if key.encode() in file.read_bytes()]
    assert not [key for key in KEYS.values() if key in said]


def until(true: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def files(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.is_file()]
