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
from cifar_lab.study.measures import measures

ORIGIN = (
    "variant",
    "label",
    "seed",
    "round",
    "status",
    "code",
    "folder",
    "config_digest",
    "code_digest",
    "data_digest",
    "device",
)
"""Columns that say whose numbers the row holds."""


@dataclass(frozen=True)
class Ledger:
    """All measures of all runs.

    Args:
        study: Whose runs they are.
    """

    study: Study

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per planned run, in the order of the plan; all have the same columns, None where a run has no value."""
        found = [(run, measures(run)) for run in self.study.runs]
        names = dict.fromkeys(name for _, measured in found for name in measured)
        latency = {name: _latency(facts) for name, facts in self.study.facts.items()}
        return [
            {**self._origin(run), **{name: measured.get(name) for name in names}, "latency_ms": latency.get(run.variant)}
            for run, measured in found
        ]

    @cached_property
    def columns(self) -> list[str]:
        """Names of the measures."""
        return [name for name in (self.rows[0] if self.rows else {}) if name not in (*ORIGIN, "precision", "shared_device")]

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
            "shared_device": bool((run.result.get("cost") or {}).get("shared", False)),
        }


def digests(run: Run) -> Mapping[str, str]:
    """Of configuration, code and data, as far as the run has begun."""
    found = run.result.get("digests")
    path = run.folder / "digests.json"
    try:
        return found or (storage.read_json(path) if path.is_file() else {})
    except LabError:
        return {}


def _latency(facts: Mapping[str, Any]) -> float | None:
    """Median milliseconds of one call with one image."""
    latency = facts.get("latency") or {}
    return latency.get("p50_ms", latency.get("batch_1", {}).get("call_ms", {}).get("p50"))
