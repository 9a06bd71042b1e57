"""What travels: the lock file names public sources only, the wheel holds conf/ and the Hydra plugin, experiments compose."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from rig import ROOT

from cifar_lab.tables import conf_dir

PUBLIC = {"https://pypi.org/simple"}


def test_every_locked_source_is_the_public_index_or_the_project() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    assert len(packages) > 50
    for package in packages:
        assert package["source"] in ({"editable": "."}, *({"registry": url} for url in PUBLIC)), package["name"]
        for file in [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]:
            assert file["url"].startswith("https://files.pythonhosted.org/"), file["url"]


def test_the_wheel_brings_configurations_and_the_sweeper(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {f"cifar_lab/conf/{p.relative_to(ROOT / 'conf').as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert ours <= names
    assert "hydra_plugins/cifar_lab/sweeper.py" in names
    assert "cifar_lab/study/report.html.j2" in names
    assert "hydra_plugins/__init__.py" not in names
    assert not [n for n in names if n.startswith(("tests", "outputs"))]


def test_nothing_that_is_committed_names_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".json", ".jsonl", ".txt", ".lock", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"(?<![\w.}])/(root|home)/\w", text), name


@pytest.mark.parametrize("path", sorted(conf_dir().glob("experiment/*.yaml")), ids=lambda p: p.stem)
def test_an_experiment_opens_with_its_command_and_sets_no_component_keys(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# @package _global_\n# ")
    assert f"#   cifar-lab train experiment={path.stem}\n" in text
    keys = {line.partition(":")[0] for line in text.splitlines() if line and line[0] not in "# "}
    assert keys <= {"defaults", "data", "seed"}, "components and the loop are chosen by named presets"
