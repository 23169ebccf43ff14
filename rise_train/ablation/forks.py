"""`python -m MODULE` without its imports: forked from one process that has the heavy libraries already.

Nine jobs of the demo import torch, transformers and trl once instead of nine times. Only for CPUs on Linux: elsewhere a
fork of such a process is not safe.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

PRELOADED = "rise_train.ablation.preloaded"


def can_fork(command: list[str], device: str) -> bool:
    """Whether this command can run as a fork on a machine with this kind of device."""
    return device == "cpu" and sys.platform == "linux" and command[:2] == [sys.executable, "-m"] and not _own(command)


def _own(command: list[str]) -> bool:
    """Whether it is a launcher, which starts processes of its own in any case."""
    return command[2].startswith(("accelerate.", "torch."))


class Fork:
    """A running fork, in a session of its own; the part of `subprocess.Popen` that the runner uses.

    Args:
        command: [python, "-m", MODULE, ...].
        log: file that its output is appended to.
        env: its environment. What a library reads while it is imported is read of this process's, and earlier.
    """

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        self._process = context.Process(target=_run, args=(command[2], command[3:], str(log), env))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, at most `timeout` seconds; None where it still runs."""
        self._process.join(timeout)
        return self._process.exitcode


def _run(module: str, arguments: list[str], log: str, env: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(sink, stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # both are of a fresh process
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # imported already, it would be run a second time, and runpy warns of that
    runpy.run_module(module, run_name="__main__", alter_sys=True)
