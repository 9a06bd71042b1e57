"""Memory of a process, against what the kernel counts."""

import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys, torch
from cifar_lab import memory
if sys.argv[1] == "keep":
    assert memory.keep_freed_memory()
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):  # until the heap is as large as it gets
    torch.zeros(16 * 2**20).add_(1)
before = count()
for _ in range(10):
    torch.zeros(16 * 2**20).add_(1)
print(count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_used_again_instead_of_being_asked_for_page_by_page():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "default")
    }
    assert faults["default"] >= 10  # ten blocks of 64 MiB, each new; 160,000 pages of 4 KiB or 320 huge ones
    assert faults["keep"] < faults["default"] / 10
