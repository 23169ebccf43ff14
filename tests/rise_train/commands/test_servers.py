"""`rise servers`: what a user sees of servers that work and of servers that do not."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from rise_train.cli import main

FAULTY = str(Path(__file__).parents[2] / "synthesis" / "faulty" / "server.py")


def servers_file(folder: Path, **entries: dict[str, Any]) -> str:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    return str(path)


def faulty(*args: str, **rise: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [FAULTY, *args], "rise": rise}


def test_list_says_which_tools_may_run_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = faulty(allow=["count", "write"], deny=["write"], state="memory", field="faults")
    with pytest.raises(SystemExit) as caught:
        main(["servers", "list", servers_file(tmp_path, f=entry, g=faulty())])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "f 1.2.3: 2 of 15 tools may run; state memory; field faults"
    assert [line.split() for line in lines[1:3]] == [["allowed", "f__count"], ["read-only", "f__echo"]]
    assert "  denied      f__write" in lines
    assert "  not allowed f__die" in lines
    assert "g 1.2.3: 1 of 15 tools may run; state files; field none" in lines


def test_probe_shows_what_works_and_what_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = servers_file(tmp_path, good=faulty(), old=faulty("old-sdk"), mute=faulty("silent", startup_s=0.5))
    with pytest.raises(SystemExit) as caught:
        main(["servers", "probe", path])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    good, isolation, old, mute = printed.out.splitlines()
    assert re.fullmatch(r"ok      good 1\.2\.3: 1 of 15 tools may run; started in \d+\.\d s, ping \d+ ms", good)
    assert "GiB of memory" in isolation
    assert old.startswith("FAILED  server old does not start: Connection closed; it needs mcp<2")
    assert mute.startswith("FAILED  server mute does not start: it did not answer within 0.5 s")
    assert printed.err == f"error: {path}: 2 of 3 servers do not work.\n"


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["servers", "probe", str(tmp_path / "none.json")])
    assert caught.value.code == 2
    assert "expected a servers file that can be read" in capsys.readouterr().err
