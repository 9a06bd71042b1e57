"""A person's own file: its models, activations and optimisers are typed, typo-checked, swept and resumed like ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rig import SMOKE, Lab

from cifar_lab import listing

LAB = '''
"""My own parts."""

import torch
from torch import nn

from cifar_lab.models.build import build_activation


def my_net(num_classes: int, width: int = 8, activation: str = "relu") -> nn.Module:
    """One convolution and a linear layer."""
    layers = [nn.Conv2d(3, width, 3), build_activation(activation), nn.AdaptiveAvgPool2d(8), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64 * width, num_classes))


def my_act(x: torch.Tensor) -> torch.Tensor:
    """Bent at zero and at one."""
    return x.clamp(0, 1) + 0.1 * x


def my_opt(params, *, lr: float = 0.05, heat: float = 0.9) -> torch.optim.Optimizer:
    """SGD by another name."""
    return torch.optim.SGD(params, lr=lr, momentum=heat)


MODELS = {"my_net": my_net}
ACTIVATIONS = {"my_act": my_act}
OPTIMIZERS = {"my_opt": my_opt}


def my_set(config):
    """Random pictures of two classes."""
    from cifar_lab.data.sets import ImageSet, Source

    images = torch.randint(0, 256, (80, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train = ImageSet(images, torch.arange(80) % 2, torch.arange(80))
    return Source(train, test=None, val=None, class_names=("even", "odd"))


class Made:
    """Made on the way."""

    def __new__(cls, config):
        return my_set(config)


DATASETS = {"my_set": my_set, "made": Made}
'''
EXPERIMENT = """# @package _global_
# my own recipe
defaults:
  - override /data: digits
  - override /model: my_net
  - override /optimizer: my_opt
  - override /train: smoke
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "lab.py").write_text(LAB)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    return tmp_path


MINE = (*SMOKE, "model=my_net", "model.activation=my_act", "optimizer=my_opt")
FLAGS = ("--plugin", "lab.py", "--config-dir", "conf")


@pytest.mark.usefixtures("same_tables_afterwards")
def test_own_parts_train(work: Path, lab: Lab) -> None:
    said = lab(*FLAGS, *MINE, "optimizer.heat=0.5", "hydra.run.dir=run")
    assert said.code == 0, said.err
    result = json.loads((work / "run" / "result.json").read_text())
    assert result["cost"]["num_params"] == 8 * 28 + 10 * (64 * 8 + 1)
    assert "already done" in lab(*FLAGS, *MINE, "optimizer.heat=0.5", "hydra.run.dir=run").out
    (work / "lab.py").write_text(LAB.replace("0.1 * x", "0.2 * x"))
    changed = lab(*FLAGS, *MINE, "optimizer.heat=0.5", "hydra.run.dir=run")
    assert changed.code == 4
    assert "error[E-RESUME]: the code differs" in changed.err


@pytest.mark.usefixtures("same_tables_afterwards")
def test_an_own_data_set_is_chosen_by_its_name(work: Path, lab: Lab) -> None:
    said = lab("--plugin", "lab.py", "train=smoke", "data=my_set", "model.widths=[4]", "hydra.run.dir=run")
    assert said.code == 0, said.err
    data = json.loads((work / "run" / "result.json").read_text())["data"]
    assert data["classes"] == ["even", "odd"]
    assert yaml.safe_load((work / "run" / "config.yaml").read_text())["data"]["sources"] == []
    assert listing.options("data")["my_set"] == "Random pictures of two classes."
    assert listing.options("data")["made"] == "", "a class; its docstring is not looked for"


@pytest.mark.usefixtures("same_tables_afterwards")
def test_own_parts_are_swept_with_an_own_experiment(work: Path, lab: Lab) -> None:
    said = lab(*FLAGS, "-m", "experiment=mine", "data.subset=60", "threads=1", "model.width=4,8", "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err
    results = {p.parent.name: json.loads(p.read_text()) for p in (work / "sweep").glob("*/result.json")}
    assert {name: r["cost"]["num_params"] for name, r in results.items()} == {
        f"model.width={w}": w * 28 + 10 * (64 * w + 1) for w in (4, 8)
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.witdh=4", "did you mean 'model.width'?"),
        ("model.width=wide", "model.width"),
        ("model.activation=my_akt", "did you mean 'my_act'?"),
        ("optimizer.heat=hot", "optimizer.heat"),
        ("optimizer.momentum=0.9", "the chosen optimizer has no 'momentum'"),
        ("data=my_sett", "unknown data 'my_sett'; did you mean 'my_set'?"),
        ("data.name=my_set", "data.name cannot be overridden"),
    ],
)
def test_typos_in_own_parts_are_found_before_torch_is_imported(work: Path, override: str, words: str) -> None:
    script = (
        "import sys\nfrom cifar_lab.train import main\n"
        f"code = main(['--plugin', 'lab.py', *{list(MINE)!r}, {override!r}])\n"
        "print('torch' in sys.modules)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=work, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[0]
    assert done.stdout == "False\n"
    assert not (work / "outputs").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such Python file"),
        ("x = 1\n", "no table in it"),
        ("def f(): ...\nMODELS = {'resnet18': f}\n", "models already has a 'resnet18'"),
        ("MODELS = {'g': g}\n", "which the file does not define"),
        ("def f(*sizes): ...\nMODELS = {'f': f}\n", "f"),
        ("def f(:\n", "lab.py"),
        (
            "def f(num_classes: int):\n    raise RuntimeError('no such luck')\nMODELS = {'f': f}\n",
            "raised RuntimeError: no such luck",
        ),
        ("def f(num_classes: int):\n    return 3\nMODELS = {'f': f}\n", "must return a torch.nn.Module, not int"),
        (
            "from torch import nn\ndef f(num_classes: int):\n    return nn.Flatten()\nMODELS = {'f': f}\n",
            "model=f answers one image with [1, 3072]; must be logits [1, 10]",
        ),
    ],
)
@pytest.mark.usefixtures("same_tables_afterwards")
def test_what_is_wrong_with_a_plugin_is_one_line(work: Path, lab: Lab, content: str | None, words: str) -> None:
    (work / "lab.py").unlink()
    if content is not None:
        (work / "lab.py").write_text(content)
    said = lab("--plugin", "lab.py", *SMOKE, "model=f")
    assert said.code == 2, said.err
    assert said.err.startswith("cifar-lab: error[E-CONFIG]: ")
    assert words in said.err.splitlines()[0]
    assert "Traceback" not in said.err
    assert not (work / "outputs" / "runs").exists() or not list((work / "outputs" / "runs").iterdir())
