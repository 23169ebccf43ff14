"""The closed loop: the policy acts on running servers, and sees what its own calls bring, until it answers in words.

Each task has the servers' sandbox to itself, in its first state. Before it the right calls are made there, so that what
the agent did can be compared with what it should have come to. Step by step on recorded history
(`eval.rollouts.decisions`) is cheaper, needs no server and is kinder: there an early mistake spoils nothing.

`rollouts.jsonl`, a line a task, is record and resume state in one; a killed run goes on after its last whole line.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from eval.policies.base import Message, Policy, Prompt
from eval.policies.load import engine
from eval.replies.calls import NO_CALL, Call, Reply
from eval.rollouts.decisions import Task, load_rows, outline, policy_for, power, summary, task_of
from eval.rollouts.reply_journal import identity
from eval.rollouts.talk import Ending, Limits, Talk
from eval.scores.columns import EXECUTED, all_counts, pass_rates
from eval.scores.executed import MadeCall, Outcome, same_outcome
from synthesis.calls.effects import reads_only
from synthesis.calls.protocol import policies_of
from synthesis.calls.verdicts import judge
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.json_file import write_json
from synthesis.progress import stage
from synthesis.records import TRIES, Json, Record
from synthesis.seeds import digest
from synthesis.servers.mcp_config import ServersFile, load_servers
from synthesis.servers.server_set import Servers
from synthesis.text.visible import shown
from synthesis.workers import spread

Verdict = Literal["success", "deviates", "unfinished", "fault"]
"""`unfinished`: ended by a limit; `fault`: a server failed, so the agent is not judged."""
SIDE_BY_SIDE = 8
"""Tasks at a time on one set of servers without any state."""
RESULT_CHARS = 300
"""Characters of a result that the agent sees, where the run of the dataset does not say."""


class Rollout(Record):
    """One task, played."""

    id: str
    trial: int = 0
    """How many times the task had been played before."""
    made_by: str
    """Digest of model, servers, limits and task: what must be the same for the line to count."""
    messages: list[dict[str, Json]]
    calls: list[MadeCall]
    verdict: Verdict
    ending: Ending
    fault: str = ""
    gold: Outcome | None
    """What the right calls came to; None where that could not be found out."""
    replies: list[dict[str, Json]]
    state: str = ""


def played(id_: str, trial: int) -> str:
    """The key of a rollout in its journal."""
    return f"{id_}/{trial}"


@dataclass
class Room:
    """One set of running servers, and what its next task must find clean."""

    servers: Servers
    touched: set[str] = field(default_factory=set)
    """Servers with state in memory that were called since they were fresh."""


class Play:
    """Plays tasks, as many at a time as there are sets of servers."""

    def __init__(self, policy: Policy, file: ServersFile, limits: Limits, result_chars: int) -> None:
        self.policy, self.file, self.limits, self.result_chars = policy, file, limits, result_chars
        self.stateless = frozenset(entry.name for entry in file.servers if entry.rise.state == "none")
        self.rules = policies_of(file)
        self.remembering = frozenset(name for name, rules in self.rules.items() if rules.keeps_memory)
        self.shared = self.stateless == {entry.name for entry in file.servers}
        """Nothing can be changed, so one set of servers serves many tasks at once."""

    async def run(
        self, tasks: Sequence[Task], journal: Journal[Rollout], made_by: Mapping[str, str], sets: int, trials: int = 1
    ) -> None:
        """Play the tasks that the journal lacks, each so many times; each is written as soon as it has ended."""
        wanted = [(trial, task) for trial in range(trials) for task in tasks]
        left = [(trial, task) for trial, task in wanted if played(task.id, trial) not in journal]
        if not left:
            return
        asking = Together(self.policy)
        async with AsyncExitStack() as running:
            rooms = [Room(await running.enter_async_context(Servers(self.file))) for _ in range(min(sets, len(left)))]
            if self.shared:
                rooms = [Room(room.servers) for room in rooms for _ in range(SIDE_BY_SIDE)]
            with stage("rollouts") as progress:
                progress(len(wanted) - len(left), len(wanted), "")

                async def work(room: Room, item: tuple[int, Task]) -> None:
                    trial, task = item
                    rollout = await self._task(room, task, asking, made_by[task.id])
                    journal.append(rollout.model_copy(update={"trial": trial}))
                    progress(len(journal), len(wanted), task.id)

                await spread(left, rooms, work)

    async def _task(self, room: Room, task: Task, asking: "Together", made_by: str) -> Rollout:
        """The task, played; again from a clean sandbox where a server failed meanwhile."""
        for _ in range(TRIES):
            rollout = await self._once(room, task, asking, made_by)
            if rollout.verdict != "fault":
                break
        return rollout

    async def _once(self, room: Room, task: Task, asking: "Together", made_by: str) -> Rollout:
        talk = Talk(_opening(task), task.decisions[0].prompt.tools, self.policy.parallel, self.limits)
        right: Outcome | None = None
        try:
            right = await self._right(room, task)
            await self.converse(room, talk, asking)
        except _FaultError as error:
            talk.ending, talk.fault = "fault", str(error)
        done = Outcome(made=talk.made, state=room.servers.state())
        return Rollout(
            id=task.id,
            made_by=made_by,
            messages=talk.messages,
            calls=talk.made,
            verdict=self._verdict(talk, right, done, task),
            ending=talk.ending or "fault",
            fault=talk.fault,
            gold=right,
            replies=[asdict(reply) for reply in talk.replies],
            state=done.state,
        )

    async def converse(self, room: Room, talk: Talk, asking: "Together") -> None:
        """Let the agent act in a clean sandbox until its talk ends; a server that fails ends it by name."""
        offered = frozenset(talk.offered.schemas)
        try:
            await self._clean(room)
            talk.started = time.monotonic()
            while talk.ending is None:
                for call in talk.hear(await asking.reply(talk.prompt())):
                    made = await self._call(room, call, talk.turns - 1, offered)
                    talk.tell(made, shown(made.result, self.result_chars))
                talk.limit()
        except _FaultError as error:
            talk.ending, talk.fault = "fault", str(error)

    def _verdict(self, talk: Talk, right: Outcome | None, done: Outcome, task: Task) -> Verdict:
        if talk.ending == "fault" or right is None:
            return "fault"
        if talk.ending in ("turns", "seconds"):
            return "unfinished"
        same = talk.ending == "words" and same_outcome(right, done, self.remembering, task.tools)
        return "success" if same else "deviates"

    async def _right(self, room: Room, task: Task) -> Outcome:
        """What the task's right calls come to now."""
        await self._clean(room)
        made: list[MadeCall] = []
        for turn, decision in enumerate(task.decisions):
            for call in decision.gold:
                made.append(await self._call(room, call, turn, None))
                if made[-1].is_error:
                    raise _FaultError(f"the right call of {call.name} errs now: {made[-1].result[:200]}")
        return Outcome(made=made, state=room.servers.state())

    async def _call(self, room: Room, call: Call, turn: int, offered: frozenset[str] | None) -> MadeCall:
        """Make a call; one of a tool that is not `offered` reaches no server."""
        tool = room.servers.tools.get(call.name)
        if tool is None or (offered is not None and call.name not in offered):
            if offered is None:
                raise _FaultError(f"{call.name}: no server has such a tool, or it may not run")
            text = f"Unknown tool: {call.name}"
            return MadeCall(turn=turn, name=call.name, server="", arguments=call.arguments, result=text, is_error=True)
        if tool.server in self.remembering:
            room.touched.add(tool.server)
        try:
            answer = await room.servers.call(call.name, call.arguments)
        except UserError as error:
            raise _FaultError(str(error)) from error
        if answer.down:
            raise _FaultError(f"{tool.server}: gave no answer to {call.name}: {answer.text[:200]}")
        return MadeCall(
            turn=turn,
            name=call.name,
            server=tool.server,
            arguments=call.arguments,
            result=answer.text,
            is_error=bool(judge(tool, answer, self.rules[tool.server].errors, call.arguments)),
            changes=tool.server not in self.stateless and not reads_only(tool),
        )

    async def _clean(self, room: Room) -> None:
        if self.shared:
            return
        try:
            await room.servers.reset(sorted(room.touched))
        except UserError as error:
            raise _FaultError(str(error)) from error
        room.touched.clear()


class _FaultError(Exception):
    """A server failed, not the agent; the text says which and how."""


class Together:
    """Has the prompts of the tasks in play answered, all at once that were asked while the last were answered."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.waiting: list[tuple[Prompt, asyncio.Future[Reply]]] = []
        self.answering: asyncio.Task[None] | None = None

    async def reply(self, prompt: Prompt) -> Reply:
        """The policy's reply to the prompt."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.waiting.append((prompt, future))
        if self.answering is None:
            self.answering = asyncio.create_task(self._answer())
        return await future

    async def _answer(self) -> None:
        while self.waiting:
            asked, self.waiting = self.waiting, []
            try:
                replies = await asyncio.to_thread(self.policy.reply, [prompt for prompt, _ in asked])
            except Exception as error:
                for _, future in asked:
                    if not future.done():  # its task was ended meanwhile
                        future.set_exception(error)
            else:
                for (_, future), reply in zip(asked, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
        self.answering = None


def evaluate_live(
    model: str | Path,
    dataset: str | Path,
    servers: str | Path,
    json_out: Path,
    split: str = "test",
    limit: int | None = None,
    *,
    half: str | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 256,
    limits: Limits | None = None,
    sets: int = 2,
    trials: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Play the tasks of a dataset's split on the servers of a servers file, and write the result file.

    Args:
        model: as `eval.rollouts.decisions.evaluate` takes it.
        servers: the servers file that the dataset was made with, or one with the same tools.
        json_out: where the result goes; `rollouts.jsonl` stands in the folder of that name without its ending.
        limits: where a talk is ended.
        sets: how many times the servers are started, each with a sandbox of its own.
        trials: how many times each task is played.
        temperature: of a model behind a server; local ones answer greedily.
        policy: an already loaded policy, in place of `model`.

    Returns:
        As `evaluate`, with `mode` "live"; `missing` names the tasks that were not judged in every trial, with the
        reason. With several trials `metrics` has `pass^k` and `pass@k` of the executed verdict for each k.

    Raises:
        UserError: a model, dataset or servers file that cannot be used, rollouts there that were made otherwise, or a
            `json_out` without an ending.
    """
    if not json_out.suffix:
        raise UserError(f"{json_out}: expected a name with an ending, as OUT.json; the folder OUT holds the rollouts")
    start, limits = time.monotonic(), limits or Limits()
    rows = load_rows(Path(dataset), split, limit, seed, half)
    file = load_servers(Path(servers))
    policy = policy or policy_for(model, rows, batch_size, max_new_tokens, temperature)
    tasks, missing = _playable([task_of(row) for row in rows])
    cut = _result_chars(Path(dataset))
    config = [identity(policy.name), file.fingerprint, asdict(limits), max_new_tokens, cut, temperature]
    made_by = {task.id: digest(config, _told(task)) for task in tasks}
    folder = json_out.with_suffix("")
    with Journal(folder / "rollouts.jsonl", Rollout, lambda rollout: played(rollout.id, rollout.trial)) as journal:
        if any(made_by.get(rollout.id) != rollout.made_by for rollout in journal):
            raise UserError(
                f"{journal.path}: made with another model, dataset, servers file or limits; give another --json, or "
                f"remove {folder}"
            )
        asyncio.run(Play(policy, file, limits, cut).run(tasks, journal, made_by, sets, trials))
        found = [(task, journal.get(played(task.id, trial))) for trial in range(trials) for task in tasks]
    rollouts = [(task, rollout) for task, rollout in found if rollout is not None]
    faults = {task.id: rollout.fault for task, rollout in rollouts if rollout.verdict == "fault"}
    missing += [{"id": id_, "reason": reason} for id_, reason in faults.items()]
    entries = [_entry(task, rollout) for task, rollout in rollouts if task.id not in faults]
    if not entries:
        raise UserError(f"{journal.path}: no task could be judged: {missing[0]['reason']}")
    scores = summary(entries, seed)
    scores["metrics"] |= pass_rates(entries, trials, seed) if trials > 1 else {}
    result = {
        "model": str(model),
        "mode": "live",
        "dataset": str(dataset),
        "servers": str(servers),
        "split": split,
        "half": half,
        "n_tasks": len(entries) // trials,
        "trials": trials,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "limits": asdict(limits),
        **scores,
        "power": power(entries),
        "missing": missing,
        "engine": engine(policy),
        "verdicts": Counter(rollout.verdict for _, rollout in rollouts),
        "calls_per_task": sum(len(entry["calls"]) for entry in entries) / len(entries),
        "tasks": entries,
        "seconds": round(time.monotonic() - start, 2),
    }
    write_json(json_out, result, indent=1, sort_keys=True)
    return result


def _playable(tasks: Sequence[Task]) -> tuple[list[Task], list[dict[str, Json]]]:
    """The tasks that one request opens, and the others with the reason why they are left out."""
    found, missing = [], []
    for task in tasks:
        if not task.decisions:
            missing.append({"id": task.id, "reason": "nothing is to be called"})
        elif any(m["role"] == "user" for m in task.decisions[-1].prompt.messages[len(_opening(task)) :]):
            missing.append({"id": task.id, "reason": "the user speaks more than once"})
        else:
            found.append(task)
    return found, missing


def _told(task: Task) -> list[Json]:
    """What a rollout of the task rests on."""
    return [_opening(task), task.decisions[0].prompt.tools, [call.as_dict() for call in task.gold_calls]]


def _opening(task: Task) -> list[Message]:
    return task.decisions[0].prompt.messages


def _entry(task: Task, rollout: Rollout) -> dict[str, Any]:
    """The task as the result file keeps it: its calls are compared as if all were of one turn."""
    made = [Call(call.name, call.arguments) for call in rollout.calls]
    # A reply that cannot be read is one wrong call, as it is step by step.
    made += [Call("", {})] * (rollout.ending in ("unreadable", "cut"))
    starts = list(accumulate((len(decision.gold) for decision in task.decisions), initial=0))
    critical = [
        {**entry, "call": start + entry["call"]}
        for start, decision in zip(starts, task.decisions, strict=False)
        for entry in decision.critical
    ]
    closing = Reply("", problem=NO_CALL if rollout.ending == "words" else "")
    reply = Reply("", tuple(made), "" if made else NO_CALL)
    counts = all_counts([(task.gold_calls, critical, reply)], task.tools, closing)
    return {
        **outline(task),
        "trial": rollout.trial,
        "verdict": rollout.verdict,
        "ending": rollout.ending,
        "calls": [call.model_dump() for call in rollout.calls],
        "gold": [call.as_dict() for call in task.gold_calls],
        "counts": {**counts, EXECUTED.hits: int(rollout.verdict == "success")},
    }


def _result_chars(dataset: Path) -> int:
    """How much of a result the requests were made with."""
    try:
        manifest = json.loads((dataset.parent / "manifest.json").read_text(encoding="utf-8"))
        return int(manifest["config"]["result_chars"])
    except (OSError, ValueError, KeyError, TypeError):
        return RESULT_CHARS
