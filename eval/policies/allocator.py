"""The C allocator, told to keep what a step frees, since the next one asks for the same again, while there is room."""

import ctypes
import platform
from functools import cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the two settings in glibc's `mallopt` (malloc.h)."""
LARGE = 2**31 - 1
ENOUGH = 0.25
"""Share of the machine's memory that others should find free."""
_CGROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Let glibc keep freed memory of this process instead of handing it back to the kernel.

    By default every tensor of some megabytes is mapped afresh, and the kernel clears its pages one by one: for the
    elementwise operations of a step on a CPU that takes longer than the arithmetic. Does nothing with another
    C library, and nothing for the memory of a GPU. `tests/bench/grouped_dpo.py` gives it to all ways alike.
    """
    if not _has_glibc():
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, LARGE)
    mallopt(_TRIM_THRESHOLD, LARGE)


def hand_back() -> None:
    """Hand the kept memory back where less than a quarter of the machine's, or the container's, is free.

    Steps differ in length, so that what is kept comes to twice what is needed at a time: SFT of a model of 135 million
    parameters, which needs 9.5 GB, held 20 after 25 steps. Nothing but time is lost, some hundredths of a step's.
    """
    if _has_glibc() and free_share() < ENOUGH:
        ctypes.CDLL(None).malloc_trim(0)


def free_share() -> float:
    """The share of memory that is free, between 0 and 1: of the machine, or of the container where that has less."""
    import psutil  # type: ignore[import-untyped]

    machine = psutil.virtual_memory()
    found = machine.available / machine.total
    try:
        most, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such limit
        return float(found)
    return float(min(found, 1 - used / most))


@cache
def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"  # reads the interpreter's file, so once
