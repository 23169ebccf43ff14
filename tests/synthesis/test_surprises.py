"""A fault of the program itself costs the candidate that meets it, and is said where the run is done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import servers_file

from synthesis import pipeline
from synthesis.authors.offline.author import OfflineAuthor
from synthesis.calls.trial import Trial
from synthesis.errors import UserError
from synthesis.negatives import negate
from synthesis.pipeline import synthesize
from synthesis.surprises import surprise
from synthesis.trajectories import execute


def at_times(method: Any, fails: Callable[[int], bool], error: Exception) -> Any:
    """`method`, which raises `error` at the calls, counted from 1, for which `fails` says so."""
    count = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if fails(count):
            raise error
        return method(*arguments, **options)

    return failing


def test_a_surprise_costs_one_candidate_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    places: list[tuple[Any, str, Callable[[int], bool]]] = [
        (OfflineAuthor, "candidates", lambda n: n == 2),
        (Trial, "_judge", lambda n: n == 9),
        (execute, "execute", lambda n: n == 3),
        (OfflineAuthor, "compose", lambda n: n == 4),
        (negate, "negatives", lambda n: n == 5),
    ]
    for owner, name, fails in places:
        odd = KeyError(f"nobody thought of this in {name}")
        monkeypatch.setattr(owner, name, at_times(getattr(owner, name), fails, odd))
    made = synthesize(servers_file(tmp_path), tmp_path / "run", positives=16, negatives=3, per_tool=6, execute=False)
    assert made.counts["positives"] == 16
    (sentence,) = [line for line in made.advice if "fault of rise-train" in line]
    assert sentence.startswith("5 candidates were left out by a fault of rise-train, please report it; the first: ")
    assert "KeyError" in sentence
    assert "test_surprises.py:" in sentence
    primitives = [json.loads(line) for line in (tmp_path / "run" / "primitives.jsonl").read_text().splitlines()]
    assert sum(primitive["reason"].startswith("surprise: KeyError") for primitive in primitives) == 1


@pytest.mark.parametrize("error", [UserError("mend it"), OSError(28, "No space left on device"), MemoryError()])
def test_what_is_no_candidates_fault_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(OfflineAuthor, "compose", at_times(OfflineAuthor.compose, lambda n: n == 2, error))
    with pytest.raises(type(error)):
        synthesize(servers_file(tmp_path), tmp_path / "run", positives=8, negatives=2, per_tool=3, execute=False)


def test_a_surprise_says_what_and_where() -> None:
    with pytest.raises(KeyError) as caught:
        {}["missing"]
    assert surprise(caught.value).startswith("surprise: KeyError: 'missing' (test_surprises.py:")
