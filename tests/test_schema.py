"""Composition: what is accepted has the right types, what is not is refused in one line that names key and value."""

import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cifar_lab import schema
from cifar_lab.config import Component, Config, to_plain
from cifar_lab.errors import ConfigError
from cifar_lab.rules import check
from cifar_lab.tables import COMPONENTS, conf_dir, known_keys


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    schema.register()


def test_defaults_compose_to_typed_values() -> None:
    config = schema.compose([])
    assert isinstance(config, Config)
    assert config.model == Component("small_cnn", config.model.settings)
    assert config.model.settings["widths"] == (7, 9)
    assert config.optimizer.settings["betas"] == (0.9, 0.999)
    assert config.optimizer.settings["decay_all"] is False
    assert config.train.batch_size == 128


def test_defaults_of_the_dataclasses_and_of_conf_agree() -> None:
    """conf/train/default.yaml and the like must not hide another default."""
    composed, declared = to_plain(schema.compose([])), to_plain(Config())
    for part in ("train", "augment", "tracker"):
        assert composed[part] == declared[part]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.ler=0.1", "unknown key 'optimizer.ler'; did you mean 'optimizer.lr'?"),
        ("optim.lr=0.1", "unknown key 'optim.lr'; did you mean 'optimizer.lr'?"),
        ("+optimizer.ler=0.1", "unknown key 'optimizer.ler'; did you mean 'optimizer.lr'?"),
        ("++optimizer.ler=0.1", "unknown key 'optimizer.ler'"),
        ("+train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("++trainn=3", "unknown key 'trainn'; did you mean 'train'?"),
        ("modle=resnet18", "unknown key 'modle'; did you mean 'model'?"),
        ("train.lr=0.1", "unknown key 'train.lr'; did you mean 'optimizer.lr'?"),
        ("model=resnet81", "unknown model 'resnet81'; did you mean 'resnet18'?"),
        ("experiment=nope", "unknown experiment 'nope'"),
        ("model.activation=reluu", "model.activation=reluu: unknown activation; did you mean 'relu'?"),
        ("model.padding=foo", "model.padding=foo; must be one of valid, same"),
        ("model.widths=3", "model.widths=3; must be a list"),
        ("model.widths=[a]", "must be a whole number"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]; must have 2 values"),
        ("optimizer.lr=abc", "optimizer.lr=abc; must be a number"),
        ("optimizer.lr=null", "must be a value, not null"),
        ("train.batch_size=0", "train.batch_size=0; must be 1 to 65536"),
        ("train.epochs=2.5", "train.epochs=2.5; must be a whole number"),
        ("train.precision=fp8", "train.precision=fp8; must be one of auto, fp32, bf16, fp16"),
        ("train.deterministic=maybe", "must be true or false"),
        ("augment.flip_probability=nan", "must be a finite number"),
        ("augment.flip_alternating=true", "augment.flip_alternating=true with augment.flip_probability=0; nothing is flipped"),
        ("device=gpu", "device=gpu; must be auto, cpu, cuda, cuda:N or mps"),
        ("device=cpu:1", "device=cpu:1"),
        ("data.train_batches=[6]", "data.train_batches=[6]; must be different numbers from 1 to 5"),
        ("data.sources=[http://example.org/x]", "must be an https:// address"),
        ("model.name=resnet18", "model.name cannot be overridden"),
        ("+model.name=resnet18", "model.name cannot be overridden"),
        ("~model.padding", "keys cannot be deleted"),
        ("model=null", "choose model by name"),
        ("train=3", "choose train by name"),
        ("model={a: 1}", "choose model by name"),
        ("+hydra.callbacks.x._target_=os.getcwd", "not allowed, configurations are data"),
        ("++hydra.callbacks.x.y=1", "not allowed"),
        ("hydra.sweeper._target_=x.y", "not allowed"),
        ("hydra.launcher._target_=os.system", "not allowed"),
        ("++hydra.job_logging.handlers.f.class=logging.FileHandler", "not allowed"),
        ("hydra/job_logging=default", "not allowed"),
        ("hydra/sweeper=basic", "not allowed"),
        ("data.root=${oc.env:HOME}", "resolvers are not allowed"),
        ("data.root=${ oc.env:HOME}", "resolvers are not allowed"),
        ("hydra.run.dir=${oc.env:HOME}/x", "resolvers are not allowed"),
        ("seed=0,1", "'seed=0,1' has several values"),
        ("optimizer.nesterov=true", "optimizer.nesterov: the chosen optimizer has no 'nesterov'; there is one with optimizer="),
        ("+optimizer.nesterov=true", "the chosen optimizer has no 'nesterov'; there is one with optimizer="),
        ("schedule.milestones=[2]", "the chosen schedule has no 'milestones'; there is one with schedule=step"),
        ("optimizer.betas=0.9", "optimizer.betas=0.9; must be a list such as [1,2]"),
        ("model.widths={a:1}", "model.widths={a:1}; must be a list such as [1,2]"),
        ("train.drop_last=0.5", "train.drop_last=0.5; must be true or false"),
        ("train.epochs=true", "train.epochs=true; must be a whole number"),
        ("optimizer.lr=[1]", "optimizer.lr=[1]; must be a number"),
        ("model.activation=[relu,tanh]", "model.activation=[relu,tanh]; must be one word, not several"),
        ("foo='", "cannot read the override"),
    ],
)
def test_refused_in_one_line(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.compose([override])
    assert words in caught.value.what
    assert "\n" not in caught.value.line()
    assert caught.value.exit_code == 2


def test_a_group_cannot_be_set_on_top_of_a_saved_configuration() -> None:
    plain = to_plain(schema.compose([]))
    assert schema.from_plain(plain, ["tracker.name=tensorboard"]).tracker.name == "tensorboard"
    with pytest.raises(ConfigError, match=r"'tracker=tensorboard': tracker is a group.*") as caught:
        schema.from_plain(plain, ["tracker=tensorboard"])
    assert "tracker.name=NAME" in caught.value.hint


def test_what_a_persons_own_yaml_may_not_do(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    cases = {
        "resolver": ("data:\n  root: ${oc.env:HOME}\n", "resolvers are not allowed"),
        "callback": ("hydra:\n  callbacks:\n    x:\n      _target_: os.getcwd\n", "hydra.callbacks"),
        "launcher": ("hydra:\n  launcher:\n    _target_: os.system\n", "hydra.launcher"),
        "unknown": ("trian:\n  epochs: 3\n", "trian"),
        "typo": ("train:\n  epoch: 3\n", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        "chdir": ("hydra:\n  job:\n    chdir: true\n", "hydra.job.chdir: not allowed"),
        "output": ("hydra:\n  output_subdir: .hydra\n", "hydra.output_subdir: not allowed"),
        "verbose": ("hydra:\n  verbose: true\n", "hydra.verbose: not allowed"),
        "range": ("train:\n  epochs: -1\n", "train.epochs=-1; must be 0 to 100000"),
    }
    for name, (text, words) in cases.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
        with pytest.raises(ConfigError) as caught:
            schema.compose([f"experiment={name}"], tmp_path)
        assert words in caught.value.what, name


def test_a_persons_own_configurations_are_found(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("defaults:\n  - /schema/optimizer/sgd@_here_\n  - _self_\nlr: 0.7\n")
    config = schema.compose(["optimizer=mine", "optimizer.momentum=0.5"], tmp_path)
    assert config.optimizer.name == "sgd"
    assert (config.optimizer.settings["lr"], config.optimizer.settings["momentum"]) == (0.7, 0.5)


GROUPS = ("data", "augment", "model", "optimizer", "schedule", "train", "tracker")
OPTIONS = {group: sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) for group in GROUPS}


@pytest.mark.parametrize("number", range(max(map(len, OPTIONS.values()))))
def test_every_option_of_every_group_composes(number: int) -> None:
    """One of each group at a time."""
    chosen = {group: names[number % len(names)] for group, names in OPTIONS.items()}
    config = schema.compose([f"{group}={name}" for group, name in chosen.items()])
    assert all(is_dataclass(getattr(config, group)) for group in GROUPS)


EXPERIMENTS = sorted(p.stem for p in (conf_dir() / "experiment").glob("*.yaml"))


PLAINEST = min(COMPONENTS["optimizer"], key=lambda name: len(schema.signature("optimizer", name).keys))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_another_optimizer(experiment: str) -> None:
    """An experiment that set keys below optimizer would break when it is swapped; models and schedules: test_packaging."""
    names = list(COMPONENTS["optimizer"])
    for name in {PLAINEST, names[EXPERIMENTS.index(experiment) % len(names)]}:
        assert schema.compose([f"experiment={experiment}", f"optimizer={name}"]).optimizer.name == name


def test_composing_again_from_config_yaml_gives_the_same(tmp_path: Path) -> None:
    import yaml

    config = schema.compose(["experiment=quickstart", "model.widths=[4,5]", "optimizer=sgd_nesterov"])
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump(to_plain(config), sort_keys=False))
    again = schema.to_config(OmegaConf.load(tmp_path / "saved.yaml"))
    assert again == config


def test_refusal_needs_no_torch_and_creates_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from cifar_lab.train import main; code = main(['optimizer.ler=1']); "
        "print(code, 'torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "False"]
    assert done.stderr.splitlines()[0].startswith("cifar-lab: error[E-CONFIG]: unknown key 'optimizer.ler'")
    assert list(tmp_path.iterdir()) == []


def test_known_keys_hold_all_the_names_that_others_rely_on() -> None:
    names = (
        "seed device init_from train.epochs train.batch_size train.precision train.deterministic data.root data.download "
        "data.subset data.train_batches model.kernel_size model.activation optimizer.lr"
    )
    assert set(names.split()) <= set(known_keys())


def test_ranges_of_every_default_hold() -> None:
    check(Config())


def test_the_folder_of_a_run_in_a_file_is_data_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for name, folder in (("dated", "runs/${now:%Y}"), ("leaking", "runs/${oc.env:USER,nobody}")):
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\nhydra:\n  run:\n    dir: {folder}\n")
    dated = schema.run_dir(schema.compose_raw(["experiment=dated"], tmp_path))
    assert dated is not None
    assert re.fullmatch(r"runs/\d{4}", str(dated))
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir=runs/\$\{oc\.env:USER,nobody\}: resolvers are not allowed"):
        schema.run_dir(schema.compose_raw(["experiment=leaking"], tmp_path))
