"""Freed memory stays with the process, where the C library is one that can be told so."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
from eval.policies.allocator import keep_freed_memory

{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
for _ in range(3):
    block = libc.malloc(48_000_000)
    ctypes.memset(block, 1, 48_000_000)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_is_not_faulted_in_again() -> None:
    def faults(call: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(call=call)], capture_output=True, check=True)
        return int(done.stdout)

    assert faults("keep_freed_memory()") < 100
    assert faults("") > 1000  # what it is there for
