"""When to stop trying: tools that take their server down, and servers that keep dying."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from synthesis.records import Primitive, Tool

TOOL_DEATHS = 3
"""Candidates of one tool that may take the server down; the tool's others are then not tried."""
SERVER_TOOLS = 3
"""Tools given up so before their server is; fewer where it has fewer."""
NOT_TRIED = "server_down: not tried"
_DOWN = re.compile(r"(?:setup: call \d+, \S+: )?server_down: (?!not tried)")


@dataclass
class Circuit:
    """Counts the candidates in whose calls a server died, and says which are not worth a try.

    It hears of every primitive once, in the order of the journal; so a resumed run goes on as an uninterrupted one. A
    tool's candidates run in order, so the same ones are skipped each time. Those of different tools need not: but
    whether a server is given up depends on how many of its tools are, and not on which came first.
    """

    tools: Mapping[str, Tool]
    deaths: Counter[str] = field(default_factory=Counter)
    """By the tool's full name."""

    @classmethod
    def of(cls, primitives: Iterable[Primitive], tools: Mapping[str, Tool]) -> "Circuit":
        """The circuit as the primitives of a journal leave it."""
        circuit = cls(tools)
        for primitive in primitives:
            circuit.note(primitive)
        return circuit

    def note(self, primitive: Primitive) -> None:
        """Count a primitive whose server died."""
        self.deaths[primitive.tool] += bool(_DOWN.match(primitive.reason))

    def reason(self, tool: str) -> str:
        """Why a candidate of `tool` is rejected without a call; an empty string when it is to be tried."""
        server = self.tools[tool].server
        if server in self.servers():
            return f"{NOT_TRIED}, the server was given up"
        return f"{NOT_TRIED}, the tool was given up" if self.deaths[tool] >= TOOL_DEATHS else ""

    def given_up(self) -> dict[str, str]:
        """The tools given up, by full name, and why."""
        return {
            tool: f"{count} calls of it took the server down"
            for tool, count in sorted(self.deaths.items())
            if count >= TOOL_DEATHS
        }

    def servers(self) -> dict[str, str]:
        """The servers given up, by name, and why: in words that do not depend on which tools came first."""
        lost = Counter(self.tools[tool].server for tool in self.given_up())
        offered = Counter(tool.server for tool in self.tools.values())
        return {
            server: f"{min(SERVER_TOOLS, offered[server])} or more of its tools took it down {TOOL_DEATHS} times each"
            for server, count in lost.items()
            if count >= min(SERVER_TOOLS, offered[server])
        }
