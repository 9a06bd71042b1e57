"""What a sweep will take and what it can show, before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEED_SD = 0.003
"""Assumed standard deviation of accuracy between seeds, as a fraction, where no runs say: 0.1 to 0.3 points are usual at 93 %."""


@dataclass(frozen=True)
class Effort:
    """Time and disk.

    Args:
        seconds: Of everything that is left to do; None where it cannot be known.
        size_bytes: On the disk; None where it cannot be known.
        unknown: Names of variants whose time is not known.
    """

    seconds: float | None
    size_bytes: int | None
    unknown: tuple[str, ...] = ()


def estimate(counts: Mapping[str, int], facts: Mapping[str, Mapping[str, Any]], workers: int, overhead_s: float = 1.0) -> Effort:
    """Expected time and disk of the runs that are left.

    The longest run bounds the time from below, however many workers there are.

    Args:
        counts: Runs left of each variant.
        facts: Of each variant ``train_s`` and ``bytes``, as far as known.
        workers: Runs at once.
        overhead_s: Seconds that a run takes beside its training.
    """
    wanted = {name: count for name, count in counts.items() if count}
    unknown = tuple(name for name in wanted if facts.get(name, {}).get("train_s") is None)
    known = {name: facts[name]["train_s"] + overhead_s for name in wanted if name not in unknown}
    seconds = None
    if known and not unknown:
        seconds = max(sum(known[name] * wanted[name] for name in known) / max(1, workers), *known.values())
    sizes = {name: facts.get(name, {}).get("bytes") for name in wanted}
    size = None if None in sizes.values() else sum((sizes[name] or 0) * count for name, count in wanted.items())
    return Effort(seconds, size, unknown)


def readable_size(size: float) -> str:
    """Bytes as MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def power_lines(
    seeds: int, comparisons: int, smallest_p: float | None, detectable: float | None, sd: float, *, measured: bool
) -> list[str]:
    """What so many seeds can show.

    Args:
        seeds: Of each variant.
        comparisons: With the baseline.
        smallest_p: Smallest p, after correction, that the test can give; None for fewer than two seeds.
        detectable: Smallest difference of accuracy found in four studies of five; None where none can be.
        sd: Standard deviation between seeds that it was computed with.
        measured: Whether that comes from runs that are done.
    """
    if not comparisons:
        return [f"{seeds} seeds of one variant: a mean and its interval, no comparison"]
    if smallest_p is None or seeds < 2:
        return ["n = 1: differences will be shown without a verdict; seed=range(0,5) gives five seeds"]
    best = f"the smallest p that can come out is {min(1.0, smallest_p):.2g} after correction"
    lines = [f"{seeds} seeds, {comparisons} comparisons: {best}"]
    if smallest_p >= 0.05:
        lines.append(f"n = {seeds} cannot decide this: no p below 0.05 is possible; more seeds or fewer variants can")
    origin = "as the runs that are done do" if measured else "which is an assumption"
    if detectable is not None:
        lines.append(
            f"if accuracy varies by {100 * sd:.2f} points (sd) between seeds, {origin}, "
            f"a difference of {100 * detectable:.2f} points is found in four studies of five"
        )
    return lines
