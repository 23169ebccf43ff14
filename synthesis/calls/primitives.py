"""Tool primitives (RISE, section 3.2.1): candidate calls, really executed, judged, and kept with the verdict."""

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from synthesis.authors.base import Author, Candidate
from synthesis.calls.candidates import Unit, by_tool, candidate_id, units_of
from synthesis.calls.circuit import NOT_TRIED, Circuit
from synthesis.calls.protocol import Policy, Runner, policies_of
from synthesis.calls.trial import Trial
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.progress import Progress, silent
from synthesis.records import Json, Primitive, Tool
from synthesis.run import Run
from synthesis.surprises import Surprised, surprise, warn
from synthesis.workers import spread

CALLS_PER_POSITIVE, AT_LEAST = 2, 4
"""Calls that a model is asked for, for each positive and for each tool at least: a request has about two, every
trajectory is told twice, and half of a small model's calls fail."""
REPEATED = 2
"""Successes of each tool that run twice."""


async def primitives_stage(run: Run) -> None:
    """Execute the author's candidates for every tool, then go on without the servers that kept dying."""
    calls = run.journal("primitives", Primitive)
    with run.stage("primitives") as progress:
        await collect(
            run.pool,
            policies_of(run.file),
            run.author,
            calls,
            per_tool=_per_tool(run),
            seed=run.config.seed,
            progress=progress,
            surprised=run.surprises.append,
        )
    await _give_up(run, calls)


def _per_tool(run: Run) -> int:
    """Candidates a tool: where a model is asked for them, no more than the positives will use."""
    due = math.ceil(CALLS_PER_POSITIVE * run.config.positives / max(1, len(run.tools)))
    return run.config.per_tool if run.config.author != "llm" else min(run.config.per_tool, max(AT_LEAST, due))


async def _give_up(run: Run, calls: Journal[Primitive]) -> None:
    """Give up the servers that kept dying, and say so: on stderr, in the manifest, and so in the card."""
    circuit = Circuit.of(calls, run.tools)
    lost = circuit.servers()
    run.note(servers_given_up=lost, tools_given_up=circuit.given_up())
    for tool, why in circuit.given_up().items():
        print(f"tool {tool} was given up: {why}.", file=sys.stderr)
    for name, why in lost.items():
        words = next((words for servers in run.pool if (words := servers.last_words(name))), "")
        print(f"server {name} was given up, its data is left out: {why}. {words}".strip(), file=sys.stderr)
        for servers in run.pool:
            await servers.give_up(name)
    if not run.tools:
        raise UserError(
            f"{run.folder / 'manifest.json'}: every server was given up ({'; '.join(map(': '.join, lost.items()))})."
        )


async def collect(
    pool: Sequence[Runner],
    policies: dict[str, Policy],
    author: Author,
    journal: Journal[Primitive],
    *,
    per_tool: int,
    seed: int,
    progress: Progress = silent,
    surprised: Surprised = warn,
) -> None:
    """Execute the author's candidates for every tool and write each, accepted or rejected, to `journal`.

    `pool` holds the same servers, started one or more times, each with a sandbox of its own: they share the work.

    A candidate that breaks the input schema is rejected without a call. Any other runs in a clean sandbox, after its
    setup. Every setup call is a candidate of its own, so that each step of a later trajectory has its primitive.
    Candidates in the journal are not run again.

    The first successes of a tool run once more, and all of them where one of these did not repeat; a different result
    marks the primitive as not deterministic. (Executing a trajectory compares again.)

    All candidates of a server that keeps state in memory share one start, because a start costs a second. Where such a
    call then does not repeat, two clean starts decide; and every trajectory starts clean, and checks them again.

    Where a tool takes its server down again and again, its other candidates are rejected without a call; and so are all
    of a server that several tools take down (see `synthesis.calls.circuit`). The run goes on with the others.
    """
    tools = pool[0].tools
    circuit = Circuit.of(journal, tools)
    groups = by_tool(tools, await _ask(tools, author, per_tool, seed, progress, surprised))
    done, total = 0, sum(len(group) for group in groups.values())

    def report(tool: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, tool)

    async def work(servers: Runner, unit: Unit) -> None:
        await _collect_unit(servers, policies, unit, journal, circuit, report)

    await spread(units_of(groups, tools, policies), pool, work)


async def _collect_unit(
    servers: Runner,
    policies: dict[str, Policy],
    unit: Unit,
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
            trial = Trial(servers, policies, candidate, unit.shared)
            hopeless = circuit.reason(candidate.tool) if primitive is None else _untried(primitive)
            try:
                primitive = trial.skip(hopeless) if hopeless else await trial.run(habits.needs_repeat(candidate.tool))
            except Exception as error:
                primitive = trial.skip(surprise(error))
        habits.note(primitive)
        if key not in journal:
            circuit.note(primitive)
            journal.append(primitive)
        report(candidate.tool)


def _untried(primitive: Primitive) -> str:
    """Why a candidate was not tried: its unit's second run leaves it out too, so the process sees the same calls."""
    return primitive.reason if primitive.reason.startswith(NOT_TRIED) else ""


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


async def _ask(
    tools: dict[str, Tool], author: Author, per_tool: int, seed: int, progress: Progress, surprised: Surprised
) -> dict[str, list[Candidate]]:
    """The author's candidates by tool; he is asked in threads, so that the servers' tasks go on meanwhile."""
    found: dict[str, list[Candidate]] = {}

    async def ask(_: int, item: tuple[str, Tool]) -> None:
        name, tool = item
        siblings = [other for other in tools.values() if other.server == tool.server and other is not tool]
        try:
            found[name] = await loop.run_in_executor(threads, author.candidates, tool, per_tool, seed, siblings)
        except Exception as error:
            found[name] = []
            surprised(f"no calls of {name}: {surprise(error)}")
        progress(len(found), len(tools), f"calls of {name}")

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(author.workers) as threads:
        await spread(tools.items(), range(author.workers), ask)
    return found


def count_calls(calls: Iterable[Primitive]) -> dict[str, Json]:
    """How many candidates were accepted, not repeatable, and rejected, the latter by the rule that fired."""
    records = list(calls)
    accepted = [record for record in records if record.verdict == "ok"]
    reasons = Counter(record.reason.split(":")[0] for record in records if record.verdict == "rejected")
    return {
        "tried": len(records),
        "accepted": len(accepted),
        "not_deterministic": sum(not record.deterministic for record in accepted),
        "tools_accepted": len({record.tool for record in accepted}),
        "rejected_by_rule": dict(sorted(reasons.items())),
    }
