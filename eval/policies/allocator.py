"""The C allocator, told to keep what a step frees, since the next one asks for the same again."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the two settings in glibc's `mallopt` (malloc.h)."""
LARGE = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory of this process instead of handing it back to the kernel.

    By default every tensor of some megabytes is mapped afresh, and the kernel clears its pages one by one: for the
    elementwise operations of a step on a CPU that takes longer than the arithmetic. Does nothing with another
    C library, and nothing for the memory of a GPU. `tests/bench/grouped_dpo.py` gives it to all ways alike.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, LARGE)
    mallopt(_TRIM_THRESHOLD, LARGE)
