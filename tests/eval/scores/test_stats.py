"""Intervals and exact tests against known values and simulation."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest

from eval.scores.stats import (
    at_least_once,
    detectable_at,
    effective,
    every_time,
    holm,
    paired_interval,
    ratio_interval,
    resample,
    sign_flip,
    wilson,
)

NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
"""Newcombe 1998, table I."""


@pytest.mark.parametrize(("hits", "n", "low", "high"), NEWCOMBE)
def test_wilson_is_as_published(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_sign_flips_of_single_tasks_are_mcnemars_exact_test() -> None:
    assert sign_flip([]) == sign_flip([0, 0]) == 1.0
    assert sign_flip([1] * 5) == pytest.approx(2 / 2**5)
    assert sign_flip([1] + [-1] * 7) == pytest.approx(2 * (1 + 8) / 2**8)
    for a, b in ((3, 9), (20, 4), (6, 6), (400, 350)):
        assert sign_flip([1] * a + [-1] * b) == pytest.approx(binomtest(a, a + b, 0.5).pvalue)


def test_sign_flips_of_clusters_by_hand() -> None:
    assert sign_flip([2, 2]) == pytest.approx(0.5), "of ++, +-, -+, -- two are as extreme"
    assert sign_flip([3, -1]) == pytest.approx(1.0)
    assert sign_flip([2] * 4) == sign_flip([1] * 4) == pytest.approx(2 / 2**4), "four clusters, however large"


def clustered_draws(rng: np.random.Generator, clusters: int, each: int, rate: float) -> np.ndarray:
    """Zeros and ones [clusters, each] whose correlation within a cluster is 0.5: half of them are the cluster's own."""
    own = rng.random((clusters, 1)) < rate
    return np.where(rng.random((clusters, each)) < 0.5**0.5, own, rng.random((clusters, each)) < rate).astype(float)


@pytest.mark.parametrize(("clusters", "each", "rate"), [(160, 2, 0.4), (30, 5, 0.8), (12, 4, 0.5)])
def test_an_interval_covers_the_truth_where_tasks_share_a_trajectory(clusters: int, each: int, rate: float) -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(clusters), each)
    inside, naive = [], []
    for _ in range(800):
        values = clustered_draws(rng, clusters, each, rate).ravel()
        size = effective(values, groups)
        for found, n in ((inside, size), (naive, len(values))):
            low, high = wilson(values.mean() * n, n)
            found.append(low <= rate <= high)
    assert 0.93 <= np.mean(inside) <= 0.99
    assert np.mean(naive) < 0.92


def test_independent_tasks_are_worth_their_number_and_copies_are_worth_one() -> None:
    values = np.tile([1.0, 0.0, 0.0], 40)
    assert effective(values, np.arange(120)) == pytest.approx(120, rel=0.02)
    assert effective(np.repeat(values, 3), np.repeat(np.arange(120), 3)) == pytest.approx(120, rel=0.03)
    assert effective(np.ones(60), np.repeat(np.arange(20), 3)) == 20
    assert effective(np.ones(3), np.zeros(3, dtype=np.int64)) == 1


def test_swapping_clusters_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    whole, singly = [], []
    for _ in range(800):
        a, b = (clustered_draws(rng, 60, 3, 0.5) for _ in range(2))
        whole.append(sign_flip([round(x) for x in (a - b).sum(axis=1)]) < 0.05)
        singly.append(sign_flip([round(x) for x in (a - b).ravel()]) < 0.05)
    assert np.mean(whole) <= 0.06
    assert np.mean(singly) > 0.08


def test_holm_known_values_in_the_given_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(..., "holm")
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_interval_covers_the_truth_and_keeps_a_width() -> None:
    low, high = paired_interval(0, 0, 50)
    assert low < 0 < high
    rng = np.random.default_rng(0)
    cells = rng.multinomial(80, [0.12, 0.05, 0.83], size=1500)
    hits = [(lambda i: i[0] <= 0.07 <= i[1])(paired_interval(int(a), int(b), 80)) for a, b, _ in cells]
    assert 0.93 <= np.mean(hits) <= 0.98


def test_the_bootstrap_of_one_call_a_task_agrees_with_wilson() -> None:
    hits = np.repeat([1.0, 0.0], [120, 80])
    counts = np.stack([hits, np.ones(200)], axis=1)
    assert ratio_interval(counts, seed=0) == pytest.approx(wilson(120, 200), abs=0.01)


def test_calls_that_fall_together_widen_the_interval() -> None:
    hits = np.repeat([1.0, 0.0], [60, 40])
    single = np.stack([hits, np.ones(100)], axis=1)
    low, high = ratio_interval(single * 5, seed=0)
    assert high - low > 0.9 * (wilson(60, 100)[1] - wilson(60, 100)[0])
    assert high - low > 1.8 * (wilson(300, 500)[1] - wilson(300, 500)[0])


@pytest.mark.parametrize("rate", [0, 1])
def test_a_rate_without_spread_gets_wilsons_interval(rate: int) -> None:
    counts = np.stack([np.full(30, 2.0 * rate), np.full(30, 2.0)], axis=1)
    assert ratio_interval(counts, seed=0) == pytest.approx(wilson(30 * rate, 30)), "as many as there are clusters"


def test_resampling_is_seeded_and_unbiased() -> None:
    counts = np.arange(40, dtype=float).reshape(20, 2)
    again = resample(counts, 1200, seed=3)
    assert np.array_equal(again, resample(counts, 1200, seed=3))
    assert not np.array_equal(again, resample(counts, 1200, seed=4))
    assert again.shape == (1200, 2)
    assert again.mean(axis=0) == pytest.approx(counts.sum(axis=0), rel=0.02)


def test_pass_rates_are_those_of_all_draws_of_k_trials() -> None:
    for trials in range(1, 6):
        for right in range(trials + 1):
            outcomes = [True] * right + [False] * (trials - right)
            for k in range(1, trials + 1):
                draws = list(combinations(outcomes, k))
                assert every_time(right, trials, k) == pytest.approx(np.mean([all(draw) for draw in draws]))
                assert at_least_once(right, trials, k) == pytest.approx(np.mean([any(draw) for draw in draws]))


def test_a_detectable_difference_is_found_in_four_of_five_experiments() -> None:
    rng, n, disagree = np.random.default_rng(0), 400, 0.1
    difference = detectable_at(n, disagree)
    assert difference == pytest.approx(0.0443, abs=0.0005)
    assert detectable_at(200) == pytest.approx(0.0626, abs=0.0005)
    only_a, only_b = (disagree + difference) / 2, (disagree - difference) / 2
    drawn = rng.multinomial(n, [only_a, only_b, 1 - disagree], size=2000)
    found = [paired_interval(a, b, n)[0] > 0 for a, b, _ in drawn]
    assert 0.72 < np.mean(found) < 0.85
    assert detectable_at(0) == 1.0
