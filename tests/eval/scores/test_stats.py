"""Intervals and exact tests against known values and simulation."""

import numpy as np
import pytest

from eval.scores.stats import holm, mcnemar, paired_interval, ratio_interval, resample, wilson

NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
"""Newcombe 1998, table I."""


@pytest.mark.parametrize(("hits", "n", "low", "high"), NEWCOMBE)
def test_wilson_is_as_published(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_exact_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(7, 1) == mcnemar(1, 7)
    assert mcnemar(6, 6) == 1.0


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
    assert ratio_interval(counts, seed=0) == wilson(60 * rate, 60)


def test_resampling_is_seeded_and_unbiased() -> None:
    counts = np.arange(40, dtype=float).reshape(20, 2)
    again = resample(counts, 1200, seed=3)
    assert np.array_equal(again, resample(counts, 1200, seed=3))
    assert not np.array_equal(again, resample(counts, 1200, seed=4))
    assert again.shape == (1200, 2)
    assert again.mean(axis=0) == pytest.approx(counts.sum(axis=0), rel=0.02)
