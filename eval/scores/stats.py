"""Intervals of rates and of paired differences, exact tests, and the correction for many of them.

Requests that share a trajectory stand or fall together, and so do the calls and critical parameters of each: they are
one cluster. Whole clusters are resampled (a cluster bootstrap) and swapped, never single tasks or calls; what counts
tasks counts as many as the clusters are worth (`effective`).

Where an arm was trained with several seeds, they are resampled too: an interval then says what another seed and other
tasks could have given. A few seeds show only a part of their own spread (two thirds of the variance, for three), so
such intervals are still narrow.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from synthesis.seeds import seeded

CONFIDENCE = 0.95
RESAMPLES = 2_000
POWER = 0.8
"""How often a difference of the size that is called detectable is found."""
DISAGREE = 0.1
"""Share of tasks that two models disagree about, where nothing is known of it."""
TINY = 1e-12
"""Spread below which an interval of resampled values counts as one of no width."""

Array = NDArray[np.float64]


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion; (0, 1) when there is nothing to go by.

    `n` may be an effective size, so neither number need be whole.
    """
    if n <= 0:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    centre, scale = rate + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return min(rate, max(0.0, (centre - half) / scale)), max(rate, min(1.0, (centre + half) / scale))


def effective(values: Array, clusters: NDArray[np.int64], confidence: float = CONFIDENCE) -> float:
    """How many independent tasks `values` [tasks] are worth, given the cluster of each (Korn and Graubard, 1998).

    Their number over the design effect, which is the variance of the mean with whole clusters as units over that with
    single tasks, and never taken to be below 1; with a correction for few clusters. Where all values are the same the
    design effect cannot be seen, and each cluster counts once.
    """
    n, count = len(values), len(np.unique(clusters))
    if count < 2:
        return float(count)
    mean, single = float(values.mean()), float(values.var()) / n
    if single < TINY:
        return float(count)
    sums = np.zeros(clusters.max() + 1)
    np.add.at(sums, clusters, values - mean)
    whole = count / (count - 1) * float((sums**2).sum()) / n**2
    from scipy.stats import t

    few = NormalDist().inv_cdf((1 + confidence) / 2) / float(t.ppf((1 + confidence) / 2, count - 1))
    return float(n / max(1.0, whole / single) * (few**2 if count < n else 1.0))


def resample(runs: Array, resamples: int, seed: int) -> Array:
    """Cluster bootstrap: sums of the columns of `runs` over clusters and, where there are several, seeds, both drawn
    with replacement.

    Args:
        runs: [seeds, clusters, columns], or [clusters, columns] of one seed.

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
    """Interval of a rate, the sum of column 0 over that of column 1 of `counts` [clusters, 2] or [seeds, clusters, 2].

    Percentile interval of the cluster bootstrap; Wilson's, each cluster counted once, where resampling shows no spread
    (a rate of 0 or 1, or one cluster), since an interval of no width would claim a certainty that no sample can give.
    """
    hits, total = counts.reshape(-1, 2).sum(axis=0)
    if total == 0:
        return 0.0, 1.0
    rates = ratios(resample(counts, RESAMPLES, seed))
    low, high = percentiles(rates, confidence)
    if high - low < TINY:
        clusters = counts.shape[-2]
        return wilson(hits / total * clusters, clusters, confidence)
    return min(low, hits / total), max(high, hits / total)


def sign_flip(differences: Sequence[int]) -> float:
    """Exact two-sided p-value of paired differences, one a cluster, if each might as well have had the other sign.

    The whole distribution of their sum, not a sample of it. With differences of one it is McNemar's exact test.
    """
    chances = np.ones(1)
    for size in (abs(difference) for difference in differences if difference):
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(differences))].sum()))


def paired_interval(only_a: float, only_b: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the difference of two paired proportions (Bonett and Price, 2012).

    An adjusted Wald interval, one success added to each discordant cell: unlike a bootstrap it keeps a width when the
    arms never disagree. `n` may be an effective size; the two cells are then shares of it.
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def detectable(half_width: float, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The difference that is found in `power` of all experiments whose interval is so wide to each side."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return half_width * (z + NormalDist().inv_cdf(power)) / z


def detectable_at(n: float, disagree: float = DISAGREE, confidence: float = CONFIDENCE) -> float:
    """The difference that two models must have to be told apart on `n` independent tasks.

    It depends on how many of the tasks they disagree about, which one model alone cannot say: one in ten, if nothing is
    known. (Connor's approximation for paired proportions, 1987, without its small term.)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return min(1.0, detectable(z * math.sqrt(disagree / n), confidence)) if n > 0 else 1.0


def at_least_once(right: int, trials: int, k: int) -> float:
    """pass@k: the chance that one of `k` trials is right, from `right` of `trials` (Chen et al. 2021, unbiased)."""
    return 1.0 - math.comb(trials - right, k) / math.comb(trials, k)


def every_time(right: int, trials: int, k: int) -> float:
    """pass^k: the chance that all of `k` trials are right, from `right` of `trials` (tau-bench, 2024, unbiased)."""
    return math.comb(right, k) / math.comb(trials, k)


def mean_interval(values: Array, clusters: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Interval of the mean of `values` [tasks] between 0 and 1, whole clusters resampled."""
    counts = np.zeros((int(clusters.max()) + 1, 2))
    np.add.at(counts, clusters, np.stack([values, np.ones(len(values))], axis=1))
    return ratio_interval(counts, seed)


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
