"""Working ahead in threads: in order, bounded, and never more than is wanted."""

import threading
import time

import pytest

from synthesis.workers import ahead


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.01 * (item % 3))
        return item * item

    assert list(ahead(work, range(20), workers)) == [(i, i * i) for i in range(20)]


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_is_begun_than_there_is_room_for(workers: int) -> None:
    begun: list[int] = []
    taken: list[int] = []
    for item, _ in ahead(begun.append, range(100), workers, lambda: 7 - len(taken)):
        taken.append(item)
    assert taken == list(range(7))
    assert sorted(begun) == taken


def test_workers_really_work_side_by_side() -> None:
    meeting = threading.Barrier(4, timeout=30)
    assert len([item for item, _ in ahead(lambda item: meeting.wait(), range(8), 4)]) == 8


def test_an_exception_comes_at_its_items_turn_and_stops_the_rest() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    results = ahead(work, range(1000), 2)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) < 20
