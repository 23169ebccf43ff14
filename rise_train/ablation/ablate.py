"""`rise ablate`: train every arm on the same data and seeds, score all, compare them.

An arm is one training stage that starts from the base (`raw`) or from another arm. Each training is a command that a
user could type (`python -m rise_train.sft ...`, by `accelerate launch` where the file names a configuration for it),
each evaluation is `rise eval`; they run as processes, a few at a time. A finished one is skipped when the file, the
recipe, the data and the base are what they were, so that a killed run goes on by the same command.
"""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from rise_train.ablation.arms import RAW, load_config
from rise_train.ablation.job_graph import Layout, Plan
from rise_train.ablation.job_runner import Runner
from rise_train.ablation.reporting import report
from synthesis.json_file import write_json
from synthesis.lock import locked


def ablate(
    path: Path,
    *,
    dataset: Path | None = None,
    output_dir: Path | None = None,
    jobs: int | None = None,
    fresh: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the ablation that the file `path` describes; print its table; write `ablation.json` and `report.html`.

    Args:
        path: the YAML file, see `AblationConfig`; `dataset`, `output_dir` and `jobs` replace its fields.
        fresh: discard what earlier runs left in `output_dir`/ablation.

    Returns:
        What ablation.json holds.

    Raises:
        UserError: a broken file; an arm that was trained with another recipe, dataset or base (`fresh` discards it); an
            arm that failed; another ablation at work in the same folder.
    """
    console = console or Console(stderr=True)
    config = load_config(path, dataset, output_dir, jobs)
    layout = Layout(config.output_dir)
    with locked(layout.work, "`rise ablate`"):
        if fresh:
            for part in ("models", "mined", "eval", "logs", "jobs"):
                shutil.rmtree(layout.work / part, ignore_errors=True)
        runner = Runner(layout.work / "jobs", layout.work / "logs", config.jobs, console)
        plan = Plan(config, layout, runner)
        plan.refuse_mixture(path)
        runner.run(plan.jobs())
        outcome = gather(plan)
        write_json(layout.root / "ablation.json", outcome, indent=1)
    report([str(layout.root)])
    return outcome


def gather(plan: Plan) -> dict[str, Any]:
    """The content of ablation.json, from the result files of all arms.

    With several seeds the metrics are over all of them, and `per_seed` keeps each one's. The tests compare every arm
    with the one that it started from, with those that it names and with the one that it matches in compute.
    `causes` counts why parameters were missed; `by_difficulty` has metrics and tests for easy and hard requests apart.
    """
    from eval.reports.side_by_side import side_by_side
    from rise_train.runs import manifest

    config, seeds = plan.config, plan.config.seeds
    results = {arm: plan.results(arm) for arm in (RAW, *config.arms)}
    results[RAW] = results[RAW][:1]
    whole = side_by_side(results, config.comparisons())
    for arm, entry in whole["arms"].items():
        entry |= plan.facts(arm)
        if arm != RAW and len(seeds) > 1:
            entry["per_seed"] = {str(s): run["metrics"] for s, run in zip(seeds, results[arm], strict=True)}
    return {
        **whole,
        "seeds": seeds,
        "data": plan.data(),
        "versions": manifest.versions(),
    }
