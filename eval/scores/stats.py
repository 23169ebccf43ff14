"""Intervals of rates and of paired differences, exact tests, and the correction for many of them.

Calls and critical parameters of one task stand or fall together, so whole tasks are resampled (a cluster bootstrap),
never single calls. Where an arm was trained with several seeds, they are resampled too: an interval then says what
another seed and other tasks could have given. A few seeds show only a part of their own spread (two thirds of the
variance, for three), so such intervals are still narrow.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from synthesis.seeds import seeded

CONFIDENCE = 0.95
RESAMPLES = 2_000
TINY = 1e-12
"""Spread below which an interval of resampled values counts as one of no width."""

Array = NDArray[np.float64]


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion; (0, 1) when there is nothing to go by."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def resample(runs: Array, resamples: int, seed: int) -> Array:
    """Cluster bootstrap: sums of the columns of `runs` over tasks and, where there are several, seeds, both drawn with
    replacement.

    Args:
        runs: [seeds, tasks, columns], or [tasks, columns] of one seed.

    Returns:
        [resamples, columns]. All columns share the draws, so columns of two arms stay paired.
    """
    runs = runs if runs.ndim == 3 else runs[None]
    seeds, tasks, columns = runs.shape
    rng = np.random.default_rng(seeded(seed, "bootstrap", tasks).getrandbits(64))
    chunks = [min(500, resamples - start) for start in range(0, resamples, 500)]
    wide = runs.swapaxes(0, 1).reshape(tasks, seeds * columns)
    sums = np.concatenate([rng.multinomial(tasks, np.full(tasks, 1 / tasks), size) @ wide for size in chunks])
    if seeds == 1:
        return sums
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    weighed: Array = np.einsum("rs,rsc->rc", drawn, sums.reshape(resamples, seeds, columns))
    return weighed


def ratio_interval(counts: Array, seed: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a rate, the sum of column 0 over the sum of column 1 of `counts` [tasks, 2] or [seeds, tasks, 2].

    Percentile interval of the cluster bootstrap; Wilson's where resampling shows no spread (a rate of 0 or 1, or one
    task), since an interval of no width would claim a certainty that no sample can give.
    """
    hits, total = counts.reshape(-1, 2).sum(axis=0)
    if total == 0:
        return 0.0, 1.0
    rates = ratios(resample(counts, RESAMPLES, seed))
    low, high = percentiles(rates, confidence)
    if high - low < TINY:
        return wilson(round(hits), round(total), confidence)
    return min(low, hits / total), max(high, hits / total)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: p-value for tasks that only one of two arms gets right."""
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_interval(only_a: int, only_b: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the difference of two paired proportions (Bonett and Price, 2012).

    An adjusted Wald interval, one success added to each discordant cell: unlike a bootstrap it keeps a width when the
    arms never disagree.
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of even one false alarm among all tests stays below alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def ratios(sums: Array) -> Array:
    """Column 0 over column 1 of `sums` [rows, 2]; 0 where there is nothing to divide by."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


def percentiles(values: Array, confidence: float) -> tuple[float, float]:
    """The bounds between which the middle `confidence` of the values lies."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
