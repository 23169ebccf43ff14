"""Results of `rise eval` side by side: metrics of every arm, tests of arm against arm, why parameters were missed."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.rollouts.decisions import grouped
from eval.scores.causes import tally
from eval.scores.columns import EXECUTED
from eval.scores.compare import compare
from eval.scores.metrics import rates, rates_of, table

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each arm what `rise eval` wrote, one entry a seed."""


def side_by_side(results: Results, pairs: Sequence[tuple[str, str]] | None = None) -> dict[str, Any]:
    """The arms compared, as `ablation.json` holds it and `eval.reports.report` shows it.

    Args:
        results: the arms in their order.
        pairs: which (arm, other) to test; every arm against the first by default.

    Returns:
        {"arms": {arm: {"metrics", "causes"}}, "tests": as `compare` gives them, "by_difficulty": the same for the easy
        and for the hard requests alone}. Causes are left out where results have none, as live ones.

    Raises:
        UserError: the arms were evaluated on different tasks.
    """
    first, *others = results
    pairs = [(arm, first) for arm in others] if pairs is None else list(pairs)
    whole = _scored(results, pairs)
    for arm, runs in results.items():
        tasks = [task for run in runs for task in run["tasks"]]
        if all("turns" in task for task in tasks):
            whole["arms"][arm]["causes"] = tally(tasks)
    parts = _by_difficulty(results)
    return {**whole, "by_difficulty": {level: _scored(part, pairs) for level, part in parts.items()}}


def _scored(results: Results, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    arms = {arm: {"metrics": _metrics([t for run in runs for t in run["tasks"]])} for arm, runs in results.items()}
    return {"arms": arms, "tests": compare(results, pairs)}


def _metrics(tasks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The rates of the metrics, and that of the executed verdict where the tasks were played live."""
    live = all(EXECUTED.hits in task["counts"] for task in tasks)
    names = sorted({EXECUTED.hits, EXECUTED.total})
    return rates(tasks) | (rates_of([EXECUTED], table(tasks, names)) if live else {})


def _by_difficulty(results: Results) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The results cut down to the easy and to the hard tasks."""
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for arm, runs in results.items():
        for run in runs:
            for level, tasks in grouped(run["tasks"], "difficulty").items():
                parts.setdefault(level, {}).setdefault(arm, []).append({"tasks": tasks})
    return dict(sorted(parts.items()))
