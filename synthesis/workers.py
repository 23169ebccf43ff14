"""Sharing work between several sets of running servers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

WorkerT = TypeVar("WorkerT")
ItemT = TypeVar("ItemT")


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
