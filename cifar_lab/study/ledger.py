"""report.csv: a row for every planned run, with every measure and where it comes from."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cifar_lab import storage
from cifar_lab.analysis.typeset import Column, Table
from cifar_lab.errors import LabError
from cifar_lab.study.design import Run, Study
from cifar_lab.study.measures import Sheet, is_shared, latency, read_measures


@dataclass(frozen=True)
class Ledger:
    """All measures of all runs.

    Args:
        study: Whose runs they are.
    """

    study: Study

    @cached_property
    def measured(self) -> Sheet:
        """By name of the run."""
        return read_measures(self.study)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per planned run, in the order of the plan; all have the same columns, None where a run has no value."""
        names = dict.fromkeys(name for found in self.measured.values() for name in found)
        alone = {name: latency(self.study, name) for name in self.study.variants}
        rows = []
        for run in self.study.runs:
            found, once = self.measured[run.name], alone[run.variant]
            row = {**self._origin(run), **{name: found.get(name) for name in names}}
            rows.append({**row, "latency_ms": None if once is None else once[0]})
        return rows

    @cached_property
    def _by_variant(self) -> Mapping[str, list[dict[str, Any]]]:
        return {name: [r for r in self.rows if r["variant"] == name and r["status"] == "done"] for name in self.study.variants}

    def values(self, variant: str, name: str) -> list[float]:
        """A measure of a variant's finished runs by seed, without those that have none."""
        found = (row.get(name) for row in self._by_variant[variant])
        return [value for value in found if value is not None]

    def mean(self, variant: str, name: str) -> float | None:
        """Mean of ``values``; None where there are none."""
        values = self.values(variant, name)
        return statistics.fmean(values) if values else None

    def sd(self, variant: str, name: str) -> float | None:
        """Standard deviation of ``values`` (n - 1); None for fewer than two."""
        values = self.values(variant, name)
        return statistics.stdev(values) if len(values) > 1 else None

    def shared(self, variant: str) -> bool:
        """Whether some run of the variant had its device not for itself, so that its seconds mean little."""
        return any(row["shared_device"] for row in self._by_variant[variant])

    @property
    def table(self) -> Table:
        """What ``report.csv`` holds."""
        columns = [Column(name, lambda row, name=name: str(row[name])) for name in (self.rows[0] if self.rows else {})]
        return Table("report", "Every planned run.", columns, self.rows)

    def _origin(self, run: Run) -> dict[str, Any]:
        made = digests(run)
        return {
            "variant": run.variant,
            "label": self.study.variants[run.variant].label,
            "seed": run.seed,
            "round": run.round,
            "status": run.status,
            "code": (run.result.get("error") or {}).get("code"),
            "folder": run.name,
            **{f"{what}_digest": made.get(what) for what in ("config", "code", "data")},
            "device": run.result.get("device"),
            "precision": run.result.get("precision"),
            "shared_device": is_shared(run),
        }


def digests(run: Run) -> Mapping[str, str]:
    """Of configuration, code and data, as far as the run has begun."""
    found = run.result.get("digests")
    path = run.folder / "digests.json"
    try:
        return found or (storage.read_json(path) if path.is_file() else {})
    except LabError:
        return {}
