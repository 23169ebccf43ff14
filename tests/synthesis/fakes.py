"""A small world in memory for tests of single stages: three servers, an author, and faults on demand.

The pipeline's own tests run real MCP servers; here it is the stages' logic that is tested.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from synthesis.authors.base import Candidate, Draft
from synthesis.calls.protocol import Policy
from synthesis.records import CriticalParameter, Json, Mutation, MutationKind, Tool, ToolResult, Trajectory
from synthesis.seeds import seeded

TEXT = {"type": "string"}
CITIES = {
    "Bern": "Cloudy, westerly wind",
    "Oslo": "Snow, northerly wind",
    "Rome": "Sunny and calm",
    "Kyiv": "Rain all day",
}


def tool(server: str, name: str, properties: dict[str, Any], required: list[str], read_only: bool = True) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(server=server, name=name, input_schema=schema, read_only=read_only)


TOOLS = {
    t.full_name: t
    for t in (
        tool("weather", "get_forecast", {"city": TEXT, "day": TEXT}, ["city"]),
        tool("weather", "get_alerts", {"city": TEXT}, ["city"]),
        tool("notes", "open_pad", {"title": TEXT}, ["title"], read_only=False),
        tool("notes", "add_line", {"pad_id": TEXT, "line": TEXT}, ["pad_id", "line"], read_only=False),
        tool("notes", "count_lines", {"pad_id": TEXT}, ["pad_id"]),
        tool("sums", "add", {"a": {"type": "number"}, "b": {"type": "number"}}, ["a", "b"]),
        tool("sums", "multiply", {"a": {"type": "number"}, "b": {"type": "number"}}, ["a", "b"]),
    )
}
POLICIES = {"weather": Policy(), "notes": Policy(keeps_memory=True), "sums": Policy()}
PAD = r"pad_\d+"


class FakeServers:
    """Runs the tools above; counts calls, and takes `faults`: full name -> what that tool answers instead."""

    def __init__(self, faults: dict[str, ToolResult] | None = None) -> None:
        self.tools = dict(sorted(TOOLS.items()))
        self.versions = {"weather": "1.0", "notes": "2.0", "sums": "3.0"}
        self.faults = faults or {}
        self.calls: list[tuple[str, dict[str, Json]]] = []
        self.resets = 0
        self.pads: dict[str, list[str]] = {}

    async def reset(self, servers: Iterable[str]) -> None:
        self.resets += 1
        if "notes" in set(servers):
            self.pads = {}

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult:
        self.calls.append((full_name, arguments))
        if full_name in self.faults:
            return self.faults[full_name]
        return getattr(self, full_name.split("__")[1])(**arguments)

    def get_forecast(self, city: str, day: str = "today") -> ToolResult:
        if city not in CITIES:
            return ToolResult(text=f"Unknown city {city}")
        return ToolResult(text=f"{city}, {day}: {CITIES[city]}", latency_ms=1.5)

    def get_alerts(self, city: str) -> ToolResult:
        return ToolResult(text=f"Alerts for {city}: {CITIES.get(city, 'nothing')}")

    def open_pad(self, title: str) -> ToolResult:
        pad = f"pad_{len(self.pads) + 1}"
        self.pads[pad] = [title]
        return ToolResult(text=f"Opened {pad} with the title {title}")

    def add_line(self, pad_id: str, line: str) -> ToolResult:
        if pad_id not in self.pads:
            return ToolResult(text='{"error": "no such pad"}')
        self.pads[pad_id].append(line)
        return ToolResult(text=f"{pad_id} has a new line")

    def count_lines(self, pad_id: str) -> ToolResult:
        if pad_id not in self.pads:
            return ToolResult(text="no pad", is_error=True)
        return ToolResult(text=f"{pad_id}: {len(self.pads[pad_id])} lines")

    def add(self, a: float, b: float) -> ToolResult:
        return ToolResult(text=f"The sum is {a + b}")

    def multiply(self, a: float, b: float) -> ToolResult:
        return ToolResult(text=f"The product is {a * b}")


class FakeAuthor:
    """Knows the tools above; says every argument as "parameter value"."""

    name = "fake"
    workers = 1

    def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
        found = getattr(self, f"_{tool.name}")()
        return [Candidate(tool=tool.full_name, **fields) for fields in found][:count]

    def _get_forecast(self) -> list[dict[str, Any]]:
        cities = [{"arguments": {"city": city}, "coverage": "required"} for city in [*CITIES, "Nowhere"]]
        full = [{"arguments": {"city": city, "day": "Friday"}, "coverage": "all"} for city in CITIES]
        return [*cities, *full, {"arguments": {"day": "Friday"}, "coverage": "some"}]

    def _get_alerts(self) -> list[dict[str, Any]]:
        return [{"arguments": {"city": city}, "coverage": "all"} for city in CITIES]

    def _open_pad(self) -> list[dict[str, Any]]:
        return [{"arguments": {"title": title}, "coverage": "all"} for title in ("Plans", "Shopping")]

    def _add_line(self) -> list[dict[str, Any]]:
        return [self._on_pad({"line": line}) for line in ("milk", "bread", "eggs")]

    def _count_lines(self) -> list[dict[str, Any]]:
        return [self._on_pad({})]

    def _on_pad(self, arguments: dict[str, Json]) -> dict[str, Any]:
        setup = [{"tool": "notes__open_pad", "arguments": {"title": "Shopping"}}]
        return {
            "arguments": {"pad_id": {"$result": 0, "$pattern": PAD}, **arguments},
            "setup": setup,
            "coverage": "all",
        }

    def _add(self) -> list[dict[str, Any]]:
        return [{"arguments": {"a": a, "b": b}, "coverage": "all"} for a in range(1, 5) for b in (10, 20)]

    _multiply = _add

    def compose(self, trajectory: Trajectory, tools: dict[str, Tool], variant: int, seed: int) -> Draft:
        flows = {(edge.target, edge.parameter) for edge in trajectory.edges}
        said, critical = [], []
        for index, step in enumerate(trajectory.steps):
            words = [step.tool.split("__")[1].replace("_", " ")]
            for parameter, value in step.arguments.items():
                if (index, parameter) not in flows:
                    words.append(f"{parameter} {value}")
                    critical.append(
                        CriticalParameter(step=index, parameter=parameter, value=value, evidence=str(value))
                    )
            said.append(" ".join(words))
        condition = f" if it mentions {trajectory.condition.value}" if trajectory.condition else ""
        request = ["Please ", "I want: ", "Now ", "Kindly "][variant % 4] + ", then ".join(said) + condition
        return Draft(request=request, response="Done.", style=f"style{variant % 4}", critical=critical)

    def objection(self, trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> str:
        return ""

    def alternatives(self, tool: Tool, parameter: str, value: Json, seed: int) -> list[tuple[MutationKind, Json]]:
        if isinstance(value, int):
            return [("co_hyponym", value + 100), ("lexical_similarity", value * 10)]
        pool = [city for city in CITIES if city != value] if value in CITIES else ["Monday", "cheese", "Diary"]
        seeded(seed, "alternatives", tool.full_name, parameter, value).shuffle(pool)
        return [("co_hyponym", other) for other in pool]

    def deviating(
        self, request: str, tool: Tool, arguments: dict[str, Json], changes: Sequence[Mutation]
    ) -> list[bool]:
        return [True] * len(changes)
