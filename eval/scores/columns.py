"""The columns of a metric: how values were compared.

`exact` is the paper's rule (lower-cased, without blanks), the one of the tables and tests. `normalised` compares what
values mean: dates, numbers, units, paths, names in any form; null as left out; unique items in any order. `executed`
compares nothing that was written but what it comes to on the real servers (`eval.scores.executed`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.replies.calls import Call, Reply, Toolbox, alike
from eval.scores.metrics import METRICS, Counts, Metric, align, rates, rates_of, score_task, table
from eval.scores.stats import at_least_once, every_time, mean_interval
from synthesis.records import Json

Turns = Sequence[tuple[Sequence[Call], Sequence[Mapping[str, Json]], Reply]]
NORMALISED = ("acc_task", "acc_icp", "acc_icp_all", "acc_intent")
"""Metrics that compare values."""
EXECUTED = Metric(
    "acc_task.executed", "Task, executed", "task.executed", "tasks", "tasks that came to the same as the right calls"
)
DISTRACTED = Metric(
    "distractor_rate", "Distractor", "distracted", "calls_predicted", "predicted tools that were not required"
)
EXTRA = Metric(
    "extra_argument_rate", "Extra argument", "arguments_extra", "arguments", "given arguments that were not required"
)
REDUNDANT = Metric(
    "redundant_call_rate", "Redundant call", "calls_repeated", "calls_predicted", "calls equal to an earlier one"
)


def all_counts(turns: Turns, tools: Toolbox, closing: Reply | None = None) -> dict[str, int]:
    """The counts of `score_task`, and those of the further columns and rates."""
    exact, meant = score_task(turns, tools, closing), score_task(turns, tools, closing, normalised=True)
    return {**exact.as_dict(), **_normalised(meant), **_superfluous(turns, tools)}


def all_rates(tasks: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """`rates`, those by the name METRIC.COLUMN, and those of what is too much, over entries with `all_counts`."""
    found = rates(tasks, seed)
    meant = [
        metric._replace(
            name=f"{metric.name}.normalised",
            hits=f"{metric.hits}.normalised",
            total=f"{metric.total}.normalised" if metric.total == "icp_aligned" else metric.total,
        )
        for metric in METRICS
        if metric.name in NORMALISED
    ]
    executed = [EXECUTED] if all(EXECUTED.hits in task["counts"] for task in tasks) else []
    chosen = [*meant, *executed, DISTRACTED, EXTRA, REDUNDANT]
    names = sorted({name for metric in chosen for name in (metric.hits, metric.total)})
    return found | {f"{name}.exact": found[name] for name in NORMALISED} | rates_of(chosen, table(tasks, names), seed)


def pass_rates(tasks: Sequence[Mapping[str, Any]], trials: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """`pass^k`, all of k trials right, and `pass@k`, one of them, by the executed verdict; n counts tasks."""
    right: Counter[str] = Counter()
    for task in tasks:
        right[task["id"]] += task["counts"][EXECUTED.hits]
    trajectories = {task["id"]: task.get("trajectory_id", task["id"]) for task in tasks}
    clusters = np.unique([trajectories[id_] for id_ in right], return_inverse=True)[1]
    found = {}
    for k in range(1, trials + 1):
        for name, estimate in ((f"pass^{k}", every_time), (f"pass@{k}", at_least_once)):
            values = np.array([estimate(count, trials, k) for count in right.values()])
            low, high = mean_interval(values, clusters, seed)
            found[name] = {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}
    return found


def _normalised(counts: Counts) -> dict[str, int]:
    found = asdict(counts)
    return {f"{name}.normalised": found[name] for name in ("task", "intent", "icp_equal", "icp_aligned")}


def _superfluous(turns: Turns, tools: Toolbox) -> dict[str, int]:
    """What was called or given without need: tools beyond those asked for, arguments, and calls made before."""
    counts = {"distracted": 0, "arguments": 0, "arguments_extra": 0, "calls_repeated": 0}
    made: list[Call] = []
    asked = [call for gold, _, _ in turns for call in gold]
    for gold, critical, reply in turns:
        names = {call.name for call in gold}
        counts["distracted"] += sum(call.name not in names for call in reply.calls)
        for at, answer in align(gold, reply.calls, critical, tools).items():
            given = {name: value for name, value in reply.calls[answer].arguments.items() if value is not None}
            # An argument that says what its default says anyway is none too many.
            defaults = tools.defaults(gold[at].name)
            counts["arguments"] += len(given)
            counts["arguments_extra"] += sum(
                name not in gold[at].arguments and not (name in defaults and alike(value, defaults[name]))
                for name, value in given.items()
            )
        for call in reply.calls:
            allowed = max(1, sum(tools.equivalent(each, call) for each in asked))
            counts["calls_repeated"] += sum(tools.equivalent(each, call) for each in made) >= allowed
            made.append(call)
    return counts
