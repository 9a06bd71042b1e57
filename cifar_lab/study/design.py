"""What a sweep varies: its variants, its seeds, and the one that the others are compared with.

Read from the plan in the sweep's folder, so that a report can be made at any time, on any machine, without the
configurations that the plan came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cifar_lab import storage
from cifar_lab.config import ClaimConfig, StudyConfig, flatten
from cifar_lab.errors import DataError, LabError, ResumeError
from cifar_lab.study.naming import choose_baseline, short_labels

PLAN = "plan.json"
PLAN_SCHEMA = 2
FACTS = "facts.json"
REPORT = "report.json"
METRICS_FILE = "metrics.jsonl"
RESULT = "result.json"


@dataclass(frozen=True)
class Run:
    """One planned run, in whatever state it is.

    Args:
        name: Of its folder.
        folder: Where it is.
        variant: Name of its variant.
        seed: Its seed.
        config: Its configuration with dotted keys.
        overrides: What was given for it.
        digests: What the digest of its configuration can be; empty where the plan does not say.
        round: 0 for runs of the first command, 1 for those that were added after a look, and so on.
    """

    name: str
    folder: Path
    variant: str
    seed: int
    config: Mapping[str, Any] = field(repr=False)
    overrides: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    round: int = 0

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """result.json; empty where there is none that can be read."""
        try:
            found = storage.read_json(self.folder / RESULT) if (self.folder / RESULT).is_file() else {}
        except LabError:
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Rows of metrics.jsonl."""
        path = self.folder / METRICS_FILE
        try:
            return storage.read_lines(path) if path.is_file() else []
        except LabError:
            return []

    @property
    def status(self) -> str:
        """``done``, ``diverged``, ``failed``, ``interrupted``; ``unfinished``: it runs or was killed; ``waiting``: not begun."""
        found = self.result.get("status")
        if found == "done" and self.digests and (self.result.get("digests") or {}).get("config") not in self.digests:
            return "unfinished"  # the result is that of earlier settings, such as fewer epochs
        if isinstance(found, str):
            return found
        return "unfinished" if self.rows or (self.folder / "digests.json").is_file() else "waiting"


@dataclass(frozen=True)
class Variant:
    """All runs that differ in nothing but the seed.

    Args:
        name: Its swept overrides, such as ``ablation=kernel5``.
        label: The same in fewer words, for tables and pictures.
        runs: By seed.
    """

    name: str
    label: str
    runs: tuple[Run, ...]

    @property
    def done(self) -> dict[int, Run]:
        """Finished runs by seed."""
        return {run.seed: run for run in self.runs if run.status == "done"}


@dataclass(frozen=True)
class Study:
    """A planned sweep.

    Args:
        folder: Where it is.
        name: Of the study, or of the folder.
        settings: Question, metric, margin, claims.
        variants: In the order of the plan, by name.
        baseline: Name of the variant that the others are compared with.
        command: What made it.
        code: Digest of the code that planned it last.
        facts: Of each variant: what was counted and measured outside its runs (see ``FACTS``).
    """

    folder: Path
    name: str
    settings: StudyConfig
    variants: Mapping[str, Variant]
    baseline: str
    command: str
    code: str
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """All, in the order of the plan."""
        return [run for variant in self.variants.values() for run in variant.runs]

    @property
    def seeds(self) -> list[int]:
        """Every seed that is planned for some variant."""
        return sorted({run.seed for run in self.runs})

    @property
    def others(self) -> list[Variant]:
        """All variants but the baseline."""
        return [variant for name, variant in self.variants.items() if name != self.baseline]


def load_study(folder: Path | str) -> Study:
    """Read a sweep's folder.

    Raises:
        DataError: It holds no plan.
        ResumeError: The plan is of another version.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    runs = [_run(folder, job) for job in plan["jobs"]]
    names = dict.fromkeys(run.variant for run in runs)
    labels = short_labels(list(names))
    runs_of = {name: sorted((run for run in runs if run.variant == name), key=lambda run: run.seed) for name in names}
    variants = {name: Variant(name, labels[name], tuple(runs_of[name])) for name in names}
    settings = _settings(plan["study"])
    facts = storage.read_json(folder / FACTS).get("variants", {}) if (folder / FACTS).is_file() else {}
    baseline = choose_baseline(settings.baseline, list(names))
    return Study(folder, plan["name"], settings, variants, baseline, plan["command"], plan["code"], facts)


def read_plan(folder: Path) -> dict[str, Any]:
    """plan.json of a sweep's folder.

    Raises:
        DataError: There is none.
        ResumeError: It is of another version.
    """
    if not (folder / PLAN).is_file():
        raise DataError(f"{folder} holds no {PLAN}: it is no sweep of ours", hint="sweeps are in outputs/sweeps")
    plan = storage.read_json(folder / PLAN)
    if not isinstance(plan, dict) or plan.get("schema") != PLAN_SCHEMA:
        raise ResumeError(f"{folder / PLAN} is no plan of this version", hint="use another hydra.sweep.dir")
    return plan


def _run(folder: Path, job: Mapping[str, Any]) -> Run:
    return Run(
        name=job["name"],
        folder=folder / job["name"],
        variant=job["variant"],
        seed=job["config"]["seed"],
        config=flatten(job["config"]),
        overrides=tuple(job["overrides"]),
        digests=tuple(job.get("digests", ())),
        round=job.get("round", 0),
    )


def _settings(plain: Mapping[str, Any]) -> StudyConfig:
    settings: dict[str, Any] = dict(plain)
    settings["claims"] = [ClaimConfig(**claim) for claim in plain.get("claims", [])]
    return StudyConfig(**settings)
