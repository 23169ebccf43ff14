"""Drawing negatives from a product of mutation pools, beside writing the product out.

    python tests/bench/sampling.py

Twelve critical parameters with eight values each allow more than 10^11 combinations. Plain enumeration makes all,
scores them, sorts them by number of changes and score, and draws as many; it is timed as far as it ends.
"""

import itertools
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from synthesis.negatives.sampling import Space, complexity

BUDGET = 16
VALUES = 8


def deviations(sites: int) -> list[list[float]]:
    """Random deviations of `VALUES` options at each site."""
    rng = random.Random(sites)
    return [[rng.random() for _ in range(VALUES)] for _ in range(sites)]


def sampled(pools: list[list[float]]) -> list[tuple[int, ...]]:
    """The draw as the synthesis makes it."""
    return Space(pools, 0.1).sample(BUDGET, random.Random(0))


def enumerated(pools: list[list[float]], rng: random.Random) -> list[tuple[int, ...]]:
    """As many draws, from lists of all combinations by number of mutated sites, in order of their score."""
    levels: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
    for choice in itertools.product(*(range(len(options) + 1) for options in pools)):
        changed = [pools[site][option - 1] for site, option in enumerate(choice) if option]
        score = complexity(len(changed), len(pools), sum(changed))
        if score >= 0.1:
            levels.setdefault(len(changed), []).append((score, choice))
    drawn: list[tuple[int, ...]] = []
    for mutated, found in sorted(levels.items()):
        found.sort()
        quota = max(1, BUDGET >> mutated)
        drawn += [choice for _, choice in rng.sample(found, min(quota, len(found)))]
    return drawn


def seconds(work: Callable[[], Any]) -> float:
    """Time of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    print("ICPs  combinations  counted and drawn  enumerated     ratio")
    for sites in (3, 4, 5, 6, 8, 12):
        pools = deviations(sites)
        counted = min(seconds(partial(sampled, pools)) for _ in range(3))
        line = f"{sites:>4}  {(VALUES + 1) ** sites:>12.2e}  {1000 * counted:>14.1f} ms"
        if sites <= 6:
            plain = seconds(partial(enumerated, pools, random.Random(0)))
            line += f"  {1000 * plain:>7.1f} ms  {plain / counted:>8.1f}"
        else:
            line += "  does not end       -"
        print(line)


if __name__ == "__main__":
    main()
