"""Servers files, good and bad; servers that behave, and servers that do not."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broken import FAULTY, HERE, needs_landlock, remote

from synthesis.errors import UserError
from synthesis.servers.sandbox.launcher import probe
from synthesis.servers.server_set import Servers, load_servers

TINY = HERE.parents[1] / "recipes" / "tiny" / "mcp.json"


def write(folder: Path, document: object) -> Path:
    """The document as a servers file; text is written as it is."""
    path = folder / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def faulty(folder: Path, *args: str, rise: dict | None = None, **entry: object) -> Path:
    """A servers file with one server, the faulty one, named `f`."""
    options = {"allow": "all", "timeout_s": 1} | (rise or {})
    return write(
        folder, {"mcpServers": {"f": {"command": sys.executable, "args": [FAULTY, *args], "rise": options} | entry}}
    )


def running(path: Path) -> Servers:
    return Servers(load_servers(path))


BAD_FILES = [
    ("{", "line 1, column 2: expected valid JSON"),
    ("[]", "expected an object `mcpServers`"),
    ({"mcpServers": []}, "expected an object `mcpServers`"),
    ({"mcpServers": {}}, "at least one server"),
    ({"mcpServers": {"a": 3}}, "mcpServers.a: expected an object"),
    ({"mcpServers": {"a": {}}}, "mcpServers.a: expected either `command`"),
    ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "expected either"),
    ({"mcpServers": {"a": {"command": 3}}}, "mcpServers.a.command: .*valid string"),
    ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "mcpServers.a.args: .*valid list"),
    ({"mcpServers": {"a": {"command": "x", "args": ["y", 1]}}}, r"mcpServers.a.args.1: .*valid string"),
    ({"mcpServers": {"a": {"command": "x", "env": {"K": 1}}}}, "mcpServers.a.env.K"),
    ({"mcpServers": {"a": {"command": "x", "rise": {"alow": []}}}}, "mcpServers.a.rise.alow: unknown key"),
    ({"mcpServers": {"a": {"command": "x", "rise": {"allow": "every"}}}}, "mcpServers.a.rise.allow"),
    ({"mcpServers": {"a": {"command": "x", "rise": {"state": "disk"}}}}, "mcpServers.a.rise.state"),
    ({"mcpServers": {"a": {"command": "x", "rise": {"timeout_s": 0}}}}, "mcpServers.a.rise.timeout_s"),
    ({"mcpServers": {"a": {"command": "x", "rise": {"errors": ["("]}}}}, "errors.0: .*expected a regular expression"),
    ({"mcpServers": {"a": {"command": "x", "env": {"K": "${NO_SUCH_VAR}"}}}}, "a.env.K: .*NO_SUCH_VAR is not set"),
    ({"mcpServers": {"a": {"command": "x", "args": ["${input:key}"]}}}, "a.args.0: only .*input:key"),
    (
        {"mcpServers": {"a": {"url": "http://x", "rise": {"allow": "all"}}}},
        "a.rise.allow: a remote server has no sandbox",
    ),
    ({"mcpServers": {"a": {"command": "x", "disabled": True}}}, "not disabled"),
    (
        {"mcpServers": {"a": {"command": "x"}}, "rise": {"sandbox": {"template": "nowhere"}}},
        "template: expected an existing",
    ),
    (
        {"mcpServers": {"a": {"command": "x"}}, "rise": {"sandbox": {"setup": "nowhere"}}},
        "setup: expected an existing file",
    ),
    ({"mcpServers": {"a": {"command": "x"}}, "rise": {"box": 1}}, "rise.box: unknown key"),
    ({"mcpServers": {"a": {"command": "x"}}, "rise": []}, "mcp.json: rise"),
]


@pytest.mark.parametrize(("document", "message"), BAD_FILES)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, document, message):
    path = write(tmp_path, document)
    with pytest.raises(UserError, match=message) as caught:
        load_servers(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_servers(tmp_path / "none.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match="UTF-8"):
        load_servers(tmp_path / "x.json")


def test_what_other_programs_write_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("RISE_TEST_KEY", "s3cret-value")
    entry = {
        "type": "stdio", "command": "bin/tool", "args": ["${RISE_TEST_KEY}", "${NONE_SUCH:-spare}", "$HOME"],
        "alwaysAllow": [],
        "env": {"KEY": "${env:RISE_TEST_KEY}"}, "cwd": "work", "timeout": 60, "headers": None,
    }  # fmt: skip
    (tmp_path / "box").mkdir()
    document = {
        "servers": {"a": entry, "b": {"type": "http", "url": "https://x/${RISE_TEST_KEY}", "headers": {"A": "token-1"}}}
    }
    file = load_servers(write(tmp_path, document | {"inputs": [], "rise": {"sandbox": {"template": "box"}}}))
    a, b = file.servers
    assert a.command == str(tmp_path / "bin/tool")
    assert a.args == ["s3cret-value", "spare", "$HOME"]
    assert a.env == {"KEY": "s3cret-value"}
    assert a.cwd == str(tmp_path / "work")
    assert file.template == tmp_path / "box"
    assert b.url == "https://x/s3cret-value"
    assert (b.redact("s3cret-value token-1"), a.redact("token-1")) == ("<secret> <secret>", "token-1")
    assert "s3cret" not in repr(b)
    assert "token-1" not in repr(b)
    assert "s3cret" not in str(b.model_dump_json(exclude={"url", "env", "args", "headers"}))


def test_calls_and_their_results(tmp_path):
    async def main() -> None:
        async with running(faulty(tmp_path, "noisy")) as servers:
            assert list(servers.tools) == sorted(servers.tools)
            assert len(servers.tools) == 15  # two pages
            assert servers.tools["f__echo"].read_only
            assert not servers.tools["f__count"].read_only
            assert servers.versions == {"f": "1.2.3"}
            assert servers.isolation.startswith(probe().describe())
            echo = await servers.call("f__echo", {"path": "/data/x", "deep": [{"p": "/data"}]})
            assert not echo.is_error
            assert echo.latency_ms > 0
            assert json.loads(echo.text) == {"arguments": {"path": "/data/x", "deep": [{"p": "/data"}]}, "cwd": "/data"}
            await servers.call("f__write", {"path": "/data/x", "text": "see /data/y"})
            assert (await servers.call("f__read", {"path": "/data/x"})).text == "see /data/y"
            assert (await servers.call("f__read", {"path": "x"})).text == "see /data/y"
            assert (await servers.call("f__image", {})).text == "[image image/png]\nseen"
            failed = await servers.call("f__read", {"path": "/data/none"})
            assert (failed.is_error, "'/data/none'" in failed.text) == (True, True)
            refused = await servers.call("f__refuse", {})
            assert (refused.is_error, refused.text) == (True, "protocol error -32602: refused by protocol")
            broken = await servers.call("f__broken", {})
            assert broken.is_error
            assert "not valid" in broken.text
            unknown = await servers.call("f__none", {})
            assert (unknown.is_error, unknown.text) == (True, "Unknown tool: f__none")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("rise", "names"),
    [
        ({"allow": []}, ["echo"]),
        ({"allow": ["count"]}, ["count", "echo"]),
        ({"allow": ["count"], "deny": ["echo"]}, ["count"]),
    ],
)
def test_only_tools_with_consent_run(tmp_path, rise, names):
    async def main() -> None:
        async with running(faulty(tmp_path, rise=rise)) as servers:
            assert [tool.name for tool in servers.tools.values()] == names
            refused = await servers.call("f__write", {"path": "/data/x"})
            assert (refused.is_error, refused.text) == (True, "Unknown tool: f__write")

    asyncio.run(main())


def fails_to_start(path: Path) -> str:
    async def main() -> str:
        with pytest.raises(UserError) as caught:
            async with running(path):
                pass
        return str(caught.value)

    return asyncio.run(main())


def test_consent_for_a_tool_that_is_not_there_is_refused(tmp_path):
    assert "f.rise.allow: the server has no tool cuont (did you mean count?)" in fails_to_start(
        faulty(tmp_path, rise={"allow": ["cuont"]})
    )


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path):
    started = time.monotonic()
    message = fails_to_start(faulty(tmp_path, "old-sdk"))
    assert message.startswith("server f does not start: Connection closed; it needs mcp<2: uvx --with 'mcp<2'")
    assert "No module named 'mcp.server.fastmcp'" in message
    missing = write(tmp_path, {"mcpServers": {"g": {"command": "no-such-program"}}})
    assert fails_to_start(missing) == (
        "server g does not start: command no-such-program was not found, or cannot be executed"
    )
    assert "its cwd /none is no folder" in fails_to_start(faulty(tmp_path, cwd="/none"))
    assert time.monotonic() - started < 8


def test_a_silent_server_is_given_up_in_time(tmp_path):
    started = time.monotonic()
    assert "it did not answer within 0.5 s" in fails_to_start(faulty(tmp_path, "silent", rise={"startup_s": 0.5}))
    assert time.monotonic() - started < 6


def test_one_bad_server_ends_the_others_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    entries = {
        "good": {"command": sys.executable, "args": [FAULTY]},
        "bad": {"command": sys.executable, "args": ["-c", "1"]},
    }
    assert "server bad does not start" in fails_to_start(write(tmp_path, {"mcpServers": entries}))
    assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]
    assert not _children_running(FAULTY)


def _children_running(word: str) -> list[int]:
    """Processes of this session's own whose command line holds `word`."""
    done = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [int(line.split()[0]) for line in done.stdout.splitlines() if word in line]


def test_a_slow_call_costs_only_itself(tmp_path):
    """The server answers a ping after the timeout, so it keeps its process and its memory."""

    async def main() -> None:
        async with running(faulty(tmp_path, rise={"timeout_s": 0.4})) as servers:
            assert (await servers.call("f__count", {})).text == "1"
            slow = await servers.call("f__slow", {"seconds": 1.2})
            assert (slow.is_error, slow.text) == (True, "no answer within 0.4 s")
            assert (await servers.call("f__count", {})).text == "2"

    asyncio.run(main())


def test_a_call_that_took_too_long_does_not_write_into_the_next_sandbox(tmp_path):
    async def main() -> None:
        async with running(faulty(tmp_path, rise={"timeout_s": 0.3})) as servers:
            late = await servers.call("f__write_late", {"path": "/data/late", "seconds": 0.8})
            assert (late.down, late.text) == (True, "no answer within 0.3 s")
            await servers.reset([])
            await asyncio.sleep(1)
            assert servers.state() == ""

    asyncio.run(main())


def test_a_server_that_hangs_or_dies_is_restarted_until_it_died_too_often_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr("synthesis.servers.session.PING_S", 0.2)
    monkeypatch.setattr("synthesis.servers.supervisor.MAX_DEATHS", 2)

    async def main() -> None:
        async with running(faulty(tmp_path, rise={"timeout_s": 0.2})) as servers:
            assert (await servers.call("f__count", {})).text == "1"
            assert servers.last_words("f") == ""
            hung = await servers.call("f__hang", {})
            assert (hung.is_error, hung.down) == (True, True)
            assert "it hangs: no answer within 0.2 s, nor to a ping" in hung.text
            assert (await servers.call("f__count", {})).text == "1"
            died, counted = await asyncio.gather(servers.call("f__die", {}), servers.call("f__count", {}))
            assert (died.is_error, died.down, died.text) == (True, True, "the server died: Connection closed")
            assert (counted.text, counted.down) == ("1", False)
            assert (await servers.call("f__die", {})).down
            last = servers.last_words("f")
            assert last.startswith("server f died in a call of die: Connection closed; its error output ends with: ")
            assert last.endswith("the last words")
            with pytest.raises(UserError, match=r"server f died again and again with no answer between; .*last words"):
                await servers.call("f__die", {})

    asyncio.run(main())
    assert not _children_running(FAULTY)


def test_leaving_while_a_call_hangs_is_quick(tmp_path):
    async def main() -> None:
        async with running(faulty(tmp_path, rise={"timeout_s": 60})) as servers:
            call = asyncio.create_task(servers.call("f__hang", {}))
            await asyncio.sleep(0.3)
            call.cancel()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 8
    assert not _children_running(FAULTY)


def test_reset_restores_files_and_memory_where_it_has_to(tmp_path):
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "a.txt").write_text("first")
    entries = {
        state: {
            "command": sys.executable,
            "args": [FAULTY, "marked", f"/data/{state}"],
            "rise": {"allow": "all", "state": state},
        }
        for state in ("memory", "files")
    }
    path = write(tmp_path, {"mcpServers": entries, "rise": {"sandbox": {"template": "box"}}})

    async def main() -> None:
        async with running(path) as servers:
            for _time in range(2):
                await servers.call("files__write", {"path": "/data/a.txt", "text": "second"})
                await servers.call("files__write", {"path": "/data/b.txt", "text": "new"})
                assert (await servers.call("files__read", {"path": "/data/a.txt"})).text == "second"
                assert (await servers.call("memory__count", {})).text == "1"
                await servers.reset(["files", "memory"])
                assert (await servers.call("files__read", {"path": "/data/a.txt"})).text == "first"
                assert (await servers.call("files__read", {"path": "/data/b.txt"})).is_error
            assert (await servers.call("files__count", {})).text == "1"
            await servers.reset(["files", "memory"])
            assert (await servers.call("files__count", {})).text == "2"  # the same process
            # What a server wrote at its first start belongs to the first state; later starts come after it.
            assert (await servers.call("files__read", {"path": "/data/files"})).text == "start "
            await servers.call("memory__echo", {})
            await servers.reset(["memory"])
            # `echo` is marked read-only, which is not believed: the process was started again.
            assert (await servers.call("memory__read", {"path": "/data/memory"})).text == "start start "
            await servers.call("memory__write", {"path": "/data/memory", "text": "spoilt"})
            await servers.reset(["files", "memory"])
            assert (await servers.call("memory__read", {"path": "/data/memory"})).text == "start start "

    asyncio.run(main())


def test_secrets_and_clock_readings_stay_out_of_results(tmp_path, monkeypatch):
    monkeypatch.setenv("RISE_TEST_KEY", "s3cret-value")
    monkeypatch.setenv("RISE_OTHER_KEY", "not-for-servers")
    volatile = [r"\d{4}-\d\d-\d\d", r"at (\d+:\d+)"]

    async def main() -> None:
        async with running(faulty(tmp_path, env={"KEY": "${RISE_TEST_KEY}"}, rise={"volatile": volatile})) as servers:
            text = (await servers.call("f__environment", {})).text
            assert json.loads(text)["KEY"] == "<secret>"
            assert "not-for-servers" not in text
            assert json.loads(text)["HOME"] == "/home/f"
            text = (await servers.call("f__echo", {"when": "2026-01-02 at 10:30"})).text
            assert json.loads(text)["arguments"]["when"] == "<volatile> at <volatile>"

    asyncio.run(main())


@needs_landlock
def test_a_server_cannot_write_outside_the_sandbox(tmp_path):
    (tmp_path / "precious").write_text("old")

    async def main() -> None:
        async with running(faulty(tmp_path)) as servers:
            for path in (tmp_path / "precious", tmp_path / "new"):
                result = await servers.call("f__write", {"path": str(path)})
                assert result.is_error
                assert "PermissionError" in result.text
            await servers.call("f__link", {"path": "/data/way", "to": str(tmp_path)})
            assert (await servers.call("f__write", {"path": "/data/way/new"})).is_error
            assert not (await servers.call("f__write", {"path": "/data/fine"})).is_error

    asyncio.run(main())
    assert (tmp_path / "precious").read_text() == "old"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not probe().blocks_network, reason="the kernel cannot cut the network")
@pytest.mark.parametrize("network", [False, True])
def test_the_network_is_for_servers_that_may(tmp_path, network):
    async def main(port: int) -> None:
        async with running(faulty(tmp_path, rise={"network": network})) as servers:
            assert ("with network: f" in servers.isolation) == network
            result = await servers.call("f__dial", {"host": "127.0.0.1", "port": port})
            assert result.is_error != network

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(main(listener.getsockname()[1]))


def test_a_remote_server_serves_and_its_death_is_survived(tmp_path):
    async def main() -> None:
        with remote() as (port, _process):
            entry = {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"X-Key": "abcdef"}, "rise": {"allow": ["die"]}}
            async with running(write(tmp_path, {"mcpServers": {"r": entry}})) as servers:
                assert list(servers.tools) == ["r__die", "r__double", "r__whoami"]
                assert servers.versions == {"r": "7.0"}
                assert "with network: r" in servers.isolation
                assert (await servers.call("r__double", {"number": 21})).text == "42"
                assert (await servers.call("r__die", {})).down
                again = await servers.call("r__double", {"number": 1})
                assert again.down
                assert again.text.startswith("the server died: it does not start again: ")

    asyncio.run(main())


def test_all_nine_embedded_servers_start_and_work():
    """Slow on purpose: the real servers of the embedded recipe, as a user starts them."""
    file = load_servers(TINY)
    missing = [server.command for server in file.servers if not Path(server.command).exists()]
    if missing:
        pytest.skip(f"the servers are not installed: {missing[0]}")

    async def main() -> None:
        async with Servers(file) as servers:
            assert len(servers.tools) == 180
            assert list(servers.versions) == [
                "time", "git", "excel", "word", "sqlite", "units", "calculator", "chess", "powerpoint",
            ]  # fmt: skip
            assert all(re.fullmatch(r"[\w-]{1,64}", name) for name in servers.tools)
            now = await servers.call("time__get_current_time", {"timezone": "UTC"})
            assert not now.is_error
            assert not re.search(r"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d|day\"$", now.text)
            commit = {"repo_path": "/data/repo", "message": "Note"}
            hashes = []
            for _time in range(2):
                await servers.call("git__git_add", {"repo_path": "/data/repo", "files": ["README.md"]})
                hashes.append(await servers.call("git__git_commit", commit))
                await servers.reset(["git"])
            assert not hashes[0].is_error
            assert hashes[0].text == hashes[1].text
            before = (await servers.call("sqlite__list_tables", {})).text
            await servers.call("sqlite__write_query", {"query": "DROP TABLE customers"})
            assert (await servers.call("sqlite__list_tables", {})).text != before
            await servers.reset(["sqlite"])
            assert (await servers.call("sqlite__list_tables", {})).text == before
            for _time in range(2):
                made = await servers.call("powerpoint__create_presentation", {})
                assert '"presentation_1"' in made.text
                await servers.reset(["powerpoint"])

    asyncio.run(main())
