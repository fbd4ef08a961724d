"""Freed memory stays with the process, until an engine that comes later gives it back."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, torch
from fastslow.slow.local.cpu_memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

assert keep_freed_memory()
before = resident()
tensors = [torch.ones(2**20) for _ in range(100)]  # 4 MiB each
last = torch.ones(2**10)  # above them, so that the end of the heap is in use
del tensors
kept = resident()
keep_freed_memory()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_is_kept_until_the_next_engine() -> None:
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    kept, given_back = map(int, output.split())
    assert kept > 350
    assert given_back < 50
