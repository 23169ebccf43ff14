"""Virtual trajectories (RISE, section 3.2.2): plans over primitives, each executed once more from end to end."""

import contextlib
from collections.abc import Sequence
from typing import Literal

from synthesis.authors.base import is_reference
from synthesis.calls.effects import reads_only
from synthesis.calls.protocol import Policy, Runner, policies_of
from synthesis.calls.references import UnresolvedError, fill, has_reference
from synthesis.calls.verdicts import judge
from synthesis.journal import Journal
from synthesis.progress import Progress, silent
from synthesis.records import TRIES, Condition, Edge, Json, Pattern, Primitive, Record, Step, Tool, Trajectory
from synthesis.run import Run
from synthesis.schemas import arguments_fault
from synthesis.surprises import surprise
from synthesis.text.visible import shown
from synthesis.trajectories.conditions import mentions
from synthesis.trajectories.plans import Plan, PlannedCall, Planner
from synthesis.workers import spread

REQUESTS_PER_TRAJECTORY = 2
BATCH = 12
"""Plans dealt before the planner hears how they went."""
MAX_REJECTED = 3
"""Stop when this many times as many plans as wanted were rejected: the servers then do not answer as before."""


class RejectedTrajectory(Record):
    """A plan that did not run from end to end, and why."""

    id: str
    verdict: Literal["rejected"] = "rejected"
    pattern: Pattern
    tools: list[str]
    primitive_ids: list[str]
    reason: str


class RejectionError(Exception):
    """The plan may not become a trajectory; the text says why."""


class LostError(RejectionError):
    """A server gave no answer: nothing is known about the plan."""


async def trajectories_stage(run: Run) -> None:
    """Put primitives together and execute each trajectory from end to end, as many as the samples need."""
    with run.stage("trajectories") as progress:
        run.trajectories = await generate(
            run.pool,
            policies_of(run.file),
            run.journal("primitives", Primitive),
            run.journal("trajectories", Trajectory),
            run.journal("trajectories_rejected", RejectedTrajectory),
            count=-(-run.config.positives // REQUESTS_PER_TRAJECTORY),
            seed=run.config.seed,
            result_chars=run.config.result_chars,
            progress=progress,
        )


async def generate(
    pool: Sequence[Runner],
    policies: dict[str, Policy],
    primitives: Journal[Primitive],
    accepted: Journal[Trajectory],
    rejected: Journal[RejectedTrajectory],
    *,
    count: int,
    seed: int,
    result_chars: int = 300,
    progress: Progress = silent,
) -> list[Trajectory]:
    """Plan and execute until `count` trajectories ran without an error; return them in the order of the plans.

    `pool` holds the same servers, started one or more times: plans are dealt in batches, which they share; how many
    they are changes nothing in what comes back. Fewer trajectories come back when the primitives allow no more plans.
    Plans in the journals are not executed again: the planner is told their outcome, so a resumed run deals the same
    plans as an uninterrupted one.
    """
    planner = Planner(primitives, pool[0].tools, policies, seed, result_chars)
    known = {primitive.id: primitive for primitive in primitives}
    done: list[Trajectory] = []
    failures = 0

    async def work(servers: Runner, plan: Plan) -> None:
        if plan.id not in accepted and plan.id not in rejected:
            try:
                accepted.append(await _execute(servers, policies, plan, known, result_chars))
            except RejectionError as error:
                rejected.append(_rejection(plan, str(error)))
            except Exception as error:
                rejected.append(_rejection(plan, surprise(error)))
        progress(len(done), count, plan.pattern)

    while len(done) < count and failures <= MAX_REJECTED * count + 100:
        plans = [plan for _ in range(min(BATCH, count - len(done))) if (plan := planner.next()) is not None]
        if not plans:
            break
        await spread(plans, pool, work)
        for plan in plans:
            trajectory = accepted.get(plan.id)
            planner.tell(plan, trajectory is not None)
            if trajectory is None:
                failures += 1
            else:
                done.append(trajectory)
        progress(len(done), count, plans[-1].pattern)
    return done


def _rejection(plan: Plan, reason: str) -> RejectedTrajectory:
    tools = [call.tool for call in plan.calls]
    return RejectedTrajectory(
        id=plan.id, pattern=plan.pattern, tools=tools, primitive_ids=plan.primitive_ids, reason=reason
    )


async def _execute(
    servers: Runner, policies: dict[str, Policy], plan: Plan, primitives: dict[str, Primitive], result_chars: int
) -> Trajectory:
    """`execute`, again where a server was lost meanwhile."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(LostError):
            return await execute(servers, policies, plan, primitives, result_chars)
    return await execute(servers, policies, plan, primitives, result_chars)


async def execute(
    servers: Runner, policies: dict[str, Policy], plan: Plan, primitives: dict[str, Primitive], result_chars: int
) -> Trajectory:
    """Run `plan` in a clean sandbox and record what came back.

    Raises `RejectionError` when two steps rest on one primitive (RISE, section 3.2.2), a call fails, an argument's data
    flow cannot be proven in the text that the model will see, a call on a server that nothing has changed yet answers
    otherwise than its primitive did, or the condition came out differently.
    """
    if len(set(plan.primitive_ids)) < len(plan.primitive_ids):
        raise RejectionError("repeated_primitive: two steps rest on the same real call")
    await servers.reset(sorted({servers.tools[call.tool].server for call in plan.calls}))
    steps: list[Step] = []
    edges: list[Edge] = []
    touched: set[str] = set()
    first = ""
    for index, call in enumerate(plan.calls):
        tool = servers.tools[call.tool]
        arguments = _resolved(tool, call, [step.result for step in steps])
        edges += _edges(call, arguments, index)
        if reason := arguments_fault(tool, arguments):
            raise RejectionError(f"step {index}, {call.tool}: input_schema: {reason}")
        answer = await servers.call(call.tool, arguments)
        if reason := judge(tool, answer, policies[tool.server].errors, arguments):
            raise (LostError if answer.down else RejectionError)(f"step {index}, {call.tool}: {reason}")
        if tool.server not in touched and not _repeats(call, answer.text, primitives[call.primitive_id]):
            raise RejectionError(f"step {index}, {call.tool}: not_repeatable: {answer.text[:80]!r}")
        first = first or answer.text
        if not reads_only(tool):
            touched.add(tool.server)
        steps.append(
            Step(
                turn=call.turn,
                tool=call.tool,
                arguments=arguments,
                result=shown(answer.text, result_chars),
                primitive_id=call.primitive_id,
            )
        )
    return Trajectory(
        id=plan.id, pattern=plan.pattern, steps=steps, edges=edges, condition=_condition(plan, steps, first)
    )


def _repeats(call: PlannedCall, text: str, primitive: Primitive) -> bool:
    """Whether the answer is the primitive's; one that rests on earlier calls has no answer to compare with."""
    return bool(primitive.setup) or has_reference(call.arguments) or text == primitive.result


def _resolved(tool: Tool, call: PlannedCall, texts: list[str]) -> dict[str, Json]:
    try:
        arguments = fill(tool, call.arguments, texts)
    except UnresolvedError as error:
        raise RejectionError(f"{call.tool}: edge_not_proven: {error}") from error
    return arguments


def _edges(call: PlannedCall, arguments: dict[str, Json], index: int) -> list[Edge]:
    """Every reference was resolved in the capped text, so its value stands there: that is the proof."""
    return [
        Edge(source=value["$result"], target=index, parameter=name, value=arguments[name])
        for name, value in call.arguments.items()
        if is_reference(value)
    ]


def _condition(plan: Plan, steps: list[Step], whole: str) -> Condition | None:
    if plan.condition is None:
        return None
    value, holds, other = plan.condition.value, plan.condition.holds, plan.condition.other
    for text, where in ((steps[0].result, "what the model sees of the result"), (whole, "the whole result")):
        if mentions(text, value) != holds:
            raise RejectionError(f"condition: {value!r} {'is not' if holds else 'is'} in {where}")
    taken = (steps[1].tool, steps[1].arguments)
    branches = (taken, (other.tool, other.arguments)) if holds else ((other.tool, other.arguments), taken)
    (then_tool, then_arguments), (else_tool, else_arguments) = branches
    return Condition(
        step=0,
        value=value,
        holds=holds,
        then_tool=then_tool,
        then_arguments=then_arguments,
        else_tool=else_tool,
        else_arguments=else_arguments,
    )
