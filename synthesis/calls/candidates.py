"""Candidate calls put in order: setups before what needs them, each once, those of one process together."""

from dataclasses import dataclass

from synthesis.authors.base import Candidate, Coverage
from synthesis.calls.protocol import Policy
from synthesis.records import Json, Tool
from synthesis.schemas import properties, required
from synthesis.seeds import digest


def setup_candidates(candidate: Candidate, tools: dict[str, Tool]) -> list[Candidate]:
    """Each setup call as a candidate of its own, with the calls before it as its setup."""
    for call in candidate.setup:
        if call["tool"] not in tools:
            return []
    return [
        Candidate(
            tool=call["tool"],
            arguments=call["arguments"],
            setup=candidate.setup[:index],
            coverage=coverage(tools[call["tool"]], call["arguments"]),
        )
        for index, call in enumerate(candidate.setup)
    ]


def coverage(tool: Tool, arguments: dict[str, Json]) -> Coverage:
    """Which parameters the call gives: no optional one, some, or all."""
    given = set(arguments)
    if given <= set(required(tool.input_schema)):
        return "required"
    return "all" if given >= set(properties(tool.input_schema)) else "some"


def candidate_id(candidate: Candidate, tools: dict[str, Tool]) -> str:
    """The id that the candidate's primitive will have: known before the call, so a resumed run can skip it."""
    return digest("primitive", candidate.tool, tools[candidate.tool].schema_hash, candidate.arguments, candidate.setup)


def by_tool(tools: dict[str, Tool], found: dict[str, list[Candidate]]) -> dict[str, list[Candidate]]:
    """Candidates by tool, their setups' calls before them, each candidate once."""
    seen: set[str] = set()
    groups: dict[str, list[Candidate]] = {}
    for name in tools:
        group: list[Candidate] = []
        for candidate in found[name]:
            group += [*setup_candidates(candidate, tools), candidate]
        ids = {candidate_id(candidate, tools): candidate for candidate in group}
        groups[name] = [candidate for key, candidate in ids.items() if key not in seen]
        seen |= set(ids)
    return groups


@dataclass(frozen=True)
class Unit:
    """Candidates that are resumed as a whole: of one tool, or (`shared`) of all tools of a server with memory.

    A shared process must see the same calls in the same order again, or its answers would differ after a resume.
    """

    candidates: list[Candidate]
    shared: bool


def units_of(groups: dict[str, list[Candidate]], tools: dict[str, Tool], policies: dict[str, Policy]) -> list[Unit]:
    """The candidates as units of work; the long ones, those of servers with memory, come first."""
    lasting = sorted({tool.server for tool in tools.values() if policies[tool.server].keeps_memory})
    units = [
        Unit([c for name in groups if tools[name].server == server for c in groups[name]], True) for server in lasting
    ]
    units += [Unit(group, False) for name, group in groups.items() if tools[name].server not in lasting]
    return [unit for unit in units if unit.candidates]
