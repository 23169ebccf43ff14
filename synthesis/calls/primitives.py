"""Tool primitives (RISE, section 3.2.1): candidate calls, really executed, judged, and kept with the verdict."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import jsonschema

from synthesis.authors.base import Author, Candidate, Coverage, is_reference
from synthesis.calls.circuit import NOT_TRIED, Circuit
from synthesis.calls.verdicts import judge
from synthesis.journal import Journal
from synthesis.records import Json, Primitive, Tool, ToolResult
from synthesis.seeds import digest
from synthesis.workers import spread

REPEATED = 2
"""Successes of each tool that run twice."""

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what is being worked on)`."""


class Runner(Protocol):
    """The part of `synthesis.servers.server_set.Servers` that executing calls needs."""

    tools: dict[str, Tool]
    versions: dict[str, str]

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult: ...

    async def reset(self, servers: Iterable[str]) -> None: ...


@dataclass(frozen=True)
class Policy:
    """What the servers file says about judging and resetting one server."""

    errors: tuple[str, ...] = ()
    keeps_memory: bool = False
    """The server holds state in its process, so that a clean start means a restart."""


class UnresolvedError(Exception):
    """An argument was to come from an earlier result, and its pattern does not match there."""


async def collect(
    pool: Sequence[Runner],
    policies: dict[str, Policy],
    author: Author,
    journal: Journal[Primitive],
    *,
    per_tool: int,
    seed: int,
    progress: Progress = lambda done, total, what: None,
) -> None:
    """Execute the author's candidates for every tool and write each, accepted or rejected, to `journal`.

    `pool` holds the same servers, started one or more times, each with a sandbox of its own: they share the work.

    A candidate that breaks the input schema is rejected without a call. Any other runs in a clean sandbox, after its
    setup. Every setup call is a candidate of its own, so that each step of a later trajectory has its primitive.
    Candidates in the journal are not run again.

    The first successes of a tool run once more, and all of them where one of these did not repeat; a different result
    marks the primitive as not deterministic. (Executing a trajectory compares again: see `trajectories.execute`.)

    All candidates of a server that keeps state in memory share one start, because a start costs a second. Where such a
    call then does not repeat, two clean starts decide; and every trajectory starts clean, and checks them again.

    Where a tool takes its server down again and again, its other candidates are rejected without a call; and so are all
    of a server that several tools take down (see `circuit.Circuit`). The run goes on with the others.
    """
    tools = pool[0].tools
    circuit = Circuit.of(journal, tools)
    groups = _groups(tools, await _ask(tools, author, per_tool, seed))
    done, total = 0, sum(len(group) for group in groups.values())

    def report(tool: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, tool)

    async def work(servers: Runner, unit: Unit) -> None:
        await _collect_unit(servers, policies, unit, journal, circuit, report)

    await spread(_units(groups, tools, policies), pool, work)


async def _collect_unit(
    servers: Runner,
    policies: dict[str, Policy],
    unit: "Unit",
    journal: Journal[Primitive],
    circuit: Circuit,
    report: Callable[[str], None],
) -> None:
    keys = [candidate_id(candidate, servers.tools) for candidate in unit.candidates]
    again = unit.shared and not all(key in journal for key in keys)
    if again:
        await servers.reset({servers.tools[unit.candidates[0].tool].server})
    habits = _Habits()
    for key, candidate in zip(keys, unit.candidates, strict=True):
        primitive = journal.get(key)
        if primitive is None or again:
            trial = _Trial(servers, policies, candidate, unit.shared)
            hopeless = circuit.reason(candidate.tool) if primitive is None else _untried(primitive)
            primitive = trial.skip(hopeless) if hopeless else await trial.run(habits.needs_repeat(candidate.tool))
        habits.note(primitive)
        if key not in journal:
            circuit.note(primitive)
            journal.append(primitive)
        report(candidate.tool)


def _untried(primitive: Primitive) -> str:
    """Why a candidate was not tried: its unit's second run leaves it out too, so the process sees the same calls."""
    return primitive.reason if primitive.reason.startswith(NOT_TRIED) else ""


@dataclass(frozen=True)
class Unit:
    """Candidates that are resumed as a whole: of one tool, or (`shared`) of all tools of a server with memory.

    A shared process must see the same calls in the same order again, or its answers would differ after a resume.
    """

    candidates: list[Candidate]
    shared: bool


def _units(groups: dict[str, list[Candidate]], tools: dict[str, Tool], policies: dict[str, Policy]) -> list[Unit]:
    """The long ones, those of servers with memory, come first."""
    lasting = sorted({tool.server for tool in tools.values() if policies[tool.server].keeps_memory})
    units = [
        Unit([c for name in groups if tools[name].server == server for c in groups[name]], True) for server in lasting
    ]
    units += [Unit(group, False) for name, group in groups.items() if tools[name].server not in lasting]
    return [unit for unit in units if unit.candidates]


@dataclass
class _Habits:
    """Which tools were seen to repeat; told every primitive in order, so a resumed run decides alike."""

    successes: Counter[str] = field(default_factory=Counter)
    unsteady: set[str] = field(default_factory=set)

    def needs_repeat(self, tool: str) -> bool:
        return tool in self.unsteady or self.successes[tool] < REPEATED

    def note(self, primitive: Primitive) -> None:
        self.successes[primitive.tool] += primitive.verdict == "ok"
        if not primitive.deterministic:
            self.unsteady.add(primitive.tool)


async def _ask(tools: dict[str, Tool], author: Author, per_tool: int, seed: int) -> dict[str, list[Candidate]]:
    """The author's candidates by tool; he is asked in threads, so that the servers' tasks go on meanwhile."""
    found: dict[str, list[Candidate]] = {}

    async def ask(_: int, item: tuple[str, Tool]) -> None:
        name, tool = item
        siblings = [other for other in tools.values() if other.server == tool.server and other is not tool]
        found[name] = await loop.run_in_executor(threads, author.candidates, tool, per_tool, seed, siblings)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(author.workers) as threads:
        await spread(tools.items(), range(author.workers), ask)
    return found


def _groups(tools: dict[str, Tool], found: dict[str, list[Candidate]]) -> dict[str, list[Candidate]]:
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
    given, known = set(arguments), set(tool.input_schema.get("properties", {}))
    required = set(tool.input_schema.get("required", []))
    if given <= required:
        return "required"
    return "all" if given >= known else "some"


def candidate_id(candidate: Candidate, tools: dict[str, Tool]) -> str:
    """The id that the candidate's primitive will have: known before the call, so a resumed run can skip it."""
    return digest("primitive", candidate.tool, tools[candidate.tool].schema_hash, candidate.arguments, candidate.setup)


class _Trial:
    """One candidate, executed."""

    def __init__(self, servers: Runner, policies: dict[str, Policy], candidate: Candidate, shared: bool) -> None:
        self.servers, self.policies, self.candidate, self.shared = servers, policies, candidate, shared
        self.tool = servers.tools[candidate.tool]
        calls = [call["tool"] for call in candidate.setup]
        known = [servers.tools[name].server for name in calls if name in servers.tools]
        self.involved = sorted({self.tool.server, *known})

    def skip(self, reason: str) -> Primitive:
        """The candidate, rejected without a call."""
        return self._primitive(Outcome(self.candidate.arguments, ToolResult(text="")), reason)

    async def run(self, repeat: bool) -> Primitive:
        """Check, execute, judge; if `repeat`, execute a success once more."""
        if not has_reference(self.candidate.arguments) and (
            reason := schema_reason(self.tool, self.candidate.arguments)
        ):
            return self.skip(f"input_schema: {reason}")
        first = await self._execute(clean=not self.shared)
        if isinstance(first, str):
            return self.skip(first)
        if reason := self._judge(self.tool, first.result, first.arguments):
            return self._primitive(first, reason)
        if not repeat:
            return self._primitive(first, "")
        second = await self._execute(clean=not self.shared)
        if self.shared and not _same(first, second):
            first, second = await self._execute(clean=True), await self._execute(clean=True)
        if isinstance(first, str):
            return self.skip(first)
        reason = self._judge(self.tool, first.result, first.arguments)
        if not isinstance(second, str) and second.result.down:
            reason = reason or self._judge(self.tool, second.result, second.arguments)
        return self._primitive(first, reason, deterministic=_same(first, second))

    def _judge(self, tool: Tool, result: ToolResult, arguments: dict[str, Json]) -> str:
        return judge(tool, result, self.policies[tool.server].errors, arguments)

    async def _execute(self, clean: bool) -> "Outcome | str":
        """Run setup and call; a string is the reason why it did not come to the call."""
        if clean:
            await self.servers.reset(self.involved)
        texts: list[str] = []
        try:
            for index, call in enumerate(self.candidate.setup):
                if call["tool"] not in self.servers.tools:
                    return f"setup: call {index} names {call['tool']!r}, which may not run or does not exist"
                tool = self.servers.tools[call["tool"]]
                filled = fill(tool, call["arguments"], texts)
                result = await self.servers.call(call["tool"], filled)
                if reason := self._judge(tool, result, filled):
                    return f"setup: call {index}, {call['tool']}: {reason}"
                texts.append(result.text)
            arguments = fill(self.tool, self.candidate.arguments, texts)
        except UnresolvedError as error:
            return f"setup: {error}"
        if reason := schema_reason(self.tool, arguments):
            return f"input_schema: {reason}"
        return Outcome(
            arguments, await self.servers.call(self.candidate.tool, arguments), _taken(self.candidate, texts)
        )

    def _primitive(self, outcome: "Outcome", reason: str, deterministic: bool = True) -> Primitive:
        return Primitive(
            id=candidate_id(self.candidate, self.servers.tools),
            server=self.tool.server,
            tool=self.candidate.tool,
            arguments=outcome.arguments,
            setup=with_feeds(self.candidate),
            result=outcome.result.text,
            verdict="rejected" if reason else "ok",
            reason=reason,
            coverage=self.candidate.coverage,
            deterministic=deterministic,
            latency_ms=round(outcome.result.latency_ms, 1),
            server_version=self.servers.versions.get(self.tool.server, ""),
            schema_hash=self.tool.schema_hash,
        )


@dataclass(frozen=True)
class Outcome:
    """What one execution gave: the arguments as they were sent, and the answer."""

    arguments: dict[str, Json]
    result: ToolResult
    taken: tuple[str, ...] = ()
    """Values that came from setup results, e.g. `presentation_1`: they may differ between runs in one process."""

    @property
    def masked(self) -> str:
        """The answer with the taken values replaced, to compare runs."""
        text = self.result.text
        for value in sorted(self.taken, key=len, reverse=True):
            text = text.replace(value, "<taken>")
        return text


def _same(first: Outcome | str, second: Outcome | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return False
    return first.masked == second.masked and first.result.is_error == second.result.is_error


def schema_reason(tool: Tool, arguments: dict[str, Json]) -> str:
    """Why `arguments` break the tool's input schema; an empty string when they fit. Unknown parameters never fit."""
    unknown = sorted(set(arguments) - set(tool.input_schema.get("properties", {})))
    if unknown:
        return f"unknown parameter {unknown[0]!r}"
    error = next(iter(jsonschema.Draft202012Validator(tool.input_schema).iter_errors(arguments)), None)
    return f"{error.json_path}: {error.message}"[:200] if error else ""


def has_reference(value: Json) -> bool:
    """Whether a `{"$result": ..., "$pattern": ...}` stands anywhere in `value`."""
    if is_reference(value):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(has_reference(item) for item in items)


def resolve(value: Json, texts: Sequence[str]) -> Json:
    """`value` with every reference replaced by the match of its pattern in the result it names.

    A pattern with a group gives the group. Raises `UnresolvedError` where nothing matches.
    """
    if is_reference(value):
        index, pattern = value["$result"], value["$pattern"]
        found = re.search(pattern, texts[index]) if index < len(texts) else None
        text = found.group(min(1, found.re.groups)) if found else None
        if not text:
            raise UnresolvedError(f"{pattern!r} is not in the result of call {index}")
        return text
    if isinstance(value, dict):
        return {key: resolve(item, texts) for key, item in value.items()}
    return [resolve(item, texts) for item in value] if isinstance(value, list) else value


def fill(tool: Tool, arguments: dict[str, Json], texts: Sequence[str]) -> dict[str, Json]:
    """`arguments` resolved, and what came from a text made a number where the tool's schema wants one."""
    properties = tool.input_schema.get("properties", {})
    filled: dict[str, Json] = {}
    for name, value in arguments.items():
        filled[name] = resolve(value, texts)
        if is_reference(value):
            filled[name] = _typed(filled[name], properties.get(name, {}))
    return filled


def _typed(text: str, schema: Json) -> Json:
    if not isinstance(schema, dict) or jsonschema.Draft202012Validator(schema).is_valid(text):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if jsonschema.Draft202012Validator(schema).is_valid(value) else text


def _taken(candidate: Candidate, texts: Sequence[str]) -> tuple[str, ...]:
    values = [resolve(item, texts) for item in candidate.arguments.values() if is_reference(item)]
    return tuple(value for value in values if isinstance(value, str) and value)


def with_feeds(candidate: Candidate) -> list[dict[str, Json]]:
    """The setup calls, each with what the call takes from its result: `feeds: {parameter: pattern}`.

    A primitive holds its arguments as they were sent; this is how a trajectory knows which of them are data flow.
    """
    setup = [dict(call) for call in candidate.setup]
    for parameter, value in candidate.arguments.items():
        if is_reference(value) and value["$result"] < len(setup):
            call = setup[value["$result"]]
            call["feeds"] = {**call.get("feeds", {}), parameter: value["$pattern"]}
    return setup


def unresolved(primitive: Primitive) -> dict[str, Json]:
    """The primitive's arguments with data flow put back as references to its setup calls: `with_feeds` reversed."""
    arguments = dict(primitive.arguments)
    for index, call in enumerate(primitive.setup):
        for parameter, pattern in call.get("feeds", {}).items():
            arguments[parameter] = {"$result": index, "$pattern": pattern}
    return arguments
