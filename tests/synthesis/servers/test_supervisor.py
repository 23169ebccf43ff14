"""One server over its lives: calls side by side, whose fault a death was, idleness, and messages that are too long."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from broken import FAULTY, needs_landlock, remote
from fakes import POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.calls.circuit import Circuit
from synthesis.calls.primitives import collect
from synthesis.journal import Journal
from synthesis.records import TRIES, Primitive, ToolResult
from synthesis.servers.server_set import Servers, load_servers

COUNTING = str(Path(__file__).parents[1] / "faulty" / "counting.py")


def servers(folder: Path, script: str, env: dict[str, str] | None = None, **rise: Any) -> Servers:
    entry = {"command": sys.executable, "args": [script], "env": env or {}, "rise": {"allow": "all", **rise}}
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"s": entry}}))
    return Servers(load_servers(path))


@pytest.mark.parametrize(("state", "most"), [("none", 8), ("files", 1), ("memory", 1)])
def test_only_a_server_without_state_gets_calls_side_by_side(tmp_path: Path, state: str, most: int) -> None:
    async def main() -> list[ToolResult]:
        async with servers(tmp_path, COUNTING, state=state) as running:
            return list(await asyncio.gather(*(running.call("s__wait", {"name": str(n)}) for n in range(20))))

    results = [json.loads(result.text) for result in asyncio.run(main())]
    assert [result["name"] for result in results] == [str(n) for n in range(20)]
    assert max(result["at_a_time"] for result in results) == most
    if most == 1:
        assert [result["number"] for result in results] == list(range(1, 21)), "in order"


def test_a_death_is_blamed_on_the_call_that_did_it(tmp_path: Path) -> None:
    async def main() -> dict[str, ToolResult]:
        names = ["a", "b", "die", "c", "d"]
        async with servers(tmp_path, COUNTING, state="none", timeout_s=5) as running:
            return dict(
                zip(names, await asyncio.gather(*(running.call("s__wait", {"name": n}) for n in names)), strict=True)
            )

    results = asyncio.run(main())
    assert {name for name, result in results.items() if result.down} == {"die"}
    for name in "abcd":
        assert json.loads(results[name].text)["name"] == name


def test_an_idle_process_ends_and_comes_back_when_it_is_called(tmp_path: Path) -> None:
    async def main(state: str) -> list[str]:
        async with servers(tmp_path, FAULTY, state=state, idle_s=0.1) as running:
            first = await running.call("s__count", {})
            await asyncio.sleep(0.6)
            second = await running.call("s__count", {})
            return [first.text, second.text]

    assert asyncio.run(main("files")) == ["1", "1"]
    assert asyncio.run(main("memory")) == ["1", "2"], "it would have forgotten"


@needs_landlock
def test_resource_limits_hold(tmp_path: Path) -> None:
    async def main() -> None:
        async with servers(tmp_path, COUNTING) as running:
            limits = json.loads((await running.call("s__limits", {})).text)
            assert limits == {"CPU": 3600, "DATA": 4 << 30, "FSIZE": 1 << 30, "NOFILE": 1024, "CORE": 0}
            assert (await running.call("s__grab", {"gigabytes": 5})).is_error
            assert not (await running.call("s__grab", {"gigabytes": 1})).is_error

    asyncio.run(main())


def test_literal_values_of_env_are_secrets_unless_public(tmp_path: Path) -> None:
    env = {"KEY": "s3cret-value", "NAME": "Robin Vale", "CONFIG": "/etc/some.conf", "MODE": "fast", "TZ": "Europe/Rome"}

    async def main() -> dict[str, str]:
        async with servers(tmp_path, FAULTY, env, public=["NAME"]) as running:
            return dict(json.loads((await running.call("s__environment", {})).text))

    seen = asyncio.run(main())
    assert {name: seen[name] for name in env} == {**env, "KEY": "<secret>"}


def test_headers_reach_a_remote_server_and_do_not_come_back(tmp_path: Path) -> None:
    async def main() -> str:
        with remote() as (port, _process):
            headers = {"Authorization": "Bearer abc-123-xyz"}
            path = tmp_path / "mcp.json"
            path.write_text(
                json.dumps({"mcpServers": {"r": {"url": f"http://127.0.0.1:{port}/mcp", "headers": headers}}})
            )
            async with Servers(load_servers(path)) as running:
                return (await running.call("r__whoami", {})).text

    assert asyncio.run(main()) == "you are <secret>, token <secret>"


class Dying(FakeServers):
    """The weather server dies whenever it is called for one of the named tools."""

    def __init__(self, *tools: str) -> None:
        super().__init__({tool: ToolResult(text="the server died: gone", is_error=True, down=True) for tool in tools})


def gather(path: Path, running: FakeServers) -> Journal[Primitive]:
    journal = Journal(path, Primitive)
    asyncio.run(collect([running], POLICIES, FakeAuthor(), journal, per_tool=12, seed=0))  # type: ignore[list-item, arg-type]
    return journal


def test_a_tool_that_takes_its_server_down_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    running = Dying("weather__get_alerts")
    journal = gather(tmp_path / "p.jsonl", running)
    reasons = [p.reason for p in journal if p.tool == "weather__get_alerts"]
    assert reasons[:3] == ["server_down: the server died: gone"] * 3
    assert reasons[3:] == ["server_down: not tried, the tool was given up"] * len(reasons[3:])
    assert len(reasons) > 3
    assert sum(tool == "weather__get_alerts" for tool, _ in running.calls) == 3 * TRIES
    assert any(p.verdict == "ok" for p in journal if p.tool == "weather__get_forecast")
    circuit = Circuit.of(journal, TOOLS)
    assert circuit.given_up() == {"weather__get_alerts": "3 calls of it took the server down"}
    assert circuit.servers() == {}


def test_a_server_whose_tools_all_take_it_down_is_given_up(tmp_path: Path) -> None:
    journal = gather(tmp_path / "p.jsonl", Dying("sums__add", "sums__multiply"))
    circuit = Circuit.of(journal, TOOLS)
    assert circuit.servers() == {"sums": "2 or more of its tools took it down 3 times each"}
    assert {p.verdict for p in journal if p.server == "sums"} == {"rejected"}
    assert all(any(p.verdict == "ok" for p in journal if p.server == server) for server in ("weather", "notes"))


def test_a_resumed_run_gives_up_the_same_tools(tmp_path: Path) -> None:
    path, dying = tmp_path / "p.jsonl", ("weather__get_alerts", "notes__count_lines", "sums__add")
    gather(path, Dying(*dying)).close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert b"not tried" in b"".join(lines)
    for kept in range(0, len(lines), 5):
        path.write_bytes(b"".join(lines[:kept]))
        gather(path, Dying(*dying)).close()
        assert path.read_bytes() == b"".join(lines), kept
