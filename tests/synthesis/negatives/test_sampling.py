"""Sampling of combinations: exact, without the product, and uniform where it says so."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from synthesis.negatives.sampling import LEVELS, Mask, Space, complexity, drawn_share, from_bins, mask_quotas, share

DEVIATIONS = st.lists(st.lists(st.floats(0, 1), max_size=4), min_size=1, max_size=5)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.4, 0.7])


def everything(space: Space) -> list[tuple[int, ...]]:
    """All combinations that reach the threshold, by brute force, with deviations rounded as the masks round them."""
    found = []
    for choice in itertools.product(*(range(len(options) + 1) for options in space.deviations)):
        mutated = [round(space.deviations[i][c - 1] * LEVELS) for i, c in enumerate(choice) if c]
        if mutated and sum(mutated) >= math.ceil(space.at_least(len(mutated)) * LEVELS - 1e-9):
            found.append(choice)
    return found


@given(DEVIATIONS, THRESHOLDS)
@settings(max_examples=80, deadline=None)
def test_counts_are_exact(deviations: list[list[float]], threshold: float) -> None:
    space = Space(deviations, threshold)
    sizes = Counter(sum(c > 0 for c in choice) for choice in everything(space))
    assert space.counts[1:] == [sizes[k] for k in range(1, len(deviations) + 1)]


@given(DEVIATIONS, THRESHOLDS, st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=120, deadline=None)
def test_sample_fills_the_budget_with_distinct_valid_combinations(
    deviations: list[list[float]], threshold: float, budget: int, seed: int
) -> None:
    space = Space(deviations, threshold)
    population = everything(space)
    drawn = space.sample(budget, random.Random(seed))
    assert len(drawn) == min(budget, len(population))
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(population)
    assert drawn == space.sample(budget, random.Random(seed))


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_unranking_is_a_bijection_in_score_order(deviations: list[list[float]]) -> None:
    mask = Mask(deviations)
    combos = [mask.unrank(rank) for rank in range(mask.size)]
    assert sorted(combos) == sorted(itertools.product(*(range(len(options)) for options in deviations)))
    totals = [sum(mask.levels[i][o] for i, o in enumerate(combo)) for combo in combos]
    assert totals == sorted(totals)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(0, 200))
def test_mask_quotas_sum_to_the_budget_and_forget_no_mask(sizes: list[int], budget: int) -> None:
    budget = max(budget, sum(size > 0 for size in sizes))
    quotas = mask_quotas(budget, sizes)
    assert sum(quotas) == min(budget, sum(sizes))
    assert all(min(1, size) <= quota <= size for quota, size in zip(quotas, sizes, strict=True))


def test_budget_goes_geometrically_over_the_number_of_mutated_sites() -> None:
    space = Space([[0.2, 0.5, 0.9]] * 6)
    counts = Counter(sum(c > 0 for c in d) for seed in range(400) for d in space.sample(4, random.Random(seed)))
    assert set(counts) == {1, 2, 3, 4, 5, 6}, "every number of mutated sites occurs, however small the budget"
    for k in range(1, 6):
        assert counts[k] / counts[k + 1] == pytest.approx(2, rel=0.35)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 60), st.integers(0, 99))
def test_a_drawn_share_is_whole_and_keeps_to_its_caps(caps: list[int], budget: int, seed: int) -> None:
    weights = [0.5**k for k in range(len(caps))]
    quotas = drawn_share(budget, weights, caps, random.Random(seed))
    assert sum(quotas) == min(budget, sum(caps))
    assert all(0 <= quota <= cap for quota, cap in zip(quotas, caps, strict=True))


def test_the_highest_averages_lose_no_remainder() -> None:
    assert share(4, [1, 0.5, 0.25], [9, 9, 9]) == [3, 1, 0]


def test_combinations_below_the_threshold_are_dropped() -> None:
    space = Space([[0.05, 0.9], [0.02, 0.8], [0.01, 0.03]], threshold=0.3)
    for choice in space.sample(100, random.Random(1)):
        mutated = [space.deviations[i][c - 1] for i, c in enumerate(choice) if c]
        assert complexity(len(mutated), 3, sum(mutated)) >= 0.3 - 3 / LEVELS


def test_draws_are_uniform_inside_a_bin() -> None:
    mask = Mask([[i / 7 for i in range(8)], [i / 9 for i in range(10)]])
    counts = Counter(combo for seed in range(4000) for combo in from_bins(mask, 4, 4, random.Random(seed)))
    for b in range(4):
        members = [mask.unrank(rank) for rank in range(20 * b, 20 * b + 20)]
        assert chisquare([counts[member] for member in members]).pvalue > 1e-3
        assert sum(counts[member] for member in members) == 4000


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 9))
def test_bins_give_exactly_the_quota(size: int, quota: int, bins: int, seed: int) -> None:
    drawn = from_bins(Mask([[i / 30 for i in range(size)]]), quota, bins, random.Random(seed))
    assert len(set(drawn)) == len(drawn) == min(quota, size)


def test_one_draw_is_uniform_over_the_whole_mask() -> None:
    mask = Mask([[0.1, 0.5, 0.9], [0.3, 0.3, 0.7, 1.0]])
    counts = Counter(from_bins(mask, 1, 4, random.Random(seed))[0] for seed in range(3600))
    assert len(counts) == 12
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_products_that_nobody_could_write_out_are_counted_and_drawn_from() -> None:
    rng = random.Random(3)
    pools = [[rng.random() for _ in range(8)] for _ in range(12)]
    assert sum(Space(pools).counts) == 9**12 - 1
    assert len(set(Space(pools, 0.1).sample(500, rng))) == 500
    assert len(set(Space([[rng.random() for _ in range(8)] for _ in range(30)]).sample(200, rng))) == 200
