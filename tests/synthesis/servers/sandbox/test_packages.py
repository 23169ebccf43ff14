"""Entries that fetch what they run start without network later; what servers with network are told of it."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from broken import HERE
from runs import hashes

from rise_train.commands.servers import prepare
from synthesis.errors import UserError
from synthesis.records import ToolResult
from synthesis.servers.sandbox.launcher import probe
from synthesis.servers.sandbox.packages import fetches, home_of
from synthesis.servers.server_set import Servers, load_servers

needs_closed_network = pytest.mark.skipif(not probe().network_namespace, reason="the kernel has no network namespaces")
RUNNER = """#!/bin/sh
package="$HOME/.cache/packages/$1.py"
if [ ! -f "$package" ]; then
    [ "$UV_OFFLINE" != 1 ] || exit 7
    mkdir -p "$HOME/.cache/packages"
    PYTHON -c "import urllib.request as u; u.urlretrieve('http://127.0.0.1:PORT/$1.py', '$package')" || exit 1
fi
echo started >> "$HOME/started"
exec PYTHON "$package" "$2"
"""
TOOL = {
    "name": "tell_all",
    "description": "Tell.",
    "inputSchema": {"type": "object", "properties": {}},
    "annotations": {"readOnlyHint": True},
}


@contextmanager
def package_index() -> Iterator[tuple[int, list[str]]]:
    """The port of an HTTP server that has `listing.py`, and what was fetched from it."""
    fetched: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(HERE / "faulty"))

        def log_message(self, _form: str, *arguments: Any) -> None:
            fetched.append(str(arguments[0]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], fetched
    server.shutdown()
    server.server_close()


def told(path: Path) -> ToolResult:
    async def main() -> ToolResult:
        async with Servers(load_servers(path)) as running:
            return await running.call("s__tell_all", {})

    return asyncio.run(main())


def entry(folder: Path, command: str, arguments: list[str], **rise: Any) -> Path:
    (folder / "tools.json").write_text(json.dumps([TOOL]))
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"s": {"command": command, "args": arguments, "rise": rise}}}))
    return path


@needs_closed_network
def test_what_an_entry_fetches_is_fetched_once_and_starts_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with package_index() as (port, fetched):
        runner = tmp_path / "uvx"
        runner.write_text(RUNNER.replace("PYTHON", sys.executable).replace("PORT", str(port)))
        runner.chmod(0o755)
        path = entry(tmp_path, str(runner), ["listing", "tools.json"])
        with pytest.raises(UserError, match=r"no network, so fetch what it runs once with `rise servers prepare`"):
            told(path)
        assert fetched == []
        prepare(path)
        assert len(fetched) == 1
        assert capsys.readouterr().out.startswith("fetched s 1: 0.0 MB in ")
        config = load_servers(path).servers[0]
        kept = home_of(config.name, config.command, config.args)
        before = hashes(kept)
        for _ in range(2):
            assert not told(path).is_error
        assert len(fetched) == 1
        assert hashes(kept) == before, "a server writes into its copy only"
    with pytest.raises(UserError, match="1 of 1 servers could not be fetched"):
        prepare(path)
    assert "FAILED  server s does not start" in capsys.readouterr().out
    assert not told(path).is_error, "what was fetched before is still there"
    (kept / ".rise_prepared").unlink()
    with pytest.raises(UserError, match="rise servers prepare"):
        told(path)


def test_which_commands_fetch() -> None:
    assert all(map(fetches, ("uvx", "npx", "/opt/bin/uv", "C:\\node\\npx.cmd", "bunx", "pipx")))
    assert not any(map(fetches, ("python", "node", "./npx-server", "my-uvx", "docker", "")))


def test_where_nothing_fetches_there_is_nothing_to_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(entry(tmp_path, sys.executable, []))
    assert "nothing to fetch" in capsys.readouterr().out


@pytest.mark.parametrize("network", [True, False])
def test_what_the_environment_says_of_the_network_reaches_only_servers_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    said = {
        "HTTPS_PROXY": "http://anna:s3same.9@proxy.example:3128",
        "no_proxy": "localhost,127.0.0.1",
        "SSL_CERT_FILE": "/etc/own/authority.pem",
        "NODE_EXTRA_CA_CERTS": "/etc/own/authority.pem",
        "UV_INDEX": "own=https://ghp_16C7e42F29@packages.example/simple",
        "npm_config_registry": "https://packages.example/npm/",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UV_CACHE_DIR", "/somewhere/else")
    monkeypatch.setenv("OTHER_API_KEY", "never-passed-on")
    path = entry(tmp_path, sys.executable, [str(HERE / "faulty" / "listing.py"), "tools.json"], network=network)
    text = told(path).text
    environment = json.loads(text.removeprefix("done: "))[1]
    assert {name: name in environment for name in said} == dict.fromkeys(said, network)
    assert "UV_CACHE_DIR" not in environment
    assert "OTHER_API_KEY" not in environment
    if network:
        assert environment["HTTPS_PROXY"] == "http://anna:<secret>@proxy.example:3128"
        assert environment["UV_INDEX"] == "own=https://<secret>@packages.example/simple"
        assert environment["npm_config_registry"] == said["npm_config_registry"]


def test_a_server_that_misses_the_network_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"if it needs one, set rise\.network to true"):
        told(entry(tmp_path, "sh", ["-c", "echo getaddrinfo EAI_AGAIN api.example.com >&2; exit 1"]))
