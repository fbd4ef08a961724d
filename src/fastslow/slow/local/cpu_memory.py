"""Keeping memory that was freed: on a CPU a third of a step would go into getting the same pages again."""

import ctypes
import ctypes.util
import gc
import sys

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to serve large tensors from memory that the process holds already; False where there is no glibc.

    It holds for the whole process. Its price: the memory of the largest step stays with the process until it ends, or
    until this is called again: an engine that is loaded later, as in a list of runs,
    begins without what earlier ones left.
    """
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    if name is None or not hasattr(ctypes.CDLL(name), "mallopt"):
        return False
    libc = ctypes.CDLL(name)
    gc.collect()  # an engine that was dropped may wait in a circle of references
    libc.malloc_trim(0)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, LARGEST))
