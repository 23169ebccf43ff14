"""Sampling few combinations out of a product of mutation pools, without ever building the product (RISE, 3.3.2).

A combination keeps or mutates each of `n` sites; which sites it mutates is its mask. RISE groups combinations by mask
(Eq. 3: quotas), sorts each group by complexity score, and samples from bins of equal count (Eq. 4). The formulas of
both equations are lost in every readable copy of the paper; what stands here is our reading of its prose, with one
change: the budget goes over the *number* of mutated sites first, in geometric shares, since quotas by group size alone
put a small budget entirely on combinations that change nearly everything.

Counting is exact: the scores of a mask's combinations are a convolution of per-site histograms, so the r-th combination
in score order is found by walking that convolution back. 10^11 combinations cost as much as 10.
"""

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
ENUMERABLE = 5000
Choice = tuple[int, ...]
"""One entry a site: 0 keeps the gold value, `j` takes the site's option `j - 1`."""


def complexity(mutated: int, sites: int, deviation: float, weight: float = 0.5) -> float:
    """Complexity score in [0, 1] (RISE, 3.3.2): `weight` * mutation ratio + the rest * mean deviation of what changed.

    `deviation` is the sum over the mutated sites of their deviations in [0, 1]. The paper weighs the same two parts;
    its weights are not known, equal shares are our choice.
    """
    return weight * mutated / sites + (1 - weight) * deviation / mutated if mutated else 0.0


class Mask:
    """The combinations that mutate exactly `sites`, ranked by their total deviation (rounded to `LEVELS` steps a site).

    `deviations[i][j]` is the deviation in [0, 1] of option `j` of the mask's `i`-th site.
    """

    def __init__(self, deviations: Sequence[Sequence[float]], at_least: float = 0.0) -> None:
        self.levels = [[round(d * LEVELS) for d in options] for options in deviations]
        self.floor = max(0, math.ceil(at_least * LEVELS - 1e-9))

    @cached_property
    def _tables(self) -> list[NDArray[Any]]:
        """`_tables[i][v]`: how many ways the first `i` sites come to a total of `v` levels."""
        size = LEVELS * len(self.levels) + 1
        exact: type = np.int64 if math.prod(map(len, self.levels)) < 2**62 else object
        table: NDArray[Any] = np.zeros(size, dtype=exact)
        table[0] = 1
        tables = [table]
        for options in self.levels:
            following: NDArray[Any] = np.zeros(size, dtype=exact)
            for level in options:
                following[level:] += tables[-1][: size - level]
            tables.append(following)
        return tables

    @cached_property
    def _cumulated(self) -> NDArray[Any]:
        return np.cumsum(self._tables[-1][self.floor :])

    @cached_property
    def size(self) -> int:
        """The exact number of combinations at or above the floor."""
        return int(self._cumulated[-1]) if self.floor else math.prod(map(len, self.levels))

    def unrank(self, rank: int) -> Choice:
        """Return the options (from 0) of the `rank`-th combination by total deviation, 0 <= rank < size."""
        level = int(np.searchsorted(self._cumulated, rank, side="right"))
        rank -= int(self._cumulated[level - 1]) if level else 0
        total = level + self.floor
        chosen: list[int] = []
        for site in range(len(self.levels) - 1, -1, -1):
            for option, cost in enumerate(self.levels[site]):
                count = int(self._tables[site][total - cost]) if total >= cost else 0
                if rank < count:
                    chosen.append(option)
                    total -= cost
                    break
                rank -= count
        return tuple(reversed(chosen))


def share(budget: int, weights: Sequence[float], caps: Sequence[int]) -> list[int]:
    """Split `budget` in proportion to `weights`, none above its cap; the sum is min(budget, sum of caps).

    By highest averages (D'Hondt), so that no remainder is lost; equal averages go to the first.
    """
    quotas = [0] * len(weights)
    queue = [(-weight, i) for i, weight in enumerate(weights) if caps[i] > 0]
    heapq.heapify(queue)
    for _ in range(min(budget, sum(caps))):
        _, best = heapq.heappop(queue)
        quotas[best] += 1
        if quotas[best] < caps[best]:
            heapq.heappush(queue, (-weights[best] / (quotas[best] + 1), best))
    return quotas


def drawn_share(budget: int, weights: Sequence[float], caps: Sequence[int], rng: random.Random) -> list[int]:
    """Split `budget` in proportion to `weights`, none above its cap; the sum is min(budget, sum of caps).

    What is left of the proportional parts after rounding down is drawn, each in proportion to its remainder
    (systematic sampling), so that over many turns a small budget reaches every part as often as its weight says.
    """
    quotas = [0] * len(weights)
    while (left := min(budget, sum(caps)) - sum(quotas)) > 0:
        open_weights = [w if q < cap else 0.0 for w, q, cap in zip(weights, quotas, caps, strict=True)]
        scale = left / sum(open_weights)
        point, upper = rng.random(), 0.0
        for i, weight in enumerate(open_weights):
            upper += weight * scale
            taken = max(0, math.ceil(upper - point))
            point += taken
            quotas[i] = min(caps[i], quotas[i] + taken)
    return quotas


def mask_quotas(budget: int, sizes: Sequence[int]) -> list[int]:
    """Eq. 3, our reading: one for every non-empty mask, the rest in proportion to size, each at most its size.

    `budget` has to reach the number of non-empty masks.
    """
    firsts = [min(1, size) for size in sizes]
    rest = share(
        budget - sum(firsts), [float(size) for size in sizes], [s - f for s, f in zip(sizes, firsts, strict=True)]
    )
    return [first + more for first, more in zip(firsts, rest, strict=True)]


def distinct_ranks(rng: random.Random, low: int, high: int, count: int) -> list[int]:
    """Draw `count` distinct integers of [low, high), uniformly; the range may exceed a machine word."""
    if high - low < 2**31:
        return rng.sample(range(low, high), count)
    found: dict[int, None] = {}
    while len(found) < count:
        found[rng.randrange(low, high)] = None
    return list(found)


def bin_edges(size: int, bins: int) -> list[int]:
    """Cut ranks 0..size into `bins` runs whose lengths differ by at most one (bins of equal count, Eq. 4)."""
    return [size * b // bins for b in range(bins + 1)]


def from_bins(mask: Mask, quota: int, bins: int, rng: random.Random) -> list[Choice]:
    """Eq. 4: spread `quota` evenly over bins of equal count, then draw uniformly without replacement inside each."""
    used = min(bins, quota, mask.size)
    edges = bin_edges(mask.size, used)
    rooms = [edges[b + 1] - edges[b] for b in range(used)]
    counts = [0] * used
    while (left := min(quota, mask.size) - sum(counts)) > 0:
        spare = [b for b in range(used) if counts[b] < rooms[b]]
        for b in spare if left >= len(spare) else rng.sample(spare, left):
            counts[b] += 1
    ranks = [r for b in range(used) for r in distinct_ranks(rng, edges[b], edges[b + 1], counts[b])]
    return [mask.unrank(rank) for rank in ranks]


class Space:
    """All combinations over the sites, of complexity at least `threshold`.

    `deviations[i][j]` in [0, 1] is the deviation of option `j` at site `i`; `sites` is the number that the mutation
    ratio refers to (by default, all given sites).
    """

    def __init__(self, deviations: Sequence[Sequence[float]], threshold: float = 0.0, sites: int = 0) -> None:
        self.deviations = [list(options) for options in deviations]
        self.threshold = threshold
        self.sites = sites or len(self.deviations)

    def at_least(self, mutated: int) -> float:
        """Return the total deviation that `mutated` sites need to reach the threshold (inverse of `complexity`)."""
        return max(0.0, (self.threshold - 0.5 * mutated / self.sites) * 2 * mutated)

    def mask(self, sites: Sequence[int]) -> Mask:
        """Return the ranked combinations that mutate exactly `sites`."""
        return Mask([self.deviations[i] for i in sites], self.at_least(len(sites)))

    @cached_property
    def counts(self) -> list[int]:
        """Exact number of combinations by number of mutated sites, index 0 for none (which counts 0)."""
        totals = [1] + [0] * len(self.deviations)
        for options in self.deviations:
            totals = [t + (totals[k - 1] * len(options) if k else 0) for k, t in enumerate(totals)]
        return [0, *(self._count(k) if self.at_least(k) else totals[k] for k in range(1, len(totals)))]

    def _count(self, mutated: int) -> int:
        """Count the combinations of `mutated` sites that reach the threshold, by one histogram per number of sites."""
        floor = max(0, math.ceil(self.at_least(mutated) * LEVELS - 1e-9))
        size = LEVELS * mutated + 1
        table = np.zeros((mutated + 1, size), dtype=object)
        table[0, 0] = 1
        for options in self.deviations:
            before = table[:-1].copy()
            for deviation in options:
                level = round(deviation * LEVELS)
                table[1:, level:] += before[:, : size - level]
        return int(table[mutated, floor:].sum())

    def sample(self, budget: int, rng: random.Random, bins: int = 4, decay: float = 0.5) -> list[Choice]:
        """Draw min(budget, all) distinct combinations.

        The budget is split over the number of mutated sites by geometric shares (`decay` to the power of one less than
        that number; by chance where they are no whole numbers, so that every number occurs), each number's part over
        its masks, each mask's part over score bins. No randomness but `rng`'s.
        """
        levels = range(1, len(self.deviations) + 1)
        caps = [min(budget, self.counts[k]) for k in levels]
        chosen: list[Choice] = []
        quotas = drawn_share(budget, [decay ** (k - 1) for k in levels], caps, rng)
        for mutated, quota in zip(levels, quotas, strict=True):
            chosen += self._of_size(mutated, quota, bins, rng) if quota else []
        return chosen

    def _of_size(self, mutated: int, quota: int, bins: int, rng: random.Random) -> list[Choice]:
        drawn: list[Choice] = []
        for sites, count in self._masks(mutated, quota, rng):
            for options in from_bins(self.mask(sites), count, bins, rng):
                choice = [0] * len(self.deviations)
                for site, option in zip(sites, options, strict=True):
                    choice[site] = option + 1
                drawn.append(tuple(choice))
        return drawn

    def _masks(self, mutated: int, quota: int, rng: random.Random) -> list[tuple[tuple[int, ...], int]]:
        """Choose masks of `mutated` sites and their quotas: all masks if the quota reaches, else as many, at random."""
        usable = [i for i, options in enumerate(self.deviations) if options]
        sizes: dict[tuple[int, ...], int] = {}
        for sites in _shuffled_masks(usable, mutated, quota, rng):
            if size := self.mask(sites).size:
                sizes[sites] = size
            if len(sizes) == quota and len(sizes) < math.comb(len(usable), mutated):
                return [(chosen, 1) for chosen in sizes]
        quotas = mask_quotas(quota, list(sizes.values()))
        return [(sites, count) for sites, count in zip(sizes, quotas, strict=True) if count]


def _shuffled_masks(usable: Sequence[int], mutated: int, quota: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield all masks in random order; where they are too many to list, first some drawn at random."""
    seen: set[tuple[int, ...]] = set()
    if math.comb(len(usable), mutated) > max(ENUMERABLE, 4 * quota):
        for _ in range(8 * quota + 64):
            sites = tuple(sorted(rng.sample(usable, mutated)))
            if sites not in seen:
                seen.add(sites)
                yield sites
    rest = [sites for sites in combinations(usable, mutated) if sites not in seen]
    rng.shuffle(rest)
    yield from rest
