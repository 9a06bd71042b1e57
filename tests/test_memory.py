"""Memory of a process, against what the kernel counts."""

import resource
import subprocess
import sys

import pytest
import torch

from cifar_lab import memory

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


_TWO_JOBS = """
import torch
from cifar_lab import memory

class Held:  # by itself, so that only the collector lets it go
    def __init__(self, mib):
        self.me, self.values = self, torch.ones(mib * 2**18)

def job(mib):
    memory.keep_freed_memory()
    memory.reset_peak(torch.device("cpu"))
    Held(mib // 2)
    torch.ones(mib // 2 * 2**18).add_(1)
    return memory.peak_mib(torch.device("cpu"))

print(job(8), job(608), job(64))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap and the kernel's high-water mark")
def test_a_small_run_after_a_large_one_in_the_same_process_has_its_own_peak():
    done = subprocess.run([sys.executable, "-c", _TWO_JOBS], capture_output=True, text=True, check=True)
    first, large, small = map(float, done.stdout.split())
    assert large - first == pytest.approx(600, abs=40)
    assert small - first == pytest.approx(56, abs=16)


@pytest.mark.parametrize("status", [None, "Name:\tpython\nVmSize:\t 900 kB\n"])
def test_a_kernel_that_keeps_no_high_water_mark_is_asked_otherwise(tmp_path, monkeypatch, status):
    """gVisor's /proc/self/status has no VmHWM line."""
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    unit = 1 if sys.platform == "darwin" else 1024
    expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    assert memory.peak_mib(torch.device("cpu")) == pytest.approx(expected, rel=0.01)
