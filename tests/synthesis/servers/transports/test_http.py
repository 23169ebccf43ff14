"""Trouble on the way to a remote server is waited out, and never becomes an answer, a verdict or a label."""

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest
from broken import HERE, remote

from synthesis import pipeline
from synthesis.pipeline import synthesize
from synthesis.records import ToolResult
from synthesis.servers.server_set import Servers, load_servers
from synthesis.servers.transports import http


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WAITS_S", (0.01, 0.01, 0.01))


def servers(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"g": {"url": f"http://127.0.0.1:{port}/mcp"}}}))
    return path


def called(folder: Path, faults: str, count: int) -> list[ToolResult]:
    """What so many calls of `count` gave, one after the other."""

    async def main(port: int) -> list[ToolResult]:
        async with Servers(load_servers(servers(folder, port))) as running:
            return [await running.call("g__count", {}) for _ in range(count)]

    with remote("gateway.py", faults) as (port, _process):
        return asyncio.run(main(port))


@pytest.mark.parametrize("fault", ["lost", "429", "502", "503", "504", "408"])
def test_what_passes_is_waited_out(tmp_path: Path, fault: str) -> None:
    results = called(tmp_path, f"ok,{fault}", 4)
    assert [result.text for result in results] == ["1", "2", "3", "4"]
    assert not any(result.is_error for result in results)


@pytest.mark.parametrize("fault", ["503", "500", "lost,lost"])
def test_what_stays_is_no_answer_of_the_tool(tmp_path: Path, fault: str) -> None:
    first, failed = called(tmp_path, f"ok,{','.join([fault] * 8)}", 2)
    assert first.text == "1"
    assert failed.down
    assert "HTTP status" in failed.text or "lost the session" in failed.text


def test_a_proxy_of_the_environment_is_the_way_to_a_remote_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"g": {"url": "http://far.invalid/mcp"}}}))

    async def main() -> ToolResult:
        async with Servers(load_servers(path)) as running:
            return await running.call("g__count", {})

    with remote("gateway.py") as (port, _process):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        assert asyncio.run(main()).text == "1"


@pytest.mark.parametrize(
    ("asked", "seconds"), [("3", 3.0), ("900", 15.0), ("", 0.5), ("soon", 0.5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
def test_a_server_says_how_long_to_wait(asked: str, seconds: float) -> None:
    assert http._asked_for({"retry-after": asked}, 0.5) == seconds


def test_the_data_does_not_depend_on_trouble_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty faults by chance: lost sessions and bad gateways over HTTP, deaths and hangs of a local process."""
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    monkeypatch.setattr("synthesis.servers.session.PING_S", 0.2)
    chance = random.Random(7)
    remotely = [chance.choice(["ok"] * 6 + ["lost", "429", "502", "503", "504"]) for _ in range(60)]
    locally = {number: chance.choice(["die", "hang"]) for number in chance.sample(range(5, 90), 8)}
    assert sum(fault != "ok" for fault in remotely) + len(locally) > 20
    found = []
    for name, gateway, process in (
        ("quiet", "ok", ""),
        ("bad", ",".join(remotely), ",".join(f"{number}:{fault}" for number, fault in locally.items())),
    ):
        with remote("gateway.py", gateway) as (port, _process):
            path = servers(tmp_path / name, port)
            _add_local(path, process)
            synthesize(path, tmp_path / name / "run", positives=16, negatives=3, per_tool=4)
        lines = (tmp_path / name / "run" / "negatives.jsonl").read_text().splitlines()
        found.append(sorted((row["id"], row["executed"]) for row in map(json.loads, lines)))
    assert found[0] == found[1]
    assert len(found[0]) > 40


def _add_local(path: Path, faults: str) -> None:
    words = {"type": "string", "description": "For example 'oak', 'elm' or 'yew'"}
    schema = {"type": "object", "properties": {"tree": words}, "required": ["tree"]}
    marks = {"annotations": {"readOnlyHint": True}}
    both = ("fell", "plant")
    tools = [{"name": name, "description": f"{name} a tree.", "inputSchema": schema, **marks} for name in both]
    path.with_name("tools.json").write_text(json.dumps(tools))
    document = json.loads(path.read_text())
    arguments = [str(HERE / "faulty" / "listing.py"), "tools.json", faults]
    document["mcpServers"]["l"] = {"command": sys.executable, "args": arguments, "rise": {"timeout_s": 0.5}}
    path.write_text(json.dumps(document))
