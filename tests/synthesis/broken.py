"""Servers that misbehave, and one behind HTTP, as processes."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from synthesis.servers.sandbox.launcher import probe

HERE = Path(__file__).parent
FAULTY = str(HERE / "faulty" / "server.py")
needs_landlock = pytest.mark.skipif(not probe().landlock, reason="the kernel has no Landlock")


@contextmanager
def remote(script="remote.py", *arguments):
    """An HTTP server in a process of its own, killed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "faulty" / script), str(port), *arguments], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
