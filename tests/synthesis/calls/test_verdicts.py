"""The verdict rules on recorded answers of real servers; `tests/bench/verdicts.py` made them and prints more."""

import runpy
from pathlib import Path

import pytest
import yaml

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "verdicts.py"))
GROUPS = yaml.safe_load((Path(__file__).parents[1] / "verdict_calls.yaml").read_text(encoding="utf-8"))


def test_the_recording_is_large_and_mixed_enough() -> None:
    rows = [row for group in GROUPS for row in group["calls"]]
    assert len(rows) >= 100
    assert 0.4 <= sum(row["fails"] for row in rows) / len(rows) <= 0.7
    assert sum(group["held_out"] for group in GROUPS) >= 2
    assert sum(not row["is_error"] for row in rows if row["fails"]) >= 25, "polite failures are what is hard"


def test_failures_that_the_answer_shows_are_found_on_servers_held_out() -> None:
    recall, precision, failed, _ = BENCH["score"]([group for group in GROUPS if group["held_out"]], silent=False)
    assert failed >= 50
    assert recall >= 0.95
    assert precision >= 0.98


@pytest.mark.parametrize("held_out", [False, True])
def test_silent_failures_included_most_are_still_found(held_out: bool) -> None:
    recall, precision, *_ = BENCH["score"]([group for group in GROUPS if group["held_out"] == held_out], silent=True)
    assert recall >= 0.85
    assert precision >= 0.94
