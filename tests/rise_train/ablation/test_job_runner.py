"""The runner of dependent processes, on small real processes."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from rise_train.ablation.devices import Devices, handed
from rise_train.ablation.forks import Fork
from rise_train.ablation.job_runner import Job, Runner, clock, last_line, start_time, stop_orphans
from synthesis.errors import UserError


def runner(
    folder: Path, parallel: int = 2, terminal: bool = False, devices: Devices | None = None
) -> tuple[Runner, io.StringIO]:
    """A runner over `folder`, by default of a machine without GPUs, and what it prints."""
    printed = io.StringIO()
    console = Console(file=printed, width=100, force_terminal=terminal)
    return Runner(folder / "jobs", folder / "logs", parallel, console, devices or Devices()), printed


def job(folder: Path, name: str, code: str, *needs: str, key: str = "k") -> Job:
    """A job that runs Python `code`, with the name of its output file as argument."""
    output = folder / f"{name}.out"
    command = [sys.executable, "-c", code, str(output)]
    return Job(name=name, label=name, key=key, output=output, command=lambda: command, needs=needs)


WRITE = "import sys, time; open(sys.argv[1], 'w').write(str(time.time())); print('step 1/1')"


def test_dependencies_are_kept(tmp_path: Path) -> None:
    slow = WRITE.replace("open", "time.sleep(0.4); open")
    jobs = [
        job(tmp_path, "last", WRITE, "first", "second"),
        job(tmp_path, "first", slow),
        job(tmp_path, "second", slow),
    ]
    runner(tmp_path)[0].run(jobs)
    written = {j.name: float(j.output.read_text()) for j in jobs}
    assert written["last"] > max(written["first"], written["second"])
    assert all(j.state == "done" and j.seconds > 0 for j in jobs)


@pytest.mark.parametrize("parallel", [1, 2])
def test_no_more_than_so_many_at_a_time(tmp_path: Path, parallel: int) -> None:
    spans = "import sys, time; a = time.time(); time.sleep(0.5); open(sys.argv[1], 'w').write(f'{a} {time.time()}')"
    jobs = [job(tmp_path, f"j{i}", spans) for i in range(3)]
    runner(tmp_path, parallel)[0].run(jobs)
    times = [tuple(map(float, j.output.read_text().split())) for j in jobs]
    together = max(sum(start <= at < end for start, end in times) for at, _ in times)
    assert together == parallel


def test_done_before_is_skipped_until_its_key_or_output_changes(tmp_path: Path) -> None:
    runner(tmp_path)[0].run([job(tmp_path, "a", WRITE)])
    first = (tmp_path / "a.out").read_text()
    again, printed = runner(tmp_path)
    again.run([job(tmp_path, "a", WRITE)])
    assert (tmp_path / "a.out").read_text() == first
    assert "a: done before, skipped" in printed.getvalue()
    runner(tmp_path)[0].run([job(tmp_path, "a", WRITE, key="other")])
    second = (tmp_path / "a.out").read_text()
    assert second != first
    (tmp_path / "a.out").unlink()
    runner(tmp_path)[0].run([job(tmp_path, "a", WRITE, key="other")])
    assert (tmp_path / "a.out").read_text() != second


def test_a_failed_job_stops_the_others_and_says_why(tmp_path: Path) -> None:
    fails = "import sys, time; time.sleep(0.5); print('error: recipe.yaml: unknown field `x`'); sys.exit(2)"
    waits = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^bad failed: recipe.yaml: unknown field `x` \(the whole log: .*bad.log\)$"):
        runner(tmp_path)[0].run([job(tmp_path, "bad", fails), job(tmp_path, "long", waits)])
    assert time.monotonic() - started < 20
    assert not psutil.pid_exists(int((tmp_path / "long.out").read_text()))
    assert not runner(tmp_path)[0].is_done(job(tmp_path, "long", waits))


def test_a_job_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ended without writing"):
        runner(tmp_path)[0].run([job(tmp_path, "a", "print('fine')")])


def test_a_record_that_was_cut_short_counts_as_not_done(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.json").write_text('{"key": "k", "fini')
    runner(tmp_path)[0].run([job(tmp_path, "a", WRITE)])
    assert runner(tmp_path)[0].record("a")["finished"] is True


def test_plain_log_tells_starts_ends_and_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rise_train.ablation.job_runner.HEARTBEAT_S", 0.3)
    speaks = "import sys, time; print('step 3/9  loss 0.5', flush=True); time.sleep(1.2); open(sys.argv[1], 'w')"
    run, printed = runner(tmp_path)
    run.run([job(tmp_path, "sft", speaks)])
    lines = printed.getvalue().splitlines()
    assert lines[0] == "sft: started"
    assert any(line.startswith("sft: 0:00") and line.endswith("step 3/9  loss 0.5") for line in lines)
    assert lines[-1].startswith("sft: done in 0:01")
    assert "\x1b" not in printed.getvalue()


def test_terminal_shows_a_table(tmp_path: Path) -> None:
    run, printed = runner(tmp_path, terminal=True)
    run.run([job(tmp_path, "sft", WRITE.replace("open", "time.sleep(0.6); open")), job(tmp_path, "dpo", WRITE, "sft")])
    text = printed.getvalue()
    assert all(word in text for word in ("running", "waiting", "done", "2 of 2 jobs"))


def test_last_line_undoes_bars_and_colours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"start\n 10%|#   |\r 50%|##  |\r\x1b[32m 90%|### |\x1b[0m\n\n")
    assert last_line(log) == "90%|### |"
    assert last_line(tmp_path / "none") == ""
    assert (clock(125.7), clock(None)) == ("2:05", "")


def test_orphans_of_a_killed_runner_are_ended_and_nothing_else() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(30)"]
    orphan, other = (subprocess.Popen(command, start_new_session=True) for _ in range(2))
    try:
        began = start_time(orphan.pid)
        assert began is not None
        stop_orphans(orphan.pid, began - 60)  # another process had this number when the record was written
        stop_orphans(orphan.pid, None)
        assert orphan.poll() is None
        stop_orphans(orphan.pid, began)
        assert start_time(orphan.pid) is None
        assert other.poll() is None
    finally:
        for process in (orphan, other):
            process.kill()
            process.wait()


SHOWN = """
import os, sys, time
from pathlib import Path

folder, name = Path(sys.argv[1]).parent, Path(sys.argv[1]).stem
own = os.environ.get("CUDA_VISIBLE_DEVICES", "all").split(",")
for device in own:
    (folder / f"used-{device}").open("x").close()  # fails where another job is on it
time.sleep(0.3)
for device in own:
    (folder / f"used-{device}").unlink()
Path(sys.argv[1]).write_text(",".join(own))
"""


def test_jobs_at_a_time_have_devices_of_their_own(tmp_path: Path) -> None:
    names = ("GPU-7f", "3", "MIG-1")
    jobs = [job(tmp_path, f"one{i}", SHOWN) for i in range(4)]
    jobs.insert(1, job(tmp_path, "two", SHOWN))
    jobs[1].devices = 2
    runner(tmp_path, 3, devices=Devices("cuda", "CUDA_VISIBLE_DEVICES", names))[0].run(jobs)
    shown = {j.name: j.output.read_text().split(",") for j in jobs}
    assert len(shown.pop("two")) == 2
    assert all(len(own) == 1 and set(own) <= set(names) for own in shown.values())


def test_a_job_that_wants_more_than_there_is_says_so(tmp_path: Path) -> None:
    wants = job(tmp_path, "wide", WRITE)
    wants.devices = 2
    with pytest.raises(UserError, match=r"^wide wants 2 devices, and there are 1: 5$"):
        runner(tmp_path, devices=Devices("cuda", "CUDA_VISIBLE_DEVICES", ("5",)))[0].run([wants])


DEVICES = [
    ("cpu", 1, {"CUDA_VISIBLE_DEVICES": ""}, "", ()),
    ("mps", 1, {}, "", ()),
    ("cuda", 3, {}, "CUDA_VISIBLE_DEVICES", ("0", "1", "2")),
    ("cuda", 2, {"CUDA_VISIBLE_DEVICES": "3, GPU-9a,"}, "CUDA_VISIBLE_DEVICES", ("3", "GPU-9a")),
    ("cuda", 1, {"CUDA_VISIBLE_DEVICES": "1,-1,0"}, "CUDA_VISIBLE_DEVICES", ("1",)),
    ("hip", 2, {}, "HIP_VISIBLE_DEVICES", ("0", "1")),
    ("hip", 1, {"CUDA_VISIBLE_DEVICES": "6"}, "CUDA_VISIBLE_DEVICES", ("6",)),
]


@pytest.mark.parametrize(("kind", "count", "environment", "variable", "names"), DEVICES)
def test_devices_are_those_that_this_process_is_shown(
    kind: str, count: int, environment: dict[str, str], variable: str, names: tuple[str, ...]
) -> None:
    assert handed(kind, count, environment) == Devices(kind, variable, names)


MODULE = """
import os, sys, time
import torch

print("step 1/1", sys.argv[1:], "transformers" in sys.modules, os.environ["MARK"], os.getsid(0) == os.getpid())
if "wait" in sys.argv:
    time.sleep(60)
sys.exit(3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that says what it sees of its process."""
    (tmp_path / "says_what_it_sees.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "says_what_it_sees"


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_fork_is_as_a_process_that_has_its_imports_already(tmp_path: Path, module: str) -> None:
    fork = Fork([sys.executable, "-m", module, "a", "b c"], tmp_path / "log", os.environ | {"MARK": "m"})
    assert fork.wait(100) == fork.poll() == 3
    assert (tmp_path / "log").read_text() == "step 1/1 ['a', 'b c'] True m True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_fork_of_the_command_line_says_what_the_command_says(tmp_path: Path) -> None:
    for name, command in {"sft": ["rise_train.sft"], "cli": ["rise_train.cli", "eval", "nothing"]}.items():
        fork = Fork([sys.executable, "-m", *command], tmp_path / name, dict(os.environ))
        status = fork.wait(100)
        typed = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert (tmp_path / name).read_text() == typed.stdout + typed.stderr
        assert status == typed.returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_fork_that_runs_is_found_and_ended(tmp_path: Path, module: str) -> None:
    fork = Fork([sys.executable, "-m", module, "wait"], tmp_path / "log", os.environ | {"MARK": "m"})
    while not last_line(tmp_path / "log"):
        assert fork.poll() is None
        time.sleep(0.05)
    assert fork.wait(0.1) is None
    stop_orphans(fork.pid, start_time(fork.pid))
    assert fork.wait(20) == -signal.SIGKILL
