"""What the real tools say to deviating calls: verdicts, replacement, clean states, and nothing executed twice."""

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from fakes import POLICIES, TOOLS, FakeServers

from synthesis.calls.effects import reads_only
from synthesis.calls.protocol import Policy
from synthesis.journal import Journal
from synthesis.negatives.executions import (
    ExecutedCall,
    Executor,
    learn_names,
    renamed,
)
from synthesis.negatives.outcomes import OVERT_MOST, OVERT_SHARE, Outcomes
from synthesis.records import Edge, Json, Mutation, Negative, Sample, Step, ToolResult, Trajectory
from synthesis.servers.mcp_config import load_servers
from synthesis.servers.server_set import Servers

ROOT = Path(__file__).parents[3]


class Memory(FakeServers):
    """The small world, whose files never change, and which notes which of its servers were started again."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[set[str]] = []
        self.opened = 0

    def state(self) -> str:
        return ""

    async def reset(self, servers: Iterable[str]) -> None:
        self.forgotten.append(set(servers))
        await super().reset(servers)


def step(turn: int, tool: str, result: str, **arguments: Json) -> Step:
    return Step(turn=turn, tool=tool, arguments=arguments, result=result, primitive_id=f"p-{tool}-{turn}")


FORECAST = Trajectory(
    id="t1",
    pattern="single",
    steps=[step(0, "weather__get_forecast", "Oslo, today: Snow, northerly wind", city="Oslo")],
)
PADS = Trajectory(
    id="t2",
    pattern="sequential",
    steps=[
        step(0, "notes__open_pad", "Opened pad_1 with the title Plans", title="Plans"),
        step(1, "notes__add_line", "pad_1 has a new line", pad_id="pad_1", line="milk"),
    ],
    edges=[Edge(source=0, target=1, parameter="pad_id", value="pad_1")],
)


def sample(trajectory: Trajectory) -> Sample:
    return Sample(
        id=f"s-{trajectory.id}",
        trajectory_id=trajectory.id,
        pattern=trajectory.pattern,
        style="plain",
        request="",
        response="",
        critical=[],
    )


def negative(trajectory: Trajectory, turn: int, parameter: str, *values: Json) -> list[Negative]:
    index = trajectory.turns[turn][0]
    before = trajectory.steps[index].arguments[parameter]
    return [
        Negative(
            id=f"{parameter}={value}",
            sample_id=f"s-{trajectory.id}",
            turn=turn,
            kind="co_hyponym",
            mutations=[Mutation(step=index, parameter=parameter, kind="co_hyponym", before=before, after=value)],
            score=0.5,
            primitive_ids=["p"],
        )
        for value in values
    ]


def verify(
    servers: FakeServers, folder: Path, trajectory: Trajectory, candidates: list[Negative], count: int
) -> tuple[Outcomes, list[ExecutedCall]]:
    with Journal(folder / "executions.jsonl", ExecutedCall) as journal:
        executor = Executor([servers], POLICIES, frozenset(), journal, 200)  # type: ignore[list-item]
        made = sample(trajectory)
        done = executor.verify([made], {made.id: candidates}, {trajectory.id: trajectory}, count=count)
        return asyncio.run(done), list(journal)


def test_covert_overt_and_equivalent(tmp_path: Path) -> None:
    servers = Memory()
    servers.get_forecast = lambda city, day="today": (  # type: ignore[method-assign]
        FakeServers.get_forecast(servers, city.split(",")[0], day)
    )
    candidates = negative(FORECAST, 0, "city", "Rome", "Oslo, Norway", "Atlantis", "Bern")
    outcomes, calls = verify(servers, tmp_path, FORECAST, candidates, 4)
    assert {n.id: n.executed for n in outcomes.kept["s-t1"]} == {
        "city=Rome": "covert",
        "city=Bern": "covert",
        "city=Atlantis": "overt",
    }
    assert outcomes.tables()["executed_by_server"] == {
        "weather": {"covert": 2, "overt": 1, "equivalent": 1, "not executed": 0}
    }
    assert next(call.reason for call in calls if call.verdict == "overt")


def test_spares_come_in_for_what_is_dropped_or_held_back(tmp_path: Path) -> None:
    assert OVERT_SHARE * 2 < 1
    candidates = negative(FORECAST, 0, "city", "Nowhere", "Atlantis", "Rome", "Bern", "Kyiv")
    outcomes, calls = verify(Memory(), tmp_path, FORECAST, candidates, 2)
    assert [n.id for n in outcomes.kept["s-t1"]] == ["city=Nowhere", "city=Rome"]
    assert "Kyiv" not in str(calls), "a spare that nobody needs is not executed"
    (tmp_path / "executions.jsonl").unlink()
    only_bad = negative(FORECAST, 0, "city", "Nowhere", "Atlantis", "Utopia", "Erewhon", "Oz")
    outcomes, _ = verify(Memory(), tmp_path, FORECAST, only_bad, 5)
    assert [n.executed for n in outcomes.kept["s-t1"]] == ["overt"] * int(5 * OVERT_MOST), "better some than none"


def test_a_call_runs_after_the_calls_before_it_and_nothing_twice(tmp_path: Path) -> None:
    candidates = negative(PADS, 1, "line", "bread", "eggs")
    servers = Memory()
    outcomes, calls = verify(servers, tmp_path, PADS, candidates, 2)
    assert [n.executed for n in outcomes.kept["s-t2"]] == ["covert", "covert"]
    assert [call.after for call in calls] == [["p-notes__open_pad-0"]] * 3
    again = Memory()
    resumed, _ = verify(again, tmp_path, PADS, candidates, 2)
    assert resumed.kept == outcomes.kept
    assert again.calls == []


def test_an_equal_answer_of_a_call_that_writes_to_memory_is_not_called_equivalent(tmp_path: Path) -> None:
    outcomes, calls = verify(Memory(), tmp_path, PADS, negative(PADS, 1, "line", "bread"), 1)
    assert len({call.outcome for call in calls}) == 1
    assert outcomes.kept["s-t2"][0].executed == "covert"


def test_calls_that_leave_the_same_files_are_equivalent_whatever_they_say(tmp_path: Path) -> None:
    class Filing(Memory):
        async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult:
            self.line = str(arguments.get("line", "")).strip(".")
            return await super().call(full_name, arguments)

        def state(self) -> str:
            return f"files with {self.line}"

    with Journal(tmp_path / "executions.jsonl", ExecutedCall) as journal:
        filing = {**POLICIES, "notes": Policy()}
        executor = Executor([Filing()], filing, frozenset(), journal, 200)
        made = sample(PADS)
        candidates = negative(PADS, 1, "line", "milk.", "bread")
        outcomes = asyncio.run(executor.verify([made], {made.id: candidates}, {PADS.id: PADS}, count=2))
    assert [(n.id, n.executed) for n in outcomes.kept["s-t2"]] == [("line=bread", "covert")]


def test_other_answers_before_leave_a_call_unjudged(tmp_path: Path) -> None:
    servers = Memory()
    servers.faults["notes__open_pad"] = ToolResult(text="Opened a pad")
    outcomes, calls = verify(servers, tmp_path, PADS, negative(PADS, 1, "line", "bread"), 1)
    assert {call.verdict for call in calls} == {"unknown"}
    assert outcomes.kept["s-t2"][0].executed is None


def test_a_process_is_kept_where_the_calls_before_open_something_new(tmp_path: Path) -> None:
    class Lasting(Memory):
        async def reset(self, servers: Iterable[str]) -> None:
            self.forgotten.append(set(servers))
            if "notes" in self.forgotten[-1]:
                self.pads = {}

    servers = Lasting()
    outcomes, _ = verify(servers, tmp_path, PADS, negative(PADS, 1, "line", "bread", "eggs", "jam"), 3)
    assert [n.executed for n in outcomes.kept["s-t2"]] == ["covert"] * 3
    assert servers.forgotten.count({"notes"}) == 1
    assert {pad: len(lines) for pad, lines in servers.pads.items()} == {f"pad_{i}": 2 for i in range(1, 5)}


def test_a_tool_that_changes_what_it_finds_does_not_only_look() -> None:
    found = TOOLS["weather__get_alerts"].model_copy(update={"read_only": False})
    assert reads_only(found)
    assert reads_only(found.model_copy(update={"name": "get_headers_and_footers"}))
    assert not reads_only(found.model_copy(update={"name": "search_and_replace"}))


def test_names_are_learnt_only_where_nothing_else_differs() -> None:
    names: dict[str, str] = {}
    assert learn_names("Opened pad_1, it has 2 lines", "Opened pad_7, it has 2 lines", names)
    assert names == {"pad_1": "pad_7"}
    assert renamed({"pad": "pad_1", "all": ["pad_1", "pad_2", 1]}, names) == {
        "pad": "pad_7",
        "all": ["pad_7", "pad_2", 1],
    }
    assert not learn_names("pad_1 has 2 lines", "pad_7 has 3 lines", {})
    assert not learn_names("pad_1 like pad_1", "pad_7 like pad_8", {})
    assert not learn_names("pad_1", "pot_1", {})


@pytest.mark.skipif(not (ROOT / ".servers").is_dir(), reason="the MCP servers are not set up: make setup")
def test_files_of_a_real_server_are_compared_by_content(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    shutil.copytree(ROOT / "recipes" / "tiny" / "sandbox", tmp_path / "sandbox")
    command = ROOT / ".servers" / "mcp2" / "bin" / "excel-mcp-server"
    path.write_text(
        f'{{"rise": {{"sandbox": {{"template": "sandbox"}}}}, "mcpServers": {{"excel": {{"command": "{command}",'
        '"args": ["stdio"], "rise": {"allow": "all", "state": "files"}}}}'
    )

    async def states() -> list[str]:
        found = []
        async with Servers(load_servers(path)) as servers:
            for title in ("a", "b", "a"):
                await servers.reset(["excel"])
                assert servers.state() == ""
                made = await servers.call("excel__create_workbook", {"path": f"/data/{title}.xlsx"})
                assert not made.is_error
                found.append(servers.state())
        return found

    first, other, again = asyncio.run(states())
    assert first == again != other
    assert POLICIES["notes"] == Policy(keeps_memory=True)
