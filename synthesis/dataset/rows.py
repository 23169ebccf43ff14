"""Rows from samples and negatives: a conversation for SFT, and one group a decision turn for preferences."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from synthesis.dataset.source import Row, Source
from synthesis.negatives.mutations import apply
from synthesis.records import Negative, Sample, Trajectory
from synthesis.schemas import in_order
from synthesis.seeds import digest


def sft_row(source: Source, sample: Sample) -> Row:
    """The positive as a conversation: request, calls and real results turn by turn, closing message."""
    trajectory = source.trajectories[sample.trajectory_id]
    messages = [{"role": "user", "content": sample.request}]
    for turn in trajectory.turns:
        messages += _turn_messages(source, trajectory, turn)
    messages.append({"role": "assistant", "content": sample.response})
    places = {step: (t, c) for t, turn in enumerate(trajectory.turns) for c, step in enumerate(turn)}
    critical = [
        {"turn": places[p.step][0], "call": places[p.step][1], "parameter": p.parameter, "value": p.value}
        for p in sample.critical
        if p.by_author and p.by_rule
    ]
    meta = {
        "id": sample.id,
        "trajectory_id": trajectory.id,
        "pattern": sample.pattern,
        "style": sample.style,
        "difficulty": sample.difficulty,
        "held_out": source.holds_out(sample),
        "servers": sorted({source.tools[step.tool].server for step in trajectory.steps}),
        "critical": critical,
        "edges": [edge.model_dump() for edge in trajectory.edges],
        "primitive_ids": [step.primitive_id for step in trajectory.steps],
    }
    return {"messages": messages, "tools": source.prompt_tools[sample.id], "meta": meta}


def preference_rows(source: Source, sample: Sample) -> list[Row]:
    """The sample's groups: one row for each decision turn that has negatives, all of them in `rejected`.

    A negative that calls a held-out tool instead of the right one is left out where the sample may be in train.
    """
    by_turn: dict[int, list[Negative]] = defaultdict(list)
    hidden = frozenset() if source.holds_out(sample) else source.held_out
    for negative in source.negatives.get(sample.id, ()):
        called = {mutation.after for mutation in negative.mutations if mutation.kind == "sibling_tool"}
        if hidden.isdisjoint(called):
            by_turn[negative.turn].append(negative)
    return [_preference_row(source, sample, turn, by_turn[turn]) for turn in sorted(by_turn)]


def _preference_row(source: Source, sample: Sample, turn: int, negatives: list[Negative]) -> Row:
    trajectory = source.trajectories[sample.trajectory_id]
    steps = trajectory.turns[turn]
    prompt = [{"role": "user", "content": sample.request}]
    for earlier in trajectory.turns[:turn]:
        prompt += _turn_messages(source, trajectory, earlier)
    calls = _calls(source, trajectory, steps)
    rejected = [[_assistant(_ordered(source, apply(calls, negative, trajectory)))] for negative in negatives]
    critical = [
        {"call": steps.index(p.step), "parameter": p.parameter, "value": p.value}
        for p in sample.critical
        if p.step in steps and p.by_author and p.by_rule
    ]
    meta = {
        "id": digest("group", sample.id, turn),
        "sample_id": sample.id,
        "trajectory_id": trajectory.id,
        "turn": turn,
        "pattern": sample.pattern,
        "difficulty": sample.difficulty,
        "held_out": source.holds_out(sample),
        "critical": critical,
        "primitive_ids": [trajectory.steps[step].primitive_id for step in steps],
        "negatives": [_negative_meta(negative, steps) for negative in negatives],
    }
    tools = source.prompt_tools[sample.id]
    return {"prompt": prompt, "chosen": [_assistant(calls)], "rejected": rejected, "tools": tools, "meta": meta}


def _negative_meta(negative: Negative, steps: list[int]) -> Row:
    mutations = [
        {
            "call": steps.index(mutation.step),
            "parameter": mutation.parameter,
            "kind": mutation.kind,
            "before": mutation.before,
            "after": mutation.after,
            "deleted": mutation.deleted,
            "added": mutation.added,
            "arguments": mutation.arguments,
        }
        for mutation in negative.mutations
    ]
    return {
        "id": negative.id,
        "kind": negative.kind,
        "score": negative.score,
        "executed": negative.executed,
        "mutations": mutations,
    }


def _turn_messages(source: Source, trajectory: Trajectory, steps: list[int]) -> list[Row]:
    results = [
        {"role": "tool", "name": trajectory.steps[step].tool, "content": trajectory.steps[step].result}
        for step in steps
    ]
    return [_assistant(_calls(source, trajectory, steps)), *results]


def _calls(source: Source, trajectory: Trajectory, steps: Iterable[int]) -> list[Row]:
    """Calls with their arguments in the order of the tool's schema, which is the order that a model sees."""
    chosen = [trajectory.steps[step] for step in steps]
    return _ordered(source, [{"name": step.tool, "arguments": step.arguments} for step in chosen])


def _ordered(source: Source, calls: Iterable[Row]) -> list[Row]:
    return [{**call, "arguments": in_order(source.tools[call["name"]], call["arguments"])} for call in calls]


def _assistant(calls: Sequence[Row]) -> Row:
    tool_calls = [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}
