"""Sharing work: between several sets of running servers, and between threads that wait for an author."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

WorkerT = TypeVar("WorkerT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def spread(
    items: Iterable[ItemT], workers: Sequence[WorkerT], work: Callable[[WorkerT, ItemT], Awaitable[None]]
) -> None:
    """Run `work(worker, item)` for every item, each worker on one item at a time, in the order of the items.

    The first exception stops the other workers at their next pause and is raised.
    """
    left = iter(items)

    async def drain(worker: WorkerT) -> None:
        for item in left:
            await work(worker, item)

    tasks = [asyncio.create_task(drain(worker)) for worker in workers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ahead(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int, room: Callable[[], int] | None = None
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yield each item with `work(item)`, in the order of the items, while up to `workers` threads work ahead.

    `room()` says how many more items the caller can take for certain; no more than that are begun, so that nothing is
    worked out in vain. With one worker all happens in the caller's thread, one item at a time. An exception of `work`
    comes out at its item's turn; what has not begun by then never does.
    """
    left = iter(items)
    if workers == 1:
        while (room is None or room() > 0) and (got := list(islice(left, 1))):
            yield got[0], work(got[0])
        return
    begun: deque[tuple[ItemT, Future[ResultT]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            wanted = 2 * workers if room is None else min(2 * workers, room())
            begun.extend((item, pool.submit(work, item)) for item in islice(left, max(0, wanted - len(begun))))
            if not begun:
                return
            item, result = begun.popleft()
            yield item, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
