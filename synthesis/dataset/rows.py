"""Hugging Face datasets from samples and negatives: rows, explicit features, a split by group, and the card.

Features are declared, never inferred: Arrow would fill the parameters of foreign tools with nulls, and these leak into
prompts. Nothing here depends on the clock or on chance outside the seed, so two runs write the same bytes.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from synthesis.dataset import exact_json
from synthesis.dataset.dataset_card import Row, card, count
from synthesis.errors import UserError
from synthesis.records import Json, Negative, Sample, Tool, Trajectory
from synthesis.seeds import digest, seeded

Rejected = Callable[[list[Row], Negative, Trajectory], list[Row]]
"""Applies a negative to the calls of its turn, each `{"name", "arguments"}`: `synthesis.negatives.mutations.apply`."""

TEST_SHARE = 0.2
SFT = {"messages": "list", "tools": "list", "meta": "object"}
PREFERENCE = {"prompt": "list", "chosen": "list", "rejected": "lists", "tools": "list", "meta": "object"}
"""Columns of the two configs, each with the kind of JSON that it holds: `object`, `list` or `lists`."""
NEAR_SHARE = 0.5
"""Share of the distractor tools that come from the gold tools' own servers."""


@dataclass(frozen=True)
class Source:
    """What the rows are made from: `tools` by full name, `trajectories` by id, `negatives` by sample id.

    `held_out` are the full names of tools that train must not know (`synthesis.dataset.holdout`).
    """

    tools: Mapping[str, Tool]
    trajectories: Mapping[str, Trajectory]
    samples: Sequence[Sample]
    negatives: Mapping[str, Sequence[Negative]]
    seed: int = 0
    tools_per_prompt: int = 4
    held_out: frozenset[str] = frozenset()

    def needed(self, sample: Sample) -> list[str]:
        """Tools that the task needs, each once: those of the steps, and both branches of a condition."""
        trajectory = self.trajectories[sample.trajectory_id]
        names = [step.tool for step in trajectory.steps]
        if trajectory.condition is not None:
            names += [trajectory.condition.then_tool, trajectory.condition.else_tool]
        return list(dict.fromkeys(names))

    def holds_out(self, sample: Sample) -> bool:
        """Whether the sample needs a held-out tool, and so belongs to test."""
        return not self.held_out.isdisjoint(self.needed(sample))


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
    return {"messages": messages, "tools": candidate_tools(source, sample), "meta": meta}


def preference_rows(source: Source, sample: Sample, apply: Rejected) -> list[Row]:
    """The sample's groups: one row for each decision turn that has negatives, all of them in `rejected`.

    A negative that calls a held-out tool instead of the right one is left out where the sample may be in train.
    """
    by_turn: dict[int, list[Negative]] = defaultdict(list)
    hidden = frozenset() if source.holds_out(sample) else source.held_out
    for negative in source.negatives.get(sample.id, ()):
        called = {mutation.after for mutation in negative.mutations if mutation.kind == "sibling_tool"}
        if hidden.isdisjoint(called):
            by_turn[negative.turn].append(negative)
    return [_preference_row(source, sample, turn, by_turn[turn], apply) for turn in sorted(by_turn)]


def _preference_row(source: Source, sample: Sample, turn: int, negatives: list[Negative], apply: Rejected) -> Row:
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
    tools = candidate_tools(source, sample)
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
    return [{**call, "arguments": schema_order(source.tools[call["name"]], call["arguments"])} for call in calls]


def _assistant(calls: Sequence[Row]) -> Row:
    tool_calls = [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}


def schema_order(tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]:
    """`arguments` in the order of the input schema's properties; unknown ones last."""
    order = {name: index for index, name in enumerate(tool.input_schema.get("properties", {}))}
    return dict(sorted(arguments.items(), key=lambda item: order.get(item[0], len(order))))


def candidate_tools(source: Source, sample: Sample) -> list[Row]:
    """The tools in the prompt: all that the task needs, then near siblings and others up to `tools_per_prompt`.

    Tools that a negative calls by mistake have to be on offer too, even where the prompt gets longer by them.
    Held-out tools stand only in prompts of samples that need one; so none is ever seen in train.
    """
    names = source.needed(sample)
    hidden = frozenset() if source.holds_out(sample) else source.held_out
    offered = {name: tool for name, tool in source.tools.items() if name not in hidden}
    rng = seeded(source.seed, "tools", sample.id)
    servers = {source.tools[name].server for name in names}
    names += [name for name in _mistaken(source, sample) if name in offered and name not in names]
    near = sorted(name for name, tool in offered.items() if tool.server in servers and name not in names)
    far = sorted(name for name, tool in offered.items() if tool.server not in servers)
    while len(names) < source.tools_per_prompt and (near or far):
        pool = near if near and (not far or rng.random() < NEAR_SHARE) else far
        names.append(pool.pop(rng.randrange(len(pool))))
    rng.shuffle(names)
    return [source.tools[name].spec() for name in names]


def _mistaken(source: Source, sample: Sample) -> list[str]:
    """The tools that the sample's negatives call instead of the right ones, each once."""
    mutations = [m for negative in source.negatives.get(sample.id, ()) for m in negative.mutations]
    return list(dict.fromkeys(mutation.after for mutation in mutations if mutation.kind == "sibling_tool"))


def normal(text: str) -> str:
    """The request without case, punctuation at the edges of words, and extra space: two equal ones are duplicates."""
    return " ".join(word.strip(".,;:!?\"'()") for word in text.lower().split())


def split(source: Source) -> tuple[list[Sample], list[Sample]]:
    """Train and test, 8:2 within each pattern, by group.

    A group is what hangs together through a trajectory, an equal normalised request or an equal sequence of calls: it
    never stands on both sides. A group with a held-out tool goes to test as a whole, on top of the usual share of the
    others.

    Raises `UserError` where holding out leaves nothing for train.
    """
    groups: list[list[Sample]] = []
    held: list[list[Sample]] = []
    for group in _groups(source):
        (held if any(source.holds_out(sample) for sample in group) else groups).append(group)
    if held and not groups:
        raise UserError("--hold-out: every sample needs a held-out tool, so nothing is left for train.")
    by_pattern: dict[str, list[list[Sample]]] = defaultdict(list)
    for group in groups:
        by_pattern[group[0].pattern].append(group)
    test = {sample.id for group in held for sample in group}
    for pattern in sorted(by_pattern):
        found = sorted(by_pattern[pattern], key=lambda group: digest("split", source.seed, group[0].id))
        wanted = TEST_SHARE * sum(map(len, found))
        taken = 0
        for group in found:
            if taken + len(group) / 2 <= wanted:
                test |= {sample.id for sample in group}
                taken += len(group)
    ordered = sorted(source.samples, key=lambda sample: sample.id)
    return [s for s in ordered if s.id not in test], [s for s in ordered if s.id in test]


def _groups(source: Source) -> list[list[Sample]]:
    """Connected components of the samples, by union-find over what they share."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    ordered = sorted(source.samples, key=lambda sample: sample.id)
    for sample in ordered:
        steps = source.trajectories[sample.trajectory_id].steps
        calls = json.dumps([[step.turn, step.tool, step.arguments] for step in steps], sort_keys=True)
        for key in ("trajectory " + sample.trajectory_id, "request " + normal(sample.request), "calls " + calls):
            parent[root(key)] = root("sample " + sample.id)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in ordered:
        groups[root("sample " + sample.id)].append(sample)
    return list(groups.values())


def write(
    source: Source,
    folder: Path,
    apply: Rejected,
    facts: Mapping[str, Json],
    tables: Mapping[str, Mapping[str, Mapping[str, int]]] = MappingProxyType({}),
) -> dict[str, Json]:
    """Write `folder`/sft, `folder`/preference and the card; return the counts, `tables` among them.

    `facts` goes into the card, and so do `tables`: what the executed negatives came to
    (`synthesis.negatives.executions`).

    The folder appears all at once: it is written beside and then renamed, so a killed run leaves none or a whole one.
    """
    sides = dict(zip(("train", "test"), split(source), strict=True))
    sft = {name: [sft_row(source, sample) for sample in samples] for name, samples in sides.items()}
    preference = {
        name: [row for sample in samples for row in preference_rows(source, sample, apply)]
        for name, samples in sides.items()
    }
    used = {sample.trajectory_id: source.trajectories[sample.trajectory_id] for sample in source.samples}
    counts = count(source.samples, used, source.tools, {"sft": sft, "preference": preference})
    counts |= tables
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save(sft, SFT, partial / "sft")
    save(preference, PREFERENCE, partial / "preference")
    (partial / "README.md").write_text(card(counts, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return counts


def save(sides: Mapping[str, Sequence[Row]], kinds: Mapping[str, str], folder: Path) -> None:
    """Write a `DatasetDict` with the features that `kinds` names: `object`, `list` or `lists` of JSON, by column."""
    import datasets
    from datasets.utils.json import ujson_loads

    def encode(value: Json, kind: str) -> Json:
        if kind == "object":
            return exact_json.dumps(value, ujson_loads)
        return [encode(item, {"list": "object", "lists": "list"}[kind]) for item in value]

    shapes = {"list": datasets.List(datasets.Json()), "lists": datasets.List(datasets.List(datasets.Json()))}
    features = datasets.Features({name: shapes.get(kind, datasets.Json()) for name, kind in kinds.items()})
    columns = {
        side: {name: [encode(row[name], kind) for row in rows] for name, kind in kinds.items()}
        for side, rows in sides.items()
    }
    made = {side: datasets.Dataset.from_dict(data, features=features) for side, data in columns.items()}
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.DatasetDict(made).save_to_disk(str(folder))
    finally:
        if shown:
            datasets.enable_progress_bars()
