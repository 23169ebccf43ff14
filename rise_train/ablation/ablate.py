"""`rise ablate`: train every arm on the same data and seeds, score all, compare them.

An arm is one training stage that starts from the base (`raw`) or from another arm. Each training is a command that a
user could type (`python -m rise_train.sft ...`, by `accelerate launch` where the file names a configuration for it),
each evaluation is `rise eval`; they run as processes, a few at a time. A finished one is skipped when the file, the
recipe, the data and the base are what they were, so that a killed run goes on by the same command.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from rise_train.ablation.arms import RAW, AblationConfig, load_config
from rise_train.ablation.job_graph import Layout, Plan, read_history
from rise_train.ablation.job_runner import Runner
from synthesis.errors import UserError
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
    report(layout.root)
    return outcome


Results = dict[str, list[dict[str, Any]]]
"""For each arm what `rise eval` wrote, one entry a seed."""


def gather(plan: Plan) -> dict[str, Any]:
    """The content of ablation.json, from the result files of all arms.

    With several seeds the metrics are over all of them, and `per_seed` keeps each one's. The tests compare every arm
    with the one that it started from, with those that it names and with the one that it matches in compute.
    `causes` counts why parameters were missed; `by_difficulty` has metrics and tests for easy and hard requests apart.
    """
    from eval.scores.causes import tally
    from rise_train.runs import manifest

    config, seeds = plan.config, plan.config.seeds
    results = {arm: plan.results(arm) for arm in (RAW, *config.arms)}
    results[RAW] = results[RAW][:1]
    whole = _scored(results, config)
    for arm, entry in whole["arms"].items():
        entry |= {"causes": tally([task for run in results[arm] for task in run["tasks"]]), **plan.facts(arm)}
        if arm != RAW and len(seeds) > 1:
            entry["per_seed"] = {str(s): run["metrics"] for s, run in zip(seeds, results[arm], strict=True)}
    return {
        **whole,
        "by_difficulty": {level: _scored(part, config) for level, part in _by_difficulty(results).items()},
        "seeds": seeds,
        "data": plan.data(),
        "versions": manifest.versions(),
    }


def _by_difficulty(results: Results) -> dict[str, Results]:
    """The results cut down to the easy and to the hard tasks."""
    from eval.rollouts.decisions import grouped

    parts: dict[str, Results] = {}
    for arm, runs in results.items():
        for run in runs:
            for level, tasks in grouped(run["tasks"], "difficulty").items():
                parts.setdefault(level, {}).setdefault(arm, []).append({"tasks": tasks})
    return dict(sorted(parts.items()))


def _scored(results: Results, config: AblationConfig) -> dict[str, Any]:
    """Metrics of every arm, and the tests of arms against each other."""
    from eval.scores.compare import compare
    from eval.scores.metrics import rates

    arms = {arm: {"metrics": rates([t for run in runs for t in run["tasks"]])} for arm, runs in results.items()}
    return {"arms": arms, "tests": compare(results, config.comparisons())}


def report(run: Path, output: Path | None = None) -> Path:
    """Print the table of the ablation in folder `run`, and write its report.

    Raises:
        UserError: no ablation there, or one whose result files are gone.
    """
    from eval.reports.report import print_table, write_report

    path = run / "ablation.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder in which `rise ablate` has finished")
    ablation = json.loads(path.read_text())
    results, histories = {}, {}
    for arm, facts in ablation["arms"].items():
        result = run / facts["result"]
        if not result.is_file():
            raise UserError(f"{result}: the replies of arm {arm} are gone; run `rise ablate` again")
        results[arm] = json.loads(result.read_text())
        if arm != RAW:
            histories[arm] = read_history(run / facts["model"])
    output = output or run / "report.html"
    write_report(ablation, results, histories, output)
    print_table(ablation)
    Console(stderr=True).print(f"report: {output}", highlight=False, soft_wrap=True)
    return output
