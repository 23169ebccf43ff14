"""Run dependent subprocesses, a few at a time, and show how each stands.

A job leaves `STATE/<name>.json` when it is done; a later run with the same key skips it. Its output goes to
`LOGS/<name>.log`, and the last line of that log is what the display shows while it runs. On a terminal the display is
a live table; in a plain log it is one line a change, and a sign of life every 15 seconds.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rise_train.ablation.devices import Devices, find_devices
from rise_train.ablation.forks import Fork, can_fork
from synthesis.errors import UserError

State = Literal["waiting", "running", "done", "skipped"]
COLOURS = {"waiting": "dim", "running": "cyan", "done": "green", "skipped": "green dim"}
HEARTBEAT_S = 15.0


@dataclass
class Job:
    """One subprocess: what it is called, what must be done before, and how its command is made once that is done."""

    name: str
    """Also the name of its files, so `/` makes folders."""
    label: str
    """What people read."""
    key: str
    """Identifies all that the outcome depends on; a job that was done under the same key is skipped."""
    output: Path
    """What it makes; a job whose output is gone is run again."""
    command: Callable[[], list[str]]
    needs: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    devices: int = 1
    """GPUs that it gets for itself, where the machine has any."""
    state: State = "waiting"
    seconds: float = 0.0


class Runner:
    """Runs jobs `parallel` at a time in the order of their dependencies; stops all of them when one fails.

    Args:
        state: folder of the records of finished jobs.
        logs: folder of the jobs' output.
        parallel: jobs at a time, at least 1.
        console: where progress is shown.
        devices: what the jobs are handed; by default looked for when the first one starts.
    """

    def __init__(
        self, state: Path, logs: Path, parallel: int, console: Console, devices: Devices | None = None
    ) -> None:
        self.state, self.logs, self.parallel, self.console, self.devices = state, logs, parallel, console, devices
        self._running: dict[str, tuple[subprocess.Popen[bytes] | Fork, float]] = {}
        self._handed: dict[str, tuple[str, ...]] = {}
        self._spinner = Spinner("line", style="cyan")

    def record(self, name: str) -> dict[str, Any]:
        """What is known of a job from this run or an earlier one: `key`, `command`, `seconds`, `finished`; or empty."""
        path = self.state / f"{name}.json"
        if not path.is_file():
            return {}
        try:
            record: dict[str, Any] = json.loads(path.read_text())
        except json.JSONDecodeError:  # the machine went down while it was written: as good as not there
            return {}
        return record

    def is_done(self, job: Job) -> bool:
        """Whether the job was finished under the same key and its output is still there."""
        record = self.record(job.name)
        return bool(record.get("finished")) and record["key"] == job.key and job.output.exists()

    def run(self, jobs: Iterable[Job]) -> None:
        """Run all jobs that are not done.

        Raises:
            UserError: a job failed; the sentence carries the last line of its log and the log's place. Or one wants
                more devices than there are.
        """
        plan = {job.name: job for job in jobs}
        for job in plan.values():
            if self.is_done(job):
                job.state, job.seconds = "skipped", self.record(job.name).get("seconds", 0.0)
                self._say(f"{job.label}: done before, skipped")
        started = time.monotonic()
        try:
            on_terminal = self.console.is_terminal
            live = Live(
                console=self.console,
                refresh_per_second=4,
                get_renderable=lambda: self._table(plan, started),
                transient=not on_terminal,
                auto_refresh=on_terminal,
            )
            with live:
                self._loop(plan)
        except KeyboardInterrupt:
            self.console.print("interrupted; the same command goes on where it was", highlight=False)
            raise
        finally:
            self._stop_all()

    def _loop(self, plan: dict[str, Job]) -> None:
        last_beat = time.monotonic()
        while any(job.state in ("waiting", "running") for job in plan.values()):
            self._start_ready(plan)
            time.sleep(0.1)
            self._reap(plan)
            if time.monotonic() - last_beat >= HEARTBEAT_S:
                last_beat = time.monotonic()
                self._give_signs(plan)

    def _give_signs(self, plan: dict[str, Job]) -> None:
        for name, (_, since) in self._running.items():
            seconds = time.monotonic() - since
            if seconds >= HEARTBEAT_S / 2:
                self._say(f"{plan[name].label}: {clock(seconds)}  {last_line(self._log(name)) or 'starting'}")

    def _start_ready(self, plan: dict[str, Job]) -> None:
        finished = {name for name, job in plan.items() if job.state in ("done", "skipped")}
        for job in plan.values():
            if len(self._running) >= self.parallel:
                return
            if job.state == "waiting" and finished.issuperset(job.needs) and (own := self._free(job)) is not None:
                self._start(job, own)

    def _free(self, job: Job) -> tuple[str, ...] | None:
        """The devices for a job; none where there are none to hand out, and None while too few are free."""
        if self.devices is None:
            self.devices = find_devices(os.environ)
        if not (names := self.devices.names):
            return ()
        if job.devices > len(names):
            raise UserError(f"{job.label} wants {job.devices} devices, and there are {len(names)}: {', '.join(names)}")
        taken = {name for own in self._handed.values() for name in own}
        free = [name for name in names if name not in taken]
        return tuple(free[: job.devices]) if len(free) >= job.devices else None

    def _start(self, job: Job, own: tuple[str, ...]) -> None:
        assert self.devices is not None
        command, env = job.command(), os.environ | job.env | self.devices.shown(own)
        before = self.record(job.name)
        stop_orphans(before.get("group"), before.get("started"))
        log = self._log(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        fork = can_fork(command, self.devices.kind)
        process = Fork(command, log, env) if fork else spawn(command, log, env)
        self._write(
            job, {"command": command, "group": process.pid, "started": start_time(process.pid), "finished": False}
        )
        self._running[job.name], self._handed[job.name] = (process, time.monotonic()), own
        job.state = "running"
        self._say(f"{job.label}: started")

    def _reap(self, plan: dict[str, Job]) -> None:
        for name, (process, since) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name], self._handed[name]
            job, record = plan[name], self.record(name)
            if process.returncode != 0:
                raise UserError(f"{job.label} failed: {last_line(self._log(name))} (the whole log: {self._log(name)})")
            if not job.output.exists():
                raise UserError(f"{job.label} ended without writing {job.output} (its log: {self._log(name)})")
            job.state, job.seconds = "done", round(time.monotonic() - since, 1)
            self._write(job, {"command": record["command"], "seconds": job.seconds, "finished": True})
            self._say(f"{job.label}: done in {clock(job.seconds)}")

    def _stop_all(self) -> None:
        for process, _ in self._running.values():
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for process, _ in self._running.values():
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()
        self._handed.clear()

    def _write(self, job: Job, facts: dict[str, Any]) -> None:
        path = self.state / f"{job.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"key": job.key, **facts}, indent=1))
        part.replace(path)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _say(self, text: str) -> None:
        """One line of the plain log; the live table shows the same by itself."""
        if not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self, plan: dict[str, Job], started: float) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for job in plan.values():
            running = self._running.get(job.name)
            seconds = time.monotonic() - running[1] if running else job.seconds
            state = Text(job.state, style=COLOURS[job.state])
            line = Text((last_line(self._log(job.name)) or "starting") if running else "", style="dim")
            name = Text(job.label, style="bold" if running else "")
            table.add_row(self._spinner if running else "", name, state, clock(seconds or None), line)
        finished = sum(job.state in ("done", "skipped") for job in plan.values())
        total = Text(f"{finished} of {len(plan)} jobs, {clock(time.monotonic() - started)}", style="dim")
        return Group(table, total)


def clock(seconds: float | None) -> str:
    """Minutes and seconds, as `2:05`; empty for None."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def last_line(log: Path) -> str:
    """The last line of a log that holds text, at most 200 characters, without colours; `\r` counts as a line's end."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]", text)]
    return next((line.removeprefix("error: ")[:200] for line in reversed(lines) if line), "")


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:  # it ended by itself in between
        return


def spawn(command: list[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, its output appended to `log`."""
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )


def start_time(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where it has ended."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def stop_orphans(group: int | None, began: float | None) -> None:
    """End what is left of an earlier run's job, which outlives a runner that was killed with SIGKILL.

    Two trainings in one folder would spoil each other. The group counts only if its leader is the process that was
    recorded, for the numbers of processes are used again.
    """
    if group is None or began is None or abs((start_time(group) or 0.0) - began) > 1.0:
        return
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                process.kill()
                process.wait(5)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
