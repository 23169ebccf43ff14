"""Servers files as people and their editors write them, and what in them is a secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from synthesis.errors import UserError
from synthesis.servers.mcp_config import ServerConfig, load_servers


def load(folder: Path, text: str) -> list[ServerConfig]:
    path = folder / "mcp.json"
    path.write_text(text, encoding="utf-8")
    return load_servers(path).servers


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff{"mcpServers": {"a": {"command": "x", "args": ["http://h/y", "a, ]"]}}}',
        '{"mcpServers": {"a": {"command": "x", "args": ["http://h/y", "a, ]",],},},}',
        '// a\n{"servers": {/* b, */ "a": {"command": "x", // c "d"\n "args": ["http://h/y", "a, ]", /* e */ ]}}}',
    ],
)
def test_comments_commas_and_the_byte_order_mark_are_read_over(tmp_path: Path, text: str) -> None:
    (server,) = load(tmp_path, text)
    assert server.args == ["http://h/y", "a, ]"]


def test_a_fault_in_a_file_with_comments_is_told_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 3, column 1: expected valid JSON"):
        load(tmp_path, '{ // one\n "mcpServers": /* two */\n}')


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}, {"isActive": False}])
@pytest.mark.parametrize(
    "entry", [{"command": "x", "env": {"K": "${input:k}"}}, {"args": ["x"]}, {"command": "x", "args": ["${NONE_SET}"]}]
)
def test_an_entry_that_is_off_is_not_looked_at(tmp_path: Path, off: dict[str, Any], entry: dict[str, Any]) -> None:
    document = {"mcpServers": {"on": {"command": "x"}, "off": entry | off}}
    assert [server.name for server in load(tmp_path, json.dumps(document))] == ["on"]


def test_paths_beside_the_file_are_found_from_wherever_the_server_starts(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    (tmp_path / "serve.py").touch()
    arguments = [
        "serve.py",
        "./serve.py",
        "./servers",
        "servers",
        "--file=serve.py",
        "./none",
        "-m",
        "${workspaceFolder}/x",
    ]
    found = [str(tmp_path / "serve.py"), str(tmp_path / "serve.py"), str(tmp_path / "servers"), "servers"]
    found += [f"--file={tmp_path / 'serve.py'}", "./none", "-m", f"{tmp_path}/x"]
    entry = {"command": "python3", "args": arguments}
    inside, elsewhere = load(tmp_path, json.dumps({"servers": {"a": entry, "b": entry | {"cwd": "/data"}}}))
    assert inside.args == found
    assert elsewhere.args == [*arguments[:-1], f"{tmp_path}/x"], "its cwd says where its paths start"


KEY = "bk_live_4f9Q2xT7mZ81kLpA"


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "x", "args": ["--api-key", KEY]},
        {"command": "x", "args": [f"--token={KEY}"]},
        {"command": "docker", "args": ["run", "-e", f"SERVICE_API_KEY={KEY}"]},
        {"command": "x", "args": ["--accessToken", KEY]},
        {"command": "x", "args": [f"postgres://me:{KEY}@host/db"]},
        {"command": "x", "args": [f"--url=https://host/mcp?key={KEY}"]},
        {"command": "x", "env": {"DATABASE": f"postgres://me:{KEY}@host/db"}},
        {"command": "x", "env": {"ANYTHING": KEY}},
        {"url": f"https://host/mcp?api_key={KEY}"},
        {"url": f"https://host/mcp?q={KEY}"},
        {"url": "https://host/mcp", "headers": {"Authorization": f"Bearer {KEY}"}},
    ],
)
def test_a_key_is_hidden_wherever_the_entry_holds_it(tmp_path: Path, entry: dict[str, Any]) -> None:
    (server,) = load(tmp_path, json.dumps({"mcpServers": {"a": entry}}))
    assert server.redact(f"GET /v1?key={KEY} failed") == "GET /v1?key=<secret> failed"


def test_a_word_behind_the_name_of_a_secret_is_hidden_and_ordinary_words_are_not(tmp_path: Path) -> None:
    words = {"AWS_REGION": "us-east-1", "AWS_PROFILE": "default", "STAGE": "production", "FASTMCP_LOG_LEVEL": "WARNING"}
    words |= {"LANG": "en_US.UTF-8", "HOST": "localhost:3000", "KEYBOARD": "qwertz", "AUTHOR": "Conrad"}
    entry = {
        "command": "x",
        "env": words | {"DB_PASSWORD": "sesame"},
        "args": ["--author", "Conrad", "--region", "us-east-1"],
    }
    (server,) = load(tmp_path, json.dumps({"mcpServers": {"a": entry}}))
    assert server.secrets == {"sesame"}
