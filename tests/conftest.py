"""What several test files share: the real CIFAR-10, when it is at hand, a quiet torch, and the command line in-process."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import ROOT, Lab, Said, train, without_pictures

from cifar_lab import plugins, schema, signatures, tables
from cifar_lab.storage import FolderLock

# Tests run side by side, so each takes one thread; set before torch is imported by anyone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is printed must not depend on where the tests run: some services ask for colours, and a terminal may be narrow.
for _name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)


_modules_frozen = 0


def pytest_runtest_setup() -> None:
    """Each run collects garbage before it measures its memory; libraries and thousands of tests are none."""
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 100:
        gc.collect()
        gc.freeze()
        _modules_frozen = len(sys.modules)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries count what is left at the end


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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with everything that a run leaves; ``finished`` is a copy that may be changed."""
    return train(tmp_path_factory.mktemp("small") / "run", pictures=True)


@pytest.fixture(scope="module")
def finished(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run, with validation images and pictures, for the tests of one file."""
    return shutil.copytree(small_run, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def lab(lab_with_pictures: Lab) -> Iterator[Lab]:
    """`cifar-lab train ...` in this process, in a fresh working folder, without pictures."""
    with without_pictures():
        yield lab_with_pictures


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


@pytest.fixture
def same_tables_afterwards() -> Iterator[None]:
    """A plugin's rows would stay in this process."""
    before = {kind: dict(table) for kind, table in tables.TABLES.items()}
    yield
    for kind, table in tables.TABLES.items():
        table.clear()
        table.update(before[kind])
    for module in plugins._files:
        sys.modules.pop(module, None)
    plugins._files.clear()
    for read in (signatures.source_of, signatures.read_signature, signatures.parse, schema._schema):
        if hasattr(read, "cache_clear"):
            read.cache_clear()
