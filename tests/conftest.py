"""What several test files share: the real CIFAR-10, when it is at hand, a quiet torch, and the command line in-process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rig import ROOT, Lab, Said

from cifar_lab.storage import FolderLock

# Tests run side by side, so each takes one thread; set before torch is imported by anyone.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the official CIFAR-10 in torchvision's layout; skips when there is none."""
    named = os.environ.get("CIFAR10_ROOT")
    if named and (Path(named) / "cifar-10-batches-py" / "test_batch").is_file():
        return Path(named)
    script = ROOT.parent / "shared" / "data" / "unpack_cifar10.py"
    if not script.is_file():
        pytest.skip("the real CIFAR-10 is not here: set CIFAR10_ROOT to a folder that holds cifar-10-batches-py")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cifar10"
    with FolderLock(folder, wait=True):  # tests run side by side and share it
        if not (folder / "unpacked").exists():
            subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
            (folder / "unpacked").touch()
    return folder


@pytest.fixture
def lab(lab_with_pictures: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """`cifar-lab train ...` in this process, in a fresh working folder; drawing, half a small run's time, is left out."""
    from cifar_lab.analysis import figures

    render = figures.render

    def quickly(draw: Any, width: float, height: float, format: str = "png", **rest: Any) -> bytes:
        return b"a picture" if format == "png" else render(draw, width, height, format, **rest)

    monkeypatch.setattr(figures, "render", quickly)
    return lab_with_pictures


@pytest.fixture
def lab_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lab:
    """`cifar-lab train ...` in this process, in a fresh working folder."""
    from cifar_lab.train import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call
