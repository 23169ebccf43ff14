"""What the real tools say to deviating calls: every negative is executed in a sandbox (ours; no paper does this).

`overt`: the tool errs. `equivalent`: it does what it does for the right call, so the negative is none and is dropped.
`covert`: it answers as if all were well, which is the intent deviation that nobody notices.

A call is executed after the calls of the earlier turns that may have changed something. Calls that only look share one
such state; each other call gets its own. Requests share trajectories, so equal calls in equal states run once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from synthesis.journal import Journal
from synthesis.mutations import apply, calls_of
from synthesis.plans import reads_only
from synthesis.primitives import Policy, Progress, Runner
from synthesis.records import Execution, Json, Negative, Record, Sample, Step, Tool, Trajectory
from synthesis.seeds import digest
from synthesis.trajectories import clean
from synthesis.verdicts import judge
from synthesis.workers import spread

KEPT_CHARS = 200
"""Characters of a result that the journal keeps."""


class Sandboxed(Runner, Protocol):
    """Running servers whose files can be compared: `synthesis.servers.Servers`."""

    def state(self) -> str: ...


class ExecutedCall(Record):
    """One call, executed in one state; mutated or, to compare with, right."""

    id: str
    after: list[str]
    """The primitives of the calls that came before it in the clean sandbox."""
    tool: str
    arguments: dict[str, Json]
    verdict: Literal["ok", "overt", "unknown"]
    """`unknown`: the calls before it did not answer as they did in the trajectory."""
    reason: str = ""
    result: str = ""
    """Its first characters."""
    outcome: str = ""
    """Digest of the whole result."""
    state: str | None = None
    """Digest of what it changed in files, empty for nothing; None where it may have changed a server's memory."""


@dataclass(frozen=True)
class Wanted:
    """A call to execute in a clean sandbox, after the steps `before`."""

    before: tuple[Step, ...]
    tool: str
    arguments: dict[str, Json]

    @cached_property
    def id(self) -> str:
        """Key in the journal: the same call in the same state is the same."""
        return digest("execution", [[step.tool, step.arguments] for step in self.before], self.tool, self.arguments)

    def record(
        self,
        verdict: Literal["ok", "overt", "unknown"],
        reason: str,
        result: str = "",
        outcome: str = "",
        state: str | None = None,
    ) -> ExecutedCall:
        """The call with what came of it."""
        return ExecutedCall(
            id=self.id,
            after=[step.primitive_id for step in self.before],
            tool=self.tool,
            arguments=self.arguments,
            verdict=verdict,
            reason=reason,
            result=result,
            outcome=outcome,
            state=state,
        )


@dataclass
class Outcomes:
    """The negatives that are kept, by sample id, and how all that were tried came out."""

    kept: dict[str, list[Negative]] = field(default_factory=lambda: defaultdict(list))
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_server: Counter[tuple[str, str]] = field(default_factory=Counter)

    def tables(self) -> dict[str, Json]:
        """Counts by kind and by server, each with its verdicts, for the manifest and the card."""
        return {"executed_by_kind": _table(self.by_kind), "executed_by_server": _table(self.by_server)}


def _table(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    verdicts = ("covert", "overt", "equivalent", "not executed")
    return {row: {v: counts[row, v] for v in verdicts} for row in sorted({row for row, _ in counts})}


class Executor:
    """Executes the negatives' calls on sets of running servers and says what came of each negative."""

    def __init__(
        self,
        pool: Sequence[Sandboxed],
        policies: dict[str, Policy],
        stateless: frozenset[str],
        journal: Journal[ExecutedCall],
        result_chars: int,
    ) -> None:
        """`stateless` are the names of servers on which no call changes anything."""
        self.pool, self.policies, self.stateless = pool, policies, stateless
        self.journal, self.result_chars = journal, result_chars
        self.tools = pool[0].tools

    async def verify(
        self,
        samples: Sequence[Sample],
        candidates: Mapping[str, Sequence[Negative]],
        trajectories: Mapping[str, Trajectory],
        *,
        count: int,
        progress: Progress = lambda done, total, what: None,
    ) -> Outcomes:
        """Keep, for every turn of every sample, the first `count` candidates that are not equivalent.

        Spares are executed only where others turned out equivalent. What the journal has is not executed again.
        """
        outcomes = Outcomes()
        turns = [
            _Queue(trajectories[s.trajectory_id], s.id, found) for s in samples for found in _by_turn(candidates[s.id])
        ]
        while waiting := [(turn, turn.take(count)) for turn in turns if turn.lacks(count)]:
            wanted: dict[str, Wanted] = {}
            for turn, negatives in waiting:
                for negative in negatives:
                    for pair in self.pairs(negative, turn.trajectory):
                        wanted |= {call.id: call for call in pair}
            await self._execute(list(wanted.values()), progress)
            for turn, negatives in waiting:
                for negative in negatives:
                    turn.kept += self._settle(negative, turn.trajectory, outcomes)
        for turn in turns:
            outcomes.kept[turn.sample_id] += turn.kept
        return outcomes

    def _settle(self, negative: Negative, trajectory: Trajectory, outcomes: Outcomes) -> list[Negative]:
        verdict = self.verdict(negative, trajectory)
        server = self.tools[trajectory.steps[negative.mutations[0].step].tool].server
        outcomes.by_kind[negative.kind, verdict or "not executed"] += 1
        outcomes.by_server[server, verdict or "not executed"] += 1
        return [] if verdict == "equivalent" else [negative.model_copy(update={"executed": verdict})]

    def pairs(self, negative: Negative, trajectory: Trajectory) -> list[tuple[Wanted, Wanted]]:
        """The changed calls of a negative, each as (right, deviating), with what comes before them."""
        gold = calls_of(trajectory, trajectory.turns[negative.turn])
        before = [step for step in trajectory.steps if step.turn < negative.turn]
        found: list[tuple[Wanted, Wanted]] = []
        for right, wrong in zip(gold, apply(gold, negative, trajectory), strict=True):
            if right != wrong:
                found.append((self._wanted(before, right), self._wanted(before, wrong)))
        return found

    def _wanted(self, before: Iterable[Step], call: dict[str, Any]) -> Wanted:
        """Of the earlier steps only those count that may have changed something that the call can see."""
        server = self.tools[call["name"]].server
        steps = (
            () if server in self.stateless else tuple(step for step in before if self._writes(self.tools[step.tool]))
        )
        return Wanted(steps, call["name"], call["arguments"])

    def _writes(self, tool: Tool) -> bool:
        return tool.server not in self.stateless and not reads_only(tool)

    def verdict(self, negative: Negative, trajectory: Trajectory) -> Execution | None:
        """Overt if one of its calls errs, equivalent if all do as the right ones; None where that cannot be known."""
        verdicts = {self._compare(right, wrong) for right, wrong in self.pairs(negative, trajectory)}
        if "overt" in verdicts:
            return "overt"
        if None in verdicts:
            return None
        return "covert" if "covert" in verdicts else "equivalent"

    def _compare(self, right: Wanted, wrong: Wanted) -> Execution | None:
        gold, made = self.journal.get(right.id), self.journal.get(wrong.id)
        if gold is None or made is None or made.verdict == "unknown":
            return None
        if made.verdict == "overt":
            return "overt"
        if gold.verdict != "ok" or made.state is None:
            return "covert"
        return "equivalent" if (made.outcome, made.state) == (gold.outcome, gold.state) else "covert"

    async def _execute(self, wanted: Sequence[Wanted], progress: Progress) -> None:
        """Execute what the journal lacks, all calls of one state together."""
        states: dict[str, list[Wanted]] = defaultdict(list)
        for call in wanted:
            if call.id not in self.journal:
                first = [[step.tool, step.arguments] for step in call.before]
                states[digest(first, "" if first else self.tools[call.tool].server)].append(call)
        total = sum(map(len, states.values()))
        done = 0

        async def work(servers: Sandboxed, calls: list[Wanted]) -> None:
            nonlocal done
            ready, trouble = False, ""
            for call in sorted(calls, key=lambda call: self._writes(self.tools[call.tool])):
                if not ready and not trouble:
                    trouble = await self._prepare(servers, call)
                made = call.record("unknown", trouble) if trouble else await self._call(servers, call)
                ready = self._unchanged(made)
                self.journal.append(made)
                done += 1
                progress(done, total, call.tool)

        await spread(states.values(), self.pool, work)

    async def _prepare(self, servers: Sandboxed, call: Wanted) -> str:
        """A clean sandbox and the calls before; returns what went otherwise than in the trajectory, or nothing."""
        names = [*(step.tool for step in call.before), call.tool]
        await servers.reset(sorted({self.tools[name].server for name in names}))
        for step in call.before:
            answer = await servers.call(step.tool, step.arguments)
            if clean(answer.text, self.result_chars) != step.result:
                return f"{step.tool} answered otherwise than before: {clean(answer.text, KEPT_CHARS)}"
        return ""

    async def _call(self, servers: Sandboxed, call: Wanted) -> ExecutedCall:
        tool = self.tools[call.tool]
        policy = self.policies[tool.server]
        answer = await servers.call(call.tool, call.arguments)
        reason = judge(tool, answer, policy.errors, call.arguments)
        changes = self._writes(tool)
        return call.record(
            "overt" if reason else "ok",
            reason,
            result=clean(answer.text, KEPT_CHARS),
            outcome=digest(answer.text),
            state=None if changes and policy.keeps_memory else servers.state() if changes else "",
        )

    def _unchanged(self, made: ExecutedCall) -> bool:
        """Whether the next call may go on in this state: nothing was changed, or memory by a call that was refused."""
        return made.verdict != "unknown" and (made.state == "" or (made.state is None and made.verdict == "overt"))


class _Queue:
    """The candidates of one turn, in order, and those that were kept."""

    def __init__(self, trajectory: Trajectory, sample_id: str, candidates: Sequence[Negative]) -> None:
        self.trajectory, self.sample_id = trajectory, sample_id
        self.left = list(candidates)
        self.kept: list[Negative] = []

    def lacks(self, count: int) -> bool:
        """Whether more are wanted, and there are more."""
        return len(self.kept) < count and bool(self.left)

    def take(self, count: int) -> list[Negative]:
        """The next candidates, as many as are still wanted."""
        missing = count - len(self.kept)
        taken, self.left = self.left[:missing], self.left[missing:]
        return taken


def _by_turn(candidates: Sequence[Negative]) -> list[list[Negative]]:
    turns: dict[int, list[Negative]] = defaultdict(list)
    for negative in candidates:
        turns[negative.turn].append(negative)
    return [turns[turn] for turn in sorted(turns)]
