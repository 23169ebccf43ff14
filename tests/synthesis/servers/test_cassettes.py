"""Record once with real servers, replay without any: the same bytes, and refusals where that cannot be."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import ROOT, hashes, servers_file

from synthesis.errors import UserError
from synthesis.pipeline import synthesize
from synthesis.servers.cassettes import CassetteServers
from synthesis.servers.server_set import Servers, load_servers

FAULTY = str(Path(__file__).parents[1] / "faulty" / "server.py")
needs_servers = pytest.mark.skipif(
    not (ROOT / ".servers").is_dir(), reason="the MCP servers are not set up: make setup"
)


def faulty_file(folder: Path, **rise: Any) -> Path:
    path = folder / "mcp.json"
    entries = {
        name: {"command": sys.executable, "args": [FAULTY], "rise": {"allow": "all", "state": state, **rise}}
        for name, state in (("m", "memory"), ("f", "files"))
    }
    path.write_text(json.dumps({"mcpServers": entries}))
    return path


@needs_servers
def test_a_replayed_run_is_the_recorded_one_to_the_byte(tmp_path: Path) -> None:
    path, tape = servers_file(tmp_path), tmp_path / "tape.jsonl"
    wanted: dict[str, Any] = {"positives": 20, "negatives": 2, "per_tool": 3}
    synthesize(path, tmp_path / "a", **wanted, record=tape)
    recorded = tape.read_bytes()
    path.write_text(path.read_text().replace(".servers", ".nowhere"))
    with pytest.raises(UserError, match="was recorded with another servers file or sandbox; record it again"):
        synthesize(path, tmp_path / "b", **wanted, replay=tape)
    path.write_text(path.read_text().replace(".nowhere", ".servers"))
    synthesize(path, tmp_path / "b", **wanted, replay=tape, fresh=True)
    first, second = hashes(tmp_path / "a"), hashes(tmp_path / "b")
    del first["manifest.json"], second["manifest.json"]  # it holds how long the stages took
    assert first == second
    assert tape.read_bytes() == recorded
    with pytest.raises(UserError, match="--record, --replay: expected one"):
        synthesize(path, tmp_path / "c", record=tape, replay=tape)


Call = tuple[str, dict[str, Any]]
SCRIPT: list[Call | list[str]] = [
    ("m__count", {}),
    ("m__count", {}),
    ("f__write", {"path": "/data/a", "text": "one"}),
    ("f__read", {"path": "/data/a"}),
    ["f"],
    ("f__read", {"path": "/data/a"}),
    ("m__count", {}),
    ["m"],
    ("m__count", {}),
    ("f__environment", {}),
]
"""Calls, and resets of the named servers, whose answers depend on all that came before."""


async def play(servers: Servers | CassetteServers) -> list[tuple[str, bool]]:
    answers = []
    async with servers:
        for step in SCRIPT:
            if isinstance(step, list):
                await servers.reset(step)
            else:
                result = await servers.call(*step)
                answers.append((result.text, result.is_error))
    return answers


def test_an_answer_belongs_to_the_files_and_the_memory_that_it_met(tmp_path: Path) -> None:
    file, tape = load_servers(faulty_file(tmp_path)), tmp_path / "tape.jsonl"
    recorded = asyncio.run(play(CassetteServers(tape, file, Servers(file))))
    assert [text for text, _ in recorded[:2]] == ["1", "2"]
    assert recorded[3] == ("one", False)
    assert recorded[4][1], "the file is gone"
    assert [recorded[5][0], recorded[6][0]] == ["3", "1"]
    assert asyncio.run(play(CassetteServers(tape, file))) == recorded
    size = tape.stat().st_size
    assert asyncio.run(play(CassetteServers(tape, file, Servers(file)))) == recorded
    assert tape.stat().st_size == size, "what is there is not recorded twice"


def refusal(tape: Path, path: Path, live: bool = False) -> str:
    async def main() -> str:
        file = load_servers(path)
        with pytest.raises(UserError) as caught:
            async with CassetteServers(tape, file, Servers(file) if live else None) as servers:
                await servers.call("f__echo", {"x": 1})
        return str(caught.value)

    return asyncio.run(main())


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path, tape = faulty_file(tmp_path), tmp_path / "tape.jsonl"
    assert "expected a cassette that can be read" in refusal(tape, path)
    file = load_servers(path)
    asyncio.run(play(CassetteServers(tape, file, Servers(file))))
    assert 'holds no answer to f__echo {"x": 1} at this point; record it again' in refusal(tape, path)
    good = tape.read_text()
    header, rest = good.split("\n", 1)
    changed = json.loads(header)
    changed["listing"]["tools"]["f__echo"]["description"] = "Something else."
    tape.write_text(json.dumps(changed) + "\n" + rest)
    assert "the schema of f__echo is not the one that it was recorded with" in refusal(tape, path)
    changed = json.loads(header)
    changed["listing"]["schema_hashes"]["f__read"] = "0"
    tape.write_text(json.dumps(changed) + "\n" + rest)
    assert "the schema of f__read is not" in refusal(tape, path, live=True)
    tape.write_text(rest)
    assert "whose first line lists the tools" in refusal(tape, path)
    tape.write_text("{}\n")
    assert "a line is none" in refusal(tape, path)
