"""Progress of an evaluation, on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from eval.policies.base import Progress


@contextmanager
def progress_of(what: str, total: int, unit: str) -> Iterator[Progress]:
    """What to tell how many more were answered: a bar on a terminal, else a line every ten seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _lines(what: str, total: int, unit: str) -> Progress:
    done, due = 0, 0.0

    def advance(count: int) -> None:
        nonlocal done, due
        done += count
        if count and (time.monotonic() >= due or done == total):
            due = time.monotonic() + 10
            print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)

    return advance
