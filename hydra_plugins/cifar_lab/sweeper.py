"""Hydra's shell around our sweep: all jobs are composed and checked first, a failed one does not end the others."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


@dataclass
class LabSweeperConf:
    """Settings of the sweeper, as Hydra's own has them."""

    _target_: str = "hydra_plugins.cifar_lab.sweeper.LabSweeper"
    max_batch_size: Optional[int] = None  # noqa: UP045
    params: Optional[Dict[str, str]] = field(default_factory=dict)  # noqa: UP006, UP045


ConfigStore.instance().store(group="hydra/sweeper", name="cifar_lab", node=LabSweeperConf, provider="cifar_lab")


class LabSweeper(BasicSweeper):
    """Runs the jobs of a multirun command one after the other, each in a folder with a stable name."""

    def sweep(self, arguments: List[str]) -> Any:  # noqa: UP006
        """Plan, launch and collect; returns one outcome per job."""
        from cifar_lab.launching import run_sweep

        assert self.config is not None
        assert self.launcher is not None
        return run_sweep(list(arguments), self.config, self.launcher)
