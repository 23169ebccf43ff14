"""What the real tools say to deviating calls: every negative is executed in a sandbox (ours; no paper does this).

`overt`: the tool errs. `equivalent`: it does what it does for the right call, so the negative is none and is dropped.
`covert`: it answers as if all were well, which is the intent deviation that nobody notices.

A call is executed after the calls of the earlier turns that may have changed something. Calls that only look share one
such state; each other call gets its own. Requests share trajectories, so equal calls in equal states run once.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from synthesis.calls.effects import reads_only
from synthesis.calls.protocol import Policy, Runner, policies_of
from synthesis.calls.verdicts import judge
from synthesis.journal import Journal
from synthesis.negatives.mutations import apply, calls_of
from synthesis.negatives.outcomes import Outcomes, Queue, by_turn, unexecuted
from synthesis.progress import Progress, silent
from synthesis.records import TRIES, Execution, Json, Negative, Record, Sample, Step, Tool, Trajectory
from synthesis.run import Run
from synthesis.seeds import digest
from synthesis.text.visible import shortened, shown
from synthesis.workers import spread

KEPT_CHARS = 200
"""Characters of a result that the journal keeps."""
TOGETHER = 50
"""Calls of one state that one set of servers executes; more are shared out."""


class Sandboxed(Runner, Protocol):
    """Running servers whose files can be compared: `synthesis.servers.server_set.Servers`."""

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


async def executions_stage(run: Run) -> None:
    """Execute the candidates if that is wanted, and keep and write those that are negatives."""
    if run.config.execute:
        stateless = frozenset(entry.name for entry in run.file.servers if entry.rise.state == "none")
        journal = run.journal("executions", ExecutedCall)
        executor = Executor(run.pool, policies_of(run.file), stateless, journal, run.config.result_chars)
        with run.stage("executions") as progress:
            outcomes = await executor.verify(
                run.samples, run.negatives, run.trajectories_by_id, count=run.config.negatives, progress=progress
            )
    else:
        outcomes = unexecuted(run.negatives, run.config.negatives)
    run.negatives, run.verdicts = outcomes.kept, outcomes.tables()
    written = run.journal("negatives", Negative)
    for negative in (negative for sample in run.samples for negative in outcomes.kept[sample.id]):
        if negative.id not in written:
            written.append(negative)


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
        self.rooms = [_Room(servers, self) for servers in pool]

    async def verify(
        self,
        samples: Sequence[Sample],
        candidates: Mapping[str, Sequence[Negative]],
        trajectories: Mapping[str, Trajectory],
        *,
        count: int,
        progress: Progress = silent,
    ) -> Outcomes:
        """Keep, for every turn of every sample, the first `count` candidates that are not equivalent.

        Overt ones are held back beyond `OVERT_SHARE` as long as the turn has other candidates. Spares are executed
        only where they are needed. What the journal has is not executed again.
        """
        outcomes = Outcomes()
        turns = [
            Queue(trajectories[s.trajectory_id], s.id, found) for s in samples for found in by_turn(candidates[s.id])
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
                    verdict = self.verdict(negative, turn.trajectory)
                    turn.hear(negative.model_copy(update={"executed": verdict}), count)
        for turn in turns:
            self._settle(turn, count, outcomes)
        return outcomes

    def _settle(self, turn: Queue, count: int, outcomes: Outcomes) -> None:
        kept = turn.chosen(count)
        outcomes.kept[turn.sample_id] += kept
        for negative in [*kept, *turn.equivalent]:
            server = self.tools[turn.trajectory.steps[negative.mutations[0].step].tool].server
            verdict = negative.executed or "not executed"
            outcomes.by_kind[negative.kind, verdict] += 1
            outcomes.by_server[server, verdict] += 1

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
        steps = () if server in self.stateless else tuple(step for step in before if self.writes(self.tools[step.tool]))
        return Wanted(steps, call["name"], call["arguments"])

    def writes(self, tool: Tool) -> bool:
        """Whether a call of the tool may change something."""
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
        """Calls that change files are equivalent by what they leave there, those that only look by what they answer.

        What a tool that writes has done elsewhere than in files nobody sees: then no two of its calls are equivalent.
        """
        gold, made = self.journal.get(right.id), self.journal.get(wrong.id)
        if gold is None or made is None or made.verdict == "unknown":
            return None
        if made.verdict == "overt":
            return "overt"
        if gold.verdict != "ok" or made.state is None:
            return "covert"
        looks = not self.writes(self.tools[right.tool]) and made.outcome == gold.outcome
        alike = made.state == gold.state and (made.state != "" or looks)
        return "equivalent" if alike else "covert"

    async def _execute(self, wanted: Sequence[Wanted], progress: Progress) -> None:
        """Execute what the journal lacks, all calls of one state together."""
        states: dict[str, list[Wanted]] = defaultdict(list)
        for call in wanted:
            if call.id not in self.journal:
                first = [[step.tool, step.arguments] for step in call.before]
                states[digest(first, "" if first else self.tools[call.tool].server)].append(call)
        units = [calls[i : i + TOGETHER] for calls in states.values() for i in range(0, len(calls), TOGETHER)]
        total = sum(map(len, units))
        done = 0

        async def work(servers: Sandboxed, calls: list[Wanted]) -> None:
            nonlocal done
            room = next(room for room in self.rooms if room.servers is servers)
            room.begin()
            for call in sorted(calls, key=lambda call: self.writes(self.tools[call.tool])):
                self.journal.append(await room.execute(call))
                done += 1
                progress(done, total, call.tool)

        await spread(units, self.pool, work)


class _Room:
    """One set of running servers, in which calls are executed one by one, many after the same earlier calls.

    A server with state in memory takes about a second to start. So where the earlier calls can be made again in the
    running process, and answer as before but for the number of what they open (`presentation_2` for `presentation_1`),
    the new names take the place of the old and the process stays.
    """

    def __init__(self, servers: Sandboxed, executor: Executor) -> None:
        self.servers, self.executor = servers, executor
        self.tools, self.policies = executor.tools, executor.policies
        self.ready = False
        self.lost = False
        """A server gave no answer since the last call began."""
        self.trouble = ""
        self.replays = TOGETHER
        """How often the processes were used again; at the start, there are none to use."""
        self.names: dict[str, str] = {}
        """What is now called otherwise than in the trajectory."""

    def begin(self) -> None:
        """Other earlier calls are next."""
        self.ready, self.trouble = False, ""

    async def execute(self, call: Wanted) -> ExecutedCall:
        """The call with what came of it, in the state after the calls before it; again where a server was lost."""
        for _ in range(TRIES):
            self.lost = False
            executed = await self._execute(call)
            if not self.lost:
                break
            self.begin()
        return executed

    async def _execute(self, call: Wanted) -> ExecutedCall:
        if not self.ready and not self.trouble:
            self.trouble = "" if await self._goes_on(call) else await self._replay(call, forget=True)
        if self.trouble:
            return call.record("unknown", self.trouble)
        return await self._call(call)

    async def _goes_on(self, call: Wanted) -> bool:
        """Whether the running processes serve for the call, as what they open gets names of its own."""
        servers = {self.tools[step.tool].server for step in call.before}
        if not any(self.policies[server].keeps_memory for server in servers):
            return False
        if self.replays >= TOGETHER:
            self.replays = 0
            return False
        self.replays += 1
        return not await self._replay(call, forget=False) and bool(self.names)

    async def _replay(self, call: Wanted, forget: bool) -> str:
        """The first state, then the calls before; returns what went otherwise than in the trajectory, or nothing.

        Unless it shall `forget`, a server's process stays, and only the files are brought back.
        """
        servers = {self.tools[name].server for name in (*(step.tool for step in call.before), call.tool)}
        await self.servers.reset(sorted(servers) if forget else ())
        self.names = {}
        for step in call.before:
            answer = await self.servers.call(step.tool, renamed(step.arguments, self.names))
            self.lost = self.lost or answer.down
            text = shown(answer.text, self.executor.result_chars)
            if text != step.result and (forget or not learn_names(step.result, text, self.names)):
                return f"{step.tool} answered otherwise than before: {shortened(answer.text, KEPT_CHARS)}"
        return ""

    async def _call(self, call: Wanted) -> ExecutedCall:
        tool = self.tools[call.tool]
        policy = self.policies[tool.server]
        answer = await self.servers.call(call.tool, renamed(call.arguments, self.names))
        reason = judge(tool, answer, policy.errors, call.arguments)
        if answer.down:  # nothing is known about the call, and the process that knew the earlier ones is gone
            self.ready, self.lost = False, True
            return call.record("unknown", reason)
        files = "" if tool.server in self.executor.stateless else self.servers.state()
        remembers = policy.keeps_memory and self.executor.writes(tool)
        # A call that was refused is taken to have left nothing in memory.
        self.ready = not files and (not remembers or bool(reason))
        text = answer.text
        for old, new in self.names.items():
            text = text.replace(new, old)
        return call.record(
            "overt" if reason else "ok",
            reason,
            result=shortened(text, KEPT_CHARS),
            outcome=digest(text),
            state=None if remembers else files,
        )


def learn_names(old: str, new: str, names: dict[str, str]) -> bool:
    """Whether two results are the same but for numbered names; `names` then takes the new ones by the old.

    A name counts only with letters in it: a bare number that differs is another answer.
    """
    first, second = (re.findall(r"\w+|\W", text) for text in (old, new))
    if len(first) != len(second):
        return False
    for before, after in zip(first, second, strict=True):
        bare = [re.sub(r"\d", "", word) for word in (before, after)]
        if before != after and (bare[0] != bare[1] or not bare[0] or names.setdefault(before, after) != after):
            return False
    return True


def renamed(value: Json, names: Mapping[str, str]) -> Json:
    """`value` with every string that is an old name replaced by the new one."""
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
