"""A run in progress: what every stage of the synthesis is given, and where it leaves what it made for the next ones.

A stage is `async def NAME_stage(run: Run) -> None` and stands in the room of its subject; `synthesis.pipeline` lists
them in their order.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from synthesis import progress
from synthesis.authors.base import Author
from synthesis.journal import Journal
from synthesis.json_file import write_json
from synthesis.progress import Progress
from synthesis.records import Json, Negative, Sample, Tool, Trajectory
from synthesis.rundir import Config

if TYPE_CHECKING:
    from synthesis.llm.costs import Costs
    from synthesis.servers.cassettes import CassetteServers
    from synthesis.servers.mcp_config import ServersFile
    from synthesis.servers.server_set import Servers

RecordT = TypeVar("RecordT", bound=BaseModel)
ResultT = TypeVar("ResultT")


@dataclass
class Run:
    """Where a run writes, what it was asked for, whom it works with, and what its stages have made so far."""

    folder: Path
    config: Config
    manifest: dict[str, Json]
    file: "ServersFile"
    author: Author
    files: ExitStack
    """Closes the journals."""
    costs: "Costs | None" = None
    """The ledger of an author that costs money."""

    pool: "Sequence[Servers | CassetteServers]" = ()
    """The servers, started as many times as they work side by side."""
    held_out: frozenset[str] = frozenset()
    """Full names of the tools that train must not know."""
    trajectories: list[Trajectory] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    negatives: Mapping[str, Sequence[Negative]] = field(default_factory=dict)
    """By sample id: all candidates, and those that are kept once `executions` is over."""
    surprises: list[str] = field(default_factory=list)
    """Faults of this program that cost a candidate; the journals hold others, as reasons."""
    verdicts: dict[str, Json] = field(default_factory=dict)
    """Tables of what the tools said to the negatives."""
    counts: dict[str, Json] = field(default_factory=dict)
    """The table of `manifest.json`."""

    seconds: dict[str, float] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the run is interrupted: a stage in a thread ends at its next report."""
    _journals: dict[str, Journal[Any]] = field(default_factory=dict)

    @property
    def tools(self) -> dict[str, Tool]:
        """The tools that may run, by full name; without those of servers that were given up."""
        return self.pool[0].tools

    @property
    def trajectories_by_id(self) -> dict[str, Trajectory]:
        """The trajectories, as samples name them."""
        return {trajectory.id: trajectory for trajectory in self.trajectories}

    def journal(self, name: str, record_type: type[RecordT]) -> Journal[RecordT]:
        """The journal `NAME.jsonl` of the run, opened once and closed with `files`."""
        if name not in self._journals:
            self._journals[name] = self.files.enter_context(Journal(self.folder / f"{name}.jsonl", record_type))
        return self._journals[name]

    def note(self, **facts: Json) -> None:
        """Write `facts` into the manifest."""
        self.manifest |= facts
        write_json(self.folder / "manifest.json", self.manifest)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Show and time the stage `name`; what it yields raises `InterruptedError` once the run is stopped."""
        started = time.monotonic()
        try:
            with progress.stage(name, self.costs.pace if self.costs else None) as shown:
                last = (0, 0, "")

                def report(done: int, total: int, what: str) -> None:
                    nonlocal last
                    if self.stopped.is_set():
                        raise InterruptedError
                    last = (done, total, what)
                    shown(*last)

                if self.costs:
                    self.costs.told = lambda: shown(*last)
                yield report
        finally:
            if self.costs:
                self.costs.told = lambda: None
            if self.costs and (line := self.costs.line(name)):
                print(line, file=sys.stderr, flush=True)
        self.seconds[name] = round(time.monotonic() - started, 1)

    async def aside(self, work: Callable[[], ResultT]) -> ResultT:
        """`work()` in a thread: while a slow model is asked, the servers' tasks go on."""
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            self.stopped.set()
            raise
