"""What is shown of slow work: how far it is, at what pace, and how long it will take."""

import re
from pathlib import Path

import pytest

from synthesis import progress
from synthesis.llm.costs import Costs


def test_a_line_in_a_log_says_replies_pace_and_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    costs = Costs(tmp_path / "costs.jsonl")
    with progress.stage("samples", costs.pace) as shown:
        shown(0, 40, "single")
        costs.told = lambda: shown(10, 40, "single")
        costs.add("samples", 900, 120)
        shown(0, 60, "none yet")
    costs.close()
    before, after, *_, end = capsys.readouterr().err.splitlines()
    assert before == "samples: 0/40 (0 s)"
    assert re.fullmatch(r"samples: 10/40 \(0 s, 1 replies, \d+\.\d tokens/s, about 0 s left\)", after)
    assert re.fullmatch(r"samples: 0/60 \(0 s, 1 replies, \d+\.\d tokens/s\)", end)


def test_work_without_a_model_says_its_seconds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.stage("samples") as shown:
        shown(3, 40, "single")
    assert capsys.readouterr().err == "samples: 3/40 (0 s)\n"
