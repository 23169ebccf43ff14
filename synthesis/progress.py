"""Progress for people: bars on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what is being worked on)`."""
Note = Callable[[], str]
LINE_EVERY_S = 5.0


def silent(done: int, total: int, what: str) -> None:
    """Progress that nobody looks at."""


@contextmanager
def stage(title: str, note: Note | None = None) -> Iterator[Progress]:
    """A stage with the name `title`; yields what to call with `(done, total, item)`.

    `note` says more about how it goes, where that is slow: then a line also says how long it will take.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as bars:
            task = bars.add_task(title, total=None, item="")

            def update(done: int, total: int, item: str) -> None:
                bars.update(task, completed=done, total=total, item=f"{item}  {note()}" if note else item)

            yield update
    else:
        lines = _Lines(title, note)
        yield lines
        lines.close()


def _bars(console: "Console") -> "Bars":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:<13}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("[dim]{task.fields[item]}"), console=console)


class _Lines:
    """A line on stderr every few seconds, and one at the end."""

    def __init__(self, title: str, note: Note | None = None) -> None:
        self.note = note
        self.title, self.last, self.state = title, time.monotonic(), (0, 0)
        self.started = self.last

    def __call__(self, done: int, total: int, item: str) -> None:
        self.state = (done, total)
        if time.monotonic() - self.last >= LINE_EVERY_S:
            self.last = time.monotonic()
            self._print()

    def close(self) -> None:
        """Print how it ended."""
        self._print()

    def _print(self) -> None:
        (done, total), spent = self.state, time.monotonic() - self.started
        told = [f"{spent:.0f} s"]
        if self.note and (more := self.note()):
            told.append(more)
            if 0 < done < total:
                told.append(f"about {spent / done * (total - done):.0f} s left")
        print(f"{self.title}: {done}/{total} ({', '.join(told)})", file=sys.stderr, flush=True)
