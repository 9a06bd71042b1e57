"""Hydra's shell around our workers: jobs of a sweep on this machine, each in a process of its own."""

from dataclasses import dataclass
from typing import Any, Optional, Sequence  # noqa: UP035

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher


@dataclass
class LabLauncherConf:
    """The launcher has no settings of its own: see sweep.workers and sweep.job_timeout."""

    _target_: str = "hydra_plugins.cifar_lab.launcher.LabLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="cifar_lab", node=LabLauncherConf, provider="cifar_lab")


class LabLauncher(Launcher):
    """Runs planned jobs side by side; what became of them is read from their folders."""

    def __init__(self) -> None:
        self.config: Optional[Any] = None  # noqa: UP045

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Take the sweep's configuration; jobs are composed already."""
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run the jobs that the sweep planned under these names."""
        from cifar_lab.local import run_planned

        assert self.config is not None
        return run_planned(self.config.hydra.sweep.dir, [list(overrides) for overrides in job_overrides])
