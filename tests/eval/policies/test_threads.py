"""The number of threads by what other processes leave, on scripted clocks."""

from collections.abc import Iterator

import pytest
import torch

from eval.policies import threads
from eval.policies.threads import Threads, fitting, look


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads on two cores, and nobody who says how many there should be."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "cores", lambda: [0, 1])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def seen(monkeypatch: pytest.MonkeyPatch, *looks: tuple[float, float, float]) -> list[int]:
    """The numbers after looks at (seconds, seconds busy, own seconds busy), where the first is the start."""
    clock = iter([at for at, _, _ in looks])
    figures = iter([(busy, own) for _, busy, own in looks])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads, "look", lambda: next(figures))
    chosen, fitted = Threads(), []
    for _ in looks[1:]:
        chosen.fit()
        fitted.append(torch.get_num_threads())
    return fitted


@pytest.mark.usefixtures("two")
def test_a_busy_process_takes_a_thread_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [(0.0, 0.0, 0.0), (2.0, 3.8, 3.8), (4.0, 7.8, 6.4), (6.0, 11.8, 9.0), (8.0, 13.8, 11.0), (10.0, 15.8, 13.0)]
    assert seen(monkeypatch, *looks) == [2, 2, 1, 1, 2]


@pytest.mark.usefixtures("two")
def test_a_moment_of_load_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [(0.0, 0.0, 0.0), (2.0, 3.9, 2.4), (4.0, 7.9, 6.4), (6.0, 11.9, 8.9), (8.0, 15.9, 12.9)]
    assert seen(monkeypatch, *looks) == [2, 2, 2, 2]


@pytest.mark.usefixtures("two")
def test_a_short_while_is_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, (0.0, 0.0, 0.0), (0.9, 1.8, 0.9)) == [2]


@pytest.mark.parametrize("given", ["OMP_NUM_THREADS", "a GPU"])
@pytest.mark.usefixtures("two")
def test_what_was_said_stays(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    if given == "a GPU":
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    else:
        monkeypatch.setenv(given, "2")
    assert seen(monkeypatch, (0.0, 0.0, 0.0), (2.0, 4.0, 1.0)) == [2]


def test_no_fewer_than_one_and_no_more_than_there_were() -> None:
    assert [fitting(4, 4, others) for others in (0.0, 0.4, 0.8, 1.6, 9.0)] == [4, 4, 3, 2, 1]
    assert fitting(2, 64, 8.0) == 2


def test_what_this_process_does_is_seen_as_its_own() -> None:
    busy, own = look()
    sum(i * i for i in range(2_000_000))
    after, own_after = look()
    assert own_after > own
    assert after >= busy
