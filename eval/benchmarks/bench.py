"""A model's score on a benchmark: every case asked once, and both verdicts of each reply, by category."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmarks.cases import Case, Score
from eval.benchmarks.load import SCORED, Benchmark
from eval.policies.base import Policy
from eval.policies.load import engine, load_policy
from eval.policies.scripted import GOLD, answering, scripted
from eval.replies.calls import Reply
from eval.rollouts.progress import progress_of
from eval.rollouts.reply_journal import journal_beside, replies_of
from eval.scores.stats import ratio_interval
from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.seeds import seeded

COLUMNS = Score._fields
IDLE = "policy:no_op"
"""Doing nothing, which scores on benchmarks that ask for nothing at times."""


def bench(
    name: str,
    path: Path,
    model: str,
    json_out: Path | None = None,
    limit: int | None = None,
    *,
    batch_size: int = 32,
    max_new_tokens: int = 512,
    seed: int = 0,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Score a model on a benchmark's files, and write the result file.

    Args:
        name: one of `eval.benchmarks.load.SCORED`.
        path: a folder with the benchmark's files, as its repository or package holds them.
        model: as `eval.rollouts.decisions.evaluate` takes it.
        json_out: where to write the result; meanwhile each reply is kept beside it, and the same call goes on.
        limit: at most so many cases of each category, a seeded sample.
        policy: an already loaded policy, in place of `model`.

    Returns:
        {"benchmark", "model", "metrics", "baselines", "missing", "engine", "cases", "seconds"}; `metrics` has
        `accuracy.COLUMN` over all cases and `CATEGORY.COLUMN`, COLUMN being `own` or `exact`
        (`eval.benchmarks.cases.Score`), with the interval of a bootstrap over dialogues; `baselines` what doing nothing
        scores. What the benchmark has and nothing here can score is in `missing`.

    Raises:
        UserError: no such benchmark, nothing of it there, or a model that cannot be loaded.
    """
    if name not in SCORED:
        raise UserError(f"{name}: expected one of {', '.join(SCORED)}")
    start, benchmark = time.monotonic(), SCORED[name]
    loaded = benchmark.load(path)
    cases = loaded.cases if limit is None else _sample(loaded.cases, limit, seed)
    if not cases:
        raise UserError(f"{path}: none of the cases there can be scored")
    prompts = [benchmark.prompt(case) for case in cases]
    if policy is None and model == GOLD:
        policy = answering(zip(prompts, (case.right for case in cases), strict=True))
    policy = policy or load_policy(model, batch_size, max_new_tokens)
    with (
        journal_beside(json_out) as journal,
        progress_of(f"{name}: {Path(policy.name).name or policy.name}", len(prompts), "cases") as advance,
    ):
        replies = replies_of(policy, prompts, max_new_tokens, journal, advance)
    entries = [_entry(benchmark, case, reply) for case, reply in zip(cases, replies, strict=True)]
    idle = [_entry(benchmark, case, reply) for case, reply in zip(cases, scripted(IDLE).reply(prompts), strict=True)]
    result = {
        "benchmark": name,
        "model": str(model),
        "metrics": accuracies(entries, seed),
        "baselines": {IDLE: {metric: rate["value"] for metric, rate in accuracies(idle, seed).items()}},
        "missing": loaded.missing,
        "engine": engine(policy),
        "max_new_tokens": max_new_tokens,
        "cases": entries,
        "seconds": round(time.monotonic() - start, 2),
    }
    if json_out is not None:
        write_json(json_out, result, indent=1, sort_keys=True)
    return result


def _entry(benchmark: Benchmark, case: Case, reply: Reply) -> dict[str, Any]:
    return {
        "id": case.id,
        "category": case.category,
        "cluster": case.cluster or case.id,
        **benchmark.score(case, reply)._asdict(),
        "predicted": [call.as_dict() for call in benchmark.parse(case, reply)],
        "reply": reply.text,
        "problem": reply.problem,
        "gold": case.gold,
    }


def accuracies(entries: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """The share of right cases, over all and by category, by each column: value, low, high, n."""
    categories = dict.fromkeys(entry["category"] for entry in entries)
    groups = {"accuracy": entries} | {name: [e for e in entries if e["category"] == name] for name in categories}
    return {
        f"{name}.{column}": _share(judged, column, seed)
        for name, group in groups.items()
        for column in COLUMNS
        if (judged := [entry for entry in group if entry[column] is not None])
    }


def _share(entries: Sequence[Mapping[str, Any]], column: str, seed: int) -> dict[str, float]:
    clusters: dict[str, list[int]] = {}
    for entry in entries:
        counts = clusters.setdefault(entry["cluster"], [0, 0])
        counts[0] += entry[column]
        counts[1] += 1
    table = np.array(list(clusters.values()), dtype=np.float64)
    hits, total = (int(number) for number in table.sum(axis=0))
    low, high = ratio_interval(table, seed)
    return {"value": hits / total, "low": low, "high": high, "n": total}


def _sample(cases: Iterable[Case], limit: int, seed: int) -> list[Case]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.category, []).append(case)
    found = []
    for category, group in groups.items():
        chosen = sorted(seeded(seed, "bench", category).sample(range(len(group)), min(limit, len(group))))
        found += [group[at] for at in chosen]
    return found
