"""Numbers as a reader meets them: percent and points for shares, units for the rest, and the words for a verdict."""

import math
from collections.abc import Sequence

from cifar_lab.analysis.tradeoff import short_count
from cifar_lab.stats import Interval
from cifar_lab.study.measures import METRICS, RECALL

DASH = "–"
MARKS = {"better": "▲", "worse": "▼", "equivalent": "■", "no evidence": "○", "": "·"}
"""A shape for each verdict, so that none is told by color alone."""

_SHARES = {"test_accuracy", "val_accuracy", "test_ece", "f1_macro", "precision_macro"}


def metric_name(metric: str) -> str:
    """A column of report.csv in words: ``test accuracy``."""
    if metric in METRICS:
        return METRICS[metric]
    return f"recall of {metric.removeprefix(RECALL)}" if metric.startswith(RECALL) else metric.replace("_", " ")


def is_share(metric: str) -> bool:
    """Whether a column holds fractions, which are printed in percent."""
    return metric in _SHARES or metric.startswith(RECALL)


def scale(metric: str) -> float:
    """What a value is multiplied with before it is printed or drawn."""
    return 100.0 if is_share(metric) else 1.0


def unit(metric: str, *, difference: bool = False) -> str:
    """``%`` or ``points`` for shares; empty for the others, whose name says what they count."""
    return "" if not is_share(metric) else "points" if difference else "%"


def axis(metric: str, *, difference: bool = False) -> str:
    """What stands at an axis."""
    name, counted = metric_name(metric), unit(metric, difference=difference)
    return f"{f'difference of {name} to the baseline' if difference else name}{f' ({counted})' if counted else ''}"


def value(metric: str, number: float | None) -> str:
    """A value without its unit, in as many digits as it deserves."""
    if number is None or not math.isfinite(number):
        return DASH
    number *= scale(metric)
    if is_share(metric):
        return f"{number:.2f}"
    if metric in ("macs", "num_params") or metric.startswith("images_to_"):
        return short_count(number)
    return plain(number)


def plain(number: float) -> str:
    """Three digits, or all of a larger whole number."""
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:#.3g}"


def difference(metric: str, number: float | None) -> str:
    """A signed difference without its unit; its minus sign is as wide as the plus."""
    if number is None or not math.isfinite(number):
        return DASH
    number *= scale(metric)
    text = f"{number:+.2f}" if is_share(metric) else f"{number:+,.0f}" if abs(number) >= 1000 else f"{number:+.3g}"
    return text.replace("-", "−")


def ends(metric: str, interval: Interval | Sequence[float] | None) -> str:
    """An interval of differences: ``−0.20 to +1.10``."""
    return DASH if interval is None else f"{difference(metric, interval[0])} to {difference(metric, interval[1])}"


def margin(metric: str, size: float) -> str:
    """What would matter: ``±0.5 points``."""
    number = size * scale(metric)
    return f"±{number:.3g} {unit(metric, difference=True)}".rstrip()


def mean_sd(metric: str, mean: float | None, sd: float | None) -> str:
    """``91.20 ± 0.15``; without a standard deviation, the mean alone."""
    if mean is None:
        return DASH
    return value(metric, mean) if sd is None else f"{value(metric, mean)} ± {value(metric, sd)}"


def p_text(p: float | None) -> str:
    """A p value that is never shown as nothing."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(word: str) -> str:
    """A verdict with its shape; ``not judged`` where there is none."""
    return f"{MARKS.get(word, MARKS[''])} {word or 'not judged'}"


def listed(parts: Sequence[str], most: int = 5) -> str:
    """``a, b and c``; of many the first ones and how many more there are."""
    parts = list(parts)
    if len(parts) > most:
        parts = [*parts[: most - 1], f"{len(parts) - most + 1} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
