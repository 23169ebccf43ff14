"""How many threads a process computes with: as many as other processes leave cores.

The threads of one operation wait for each other by spinning. Where another process takes a core, two threads on two
cores therefore get less done than one alone: `tests/bench/busy.py`. How many there are can change between operations.
"""

import os
import time


class Threads:
    """Looks at the load and sets torch's number of threads by it.

    Two looks in a row must agree: a moment's load would cost little, but another number of threads can change the last
    bits of a training. Does nothing on a GPU, and nothing where OMP_NUM_THREADS says how many there should be.
    """

    WINDOW_S = 2.0

    def __init__(self) -> None:
        import torch

        self.most = torch.get_num_threads()
        self.fixed = "OMP_NUM_THREADS" in os.environ or self.most == 1 or torch.accelerator.is_available()
        self._seen = (0.0, 0.0) if self.fixed else look()
        self._at = time.monotonic()
        self._wanted = self.most

    def fit(self) -> None:
        """To be called between steps; looks every two seconds, at what happened since it looked last."""
        now = time.monotonic()
        if self.fixed or now - self._at < self.WINDOW_S:
            return
        import torch

        before, self._seen = self._seen, look()
        busy, own = (after - then for after, then in zip(self._seen, before, strict=True))
        wanted = fitting(self.most, len(cores()), (busy - own) / (now - self._at))
        if wanted == self._wanted:
            torch.set_num_threads(wanted)
        self._wanted, self._at = wanted, now


def fitting(most: int, count: int, others: float) -> int:
    """Threads for `count` cores of which other processes keep `others` busy; at least 1, at most `most`.

    A process that wants a whole core gets two thirds of one beside two spinning threads, so that rounding finds it.
    """
    return max(1, min(most, count - round(others)))


def cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def look() -> tuple[float, float]:
    """Seconds that these cores have been busy, and those of them that were this process's."""
    import psutil  # type: ignore[import-untyped]

    times = psutil.cpu_times(percpu=True)
    busy = sum(sum(times[core]) - times[core].idle - getattr(times[core], "iowait", 0.0) for core in cores())
    return busy, time.process_time()
