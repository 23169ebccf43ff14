"""Freed memory stays with the process, where the C library is one that can be told so."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from eval.policies import allocator

PROGRAM = """
import ctypes, resource
from eval.policies import allocator
from eval.policies.allocator import keep_freed_memory

{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
for _ in range(3):
    block = libc.malloc(48_000_000)
    ctypes.memset(block, 1, 48_000_000)
    libc.free(block)
    {then}
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_is_not_faulted_in_again() -> None:
    def faults(call: str, then: str = "") -> int:
        program = PROGRAM.format(call=call, then=then)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        return int(done.stdout)

    assert faults("keep_freed_memory()") < 100
    assert faults("") > 1000  # what it is there for
    assert faults("keep_freed_memory()", "allocator.free_share = lambda: 0.9; allocator.hand_back()") < 100
    assert faults("keep_freed_memory()", "allocator.free_share = lambda: 0.2; allocator.hand_back()") > 1000


def test_a_container_with_less_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_CGROUP", tmp_path)
    machine = allocator.free_share()
    assert 0 < machine < 1
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert abs(allocator.free_share() - machine) < 0.2
    (tmp_path / "memory.max").write_text("1000\n")
    assert allocator.free_share() == pytest.approx(0.1)
