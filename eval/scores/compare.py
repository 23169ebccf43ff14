"""Arms against arms: a test on every metric, in pairs, since all arms answer the same tasks."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.scores.metrics import METRICS, table
from eval.scores.stats import (
    CONFIDENCE,
    RESAMPLES,
    TINY,
    Array,
    detectable,
    effective,
    holm,
    paired_interval,
    percentiles,
    ratios,
    resample,
    sign_flip,
)
from synthesis.errors import UserError
from synthesis.seeds import seeded

FLIPS = 10_000
"""More than for intervals: the smallest p that they can give is 1/(FLIPS+1), and Holm multiplies it."""


def compare(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
    alpha: float = 1 - CONFIDENCE,
) -> list[dict[str, Any]]:
    """Test arm against arm on every metric, paired by task, with Holm's correction over all that is tested.

    Args:
        results: for each arm its results of `rollouts.decisions.evaluate`, one a seed; an untrained arm may have one.
        pairs: which (a, b) to test; every two arms by default, the later named one as `a`.

    Returns:
        One entry a test: metric, a, b, difference (a minus b), low, high, p, p_holm, verdict on `a` ("better", "worse"
        or "no difference"), n, detectable (the difference that 80 % of such experiments find). Task-level metrics of
        one seed get McNemar's exact test; rates of calls and parameters, and whatever is pooled over seeds, a
        randomisation test that swaps the arms' answers by whole tasks, with a paired cluster bootstrap for the
        interval. (A bootstrap's own p is too small where few tasks differ: 8 to 0 gives 0.0004 in place of 0.008.) With
        several seeds that p speaks of these very trainings, so a verdict asks for an interval without 0 as well.

    Raises:
        UserError: the arms were evaluated on different tasks, or with different numbers of seeds.
    """
    tables = {arm: table([task for result in runs for task in result["tasks"]]) for arm, runs in results.items()}
    _same_tasks({arm: t.ids for arm, t in tables.items()})
    chosen = [(b, a) for a, b in combinations(results, 2)] if pairs is None else list(pairs)
    tests = []
    for a, b in chosen:
        groups = tables[a].clusters
        both = _aligned(tables[a].clustered, tables[b].clustered)
        once = both.shape[0] == 1
        left, right = np.split(both.mean(axis=0), 2, axis=1)
        drawn = np.split(resample(both, RESAMPLES, seed), 2, axis=1)
        swapped = _swapped(left, right, seed)
        for metric in METRICS:
            columns = tables[a].columns(metric)
            observed = _Pair(left[:, columns], right[:, columns])
            if once and metric.per_task:
                singly = _Pair(*(tables[arm].runs[0][:, columns] for arm in (a, b)))
                outcome = _exact_test(singly, observed, groups)
            else:
                sums = [_Pair(x[:, columns], y[:, columns]) for x, y in (drawn, swapped)]
                outcome = _randomisation_test(observed, *sums)
            n = round(min(tables[arm].counts[:, columns[1]].sum() for arm in (a, b)))
            excludes = once or outcome["low"] > 0 or outcome["high"] < 0
            seen = detectable((outcome["high"] - outcome["low"]) / 2)
            tests.append(
                {"metric": metric.name, "a": a, "b": b, **outcome, "n": n, "detectable": seen, "certain": excludes}
            )
    for test, corrected in zip(tests, holm([t["p"] for t in tests]), strict=True):
        sign = "better" if test["difference"] > 0 else "worse"
        certain = test.pop("certain") and corrected < alpha
        test |= {"p_holm": corrected, "verdict": sign if certain else "no difference"}
    return tests


def _aligned(a: Array, b: Array) -> Array:
    """Runs of two arms side by side, [seeds, clusters, 2 * columns], seed by seed; a single run stands beside all."""
    seeds = max(len(a), len(b))
    if {len(a), len(b)} - {1, seeds}:
        raise UserError(f"two arms have {len(a)} and {len(b)} seeds; expected as many, or one for an untrained arm")
    return np.concatenate([np.broadcast_to(runs, (seeds, *runs.shape[1:])) for runs in (a, b)], axis=2)


class _Pair(NamedTuple):
    """Hits and totals, [rows, 2], of two arms: rows are tasks, clusters, or sums over resampled clusters."""

    a: Array
    b: Array

    def differences(self) -> Array:
        """Rate of a minus rate of b, row by row."""
        return ratios(self.a) - ratios(self.b)


def _swapped(a: Array, b: Array, seed: int) -> tuple[Array, Array]:
    """Sums [FLIPS, columns] over clusters, with the two arms' answers swapped in a random half of them."""
    rng = np.random.default_rng(seeded(seed, "swap", len(a)).getrandbits(64))
    chunks = range(0, FLIPS, 500)
    moved = np.concatenate([rng.integers(0, 2, (500, len(a))).astype(np.float64) @ (b - a) for _ in chunks])
    return a.sum(axis=0) + moved, b.sum(axis=0) - moved


def _exact_test(tasks: _Pair, clusters: _Pair, groups: NDArray[np.int64]) -> dict[str, float]:
    right, n = tasks.a[:, 0] - tasks.b[:, 0], len(tasks.a)
    only_a, only_b = int((right > 0).sum()), int((right < 0).sum())
    size = effective(right, groups)
    low, high = paired_interval(only_a * size / n, only_b * size / n, size)
    p = sign_flip([round(x) for x in clusters.a[:, 0] - clusters.b[:, 0]])
    return {"difference": (only_a - only_b) / n, "low": low, "high": high, "p": p}


def _randomisation_test(clusters: _Pair, drawn: _Pair, swapped: _Pair) -> dict[str, float]:
    difference, n = float(_Pair(*(arm.sum(axis=0)[None] for arm in clusters)).differences()[0]), len(clusters.a)
    low, high = percentiles(drawn.differences(), CONFIDENCE)
    if high - low < TINY:
        low, high = paired_interval(round(max(difference, 0) * n), round(max(-difference, 0) * n), n)
    extreme = int((np.abs(swapped.differences()) >= abs(difference) - TINY).sum())
    p = (extreme + 1) / (len(swapped.a) + 1)
    return {"difference": difference, "low": min(low, difference), "high": max(high, difference), "p": p}


def _same_tasks(arms: Mapping[str, list[str]]) -> None:
    first, *others = arms
    for arm in others:
        if arms[arm] != arms[first]:
            raise UserError(
                f"arm {arm!r} and arm {first!r} were evaluated on different tasks ({len(arms[arm])} and "
                f"{len(arms[first])} ids); evaluate both again on the same split and limit"
            )
