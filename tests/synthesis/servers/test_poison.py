"""A server that means harm: no secret, nothing hidden and no flood in a run, and the run says what happened."""

import asyncio
import base64
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from runs import ROOT, hashes, servers_file

from synthesis import pipeline
from synthesis.errors import UserError
from synthesis.pipeline import synthesize
from synthesis.servers.server_set import Servers, load_servers

POISON = str(Path(__file__).parents[1] / "faulty" / "poison.py")
KEY, TOKEN = "hunter-2/sesame&more", "tok-9f8e7d6c5b"


def poisoned(folder: Path, *args: str, **rise: Any) -> Path:
    """A servers file with the poisoned server, which gets a literal secret and one by `${VAR}`."""
    entry = {
        "command": sys.executable,
        "args": [POISON, *args],
        "env": {"API_KEY": KEY, "TOKEN": "${RISE_TEST_TOKEN}"},
        "rise": {"timeout_s": 1.5, **rise},
    }
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"p": entry}}))
    return path


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISE_TEST_TOKEN", TOKEN)
    monkeypatch.setattr("synthesis.servers.session.PING_S", 0.3)


def secret_forms() -> list[str]:
    encoded = [base64.b64encode(bytes(shift) + KEY.encode()).decode()[4:20] for shift in range(3)]
    return [KEY, TOKEN, "sesame", quote(KEY, safe=""), KEY.encode().hex(), *encoded]


def hidden(text: str) -> set[str]:
    return {char for char in text if char not in "\n\t" and unicodedata.category(char)[0] == "C"}


def test_a_poisoned_server_leaves_nothing_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    run = tmp_path / "run"
    made = synthesize(poisoned(tmp_path), run, positives=4, negatives=2, per_tool=4)
    assert made.counts["positives"] == 4
    for path in (path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes().decode(errors="replace")
        assert len(content) < 400_000, path
        for form in secret_forms():
            assert form not in content, (path, form)
    primitives = [json.loads(line) for line in (run / "primitives.jsonl").read_text().splitlines()]
    assert any("<secret>" in primitive["result"] for primitive in primitives)
    for primitive in primitives:
        assert not hidden(primitive["result"] + primitive["reason"] + primitive["server_version"])
    reasons = {
        name: [p["reason"] for p in primitives if p["tool"] == f"p__{name}"] for name in ("dump_log", "wait_forever")
    }
    assert "it sent a message of more than 8 MiB" in reasons["dump_log"][0]
    assert "it hangs" in reasons["wait_forever"][0]
    for found in reasons.values():
        assert found[3:] == ["server_down: not tried, the tool was given up"] * len(found[3:])
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["tools_given_up"]) == {"p__dump_log", "p__wait_forever"}
    assert manifest["servers_given_up"] == {}
    assert "messages over 8 MiB refused" in manifest["isolation"]
    error_output = capsys.readouterr().err
    for tool in manifest["tools_given_up"]:
        assert f"tool {tool} was given up: 3 calls of it took the server down" in error_output
    assert not hidden(error_output)


@pytest.mark.skipif(not (ROOT / ".servers").is_dir(), reason="no MCP servers: make setup")
def test_a_server_that_keeps_dying_is_left_out_and_a_resumed_run_leaves_it_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: dict[str, Any] = {"positives": 10, "negatives": 2, "per_tool": 4}
    entry = json.loads(poisoned(tmp_path, "dying").read_text())["mcpServers"]["p"]
    path = servers_file(tmp_path, p=entry)
    made = synthesize(path, tmp_path / "a", **wanted)
    assert made.counts["positives"] == 10
    assert '"p__' not in (tmp_path / "a" / "trajectories.jsonl").read_text()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert list(manifest["servers_given_up"]) == ["p"]
    said = "server p was given up, its data is left out: 3 or more of its tools took it down 3 times each."
    error_output = capsys.readouterr().err
    assert said in error_output
    assert "server p died in a call of" in error_output
    assert "server p was given up" in (tmp_path / "a" / "dataset" / "README.md").read_text()
    (tmp_path / "b").mkdir()
    lines = (tmp_path / "a" / "primitives.jsonl").read_bytes().splitlines(keepends=True)
    half = next(number for number, line in enumerate(lines) if b"server_down" in line) + 4
    (tmp_path / "b" / "primitives.jsonl").write_bytes(b"".join(lines[:half]))
    (tmp_path / "b" / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    synthesize(path, tmp_path / "b", **wanted)
    assert hashes(tmp_path / "b" / "dataset") == hashes(tmp_path / "a" / "dataset")


def test_descriptions_and_schemas_are_cleaned(tmp_path: Path) -> None:
    async def main() -> None:
        async with Servers(load_servers(poisoned(tmp_path))) as servers:
            assert servers.versions == {"p": "6.6"}
            text = json.dumps([tool.model_dump() for tool in servers.tools.values()], ensure_ascii=False)
            assert not hidden(text)
            assert not any(form in text for form in secret_forms())
            assert "<secret>" in text

    asyncio.run(main())


@pytest.mark.parametrize("way", ["drift", "restart"])
def test_tools_that_change_during_a_run_stop_it(tmp_path: Path, way: str) -> None:
    async def call_again(servers: Servers) -> None:
        if way == "restart":
            await servers.reset(["p"])
        await servers.call("p__lookup_note", {"topic": "b"})

    async def main() -> None:
        path = poisoned(tmp_path, way, "/data/mark", state="memory")
        async with Servers(load_servers(path)) as servers:
            await servers.call("p__lookup_note", {"topic": "a"})
            with pytest.raises(UserError, match=r"server p changed its tools during the run \(dump_log, ") as caught:
                await call_again(servers)
            assert "starting with <secret>" in str(caught.value)
            assert not hidden(str(caught.value))

    asyncio.run(main())
