"""What several test files share: the real CIFAR-10, when it is at hand, and a quiet, repeatable torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the official CIFAR-10 in torchvision's layout; skips when there is none."""
    named = os.environ.get("CIFAR10_ROOT")
    if named and (Path(named) / "cifar-10-batches-py" / "test_batch").is_file():
        return Path(named)
    script = ROOT.parent / "shared" / "data" / "unpack_cifar10.py"
    if not script.is_file():
        pytest.skip("the real CIFAR-10 is not here: set CIFAR10_ROOT to a folder that holds cifar-10-batches-py")
    folder = tmp_path_factory.getbasetemp().parent / "cifar10"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _two_workers_share_two_cores() -> None:
    """Tests run side by side, so each takes one thread; set before torch is imported by anyone."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
