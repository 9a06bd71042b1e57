"""The numbers of a comparison as tables: runs, pairs, classes."""

from collections.abc import Callable, Sequence
from typing import Any

from cifar_lab import stats
from cifar_lab.analysis.tradeoff import short_count
from cifar_lab.analysis.typeset import Column, Row, Table
from cifar_lab.comparing.entries import MEASURES, Entry
from cifar_lab.comparing.pairs import Pair, p_text

BEST = {
    "test_accuracy": ("most accurate", max),
    "num_params": ("smallest", min),
    "macs": ("fewest MACs", min),
    "train_s": ("fastest to train", min),
    "latency_ms": ("fastest to answer", min),
    "peak_memory_mib": ("least memory", min),
}
BEST_RULE = (
    "best for: highest mean test accuracy, fewest parameters, fewest MACs, shortest training, lowest latency, least peak memory;"
    " equals share a word, and where all are equal nobody gets it. Seconds and memory count only where all runs were"
    " measured alike: device, threads, precision, and no run beside others on the same device."
)
DASH = "-"
SHARED = "*: other runs had the same device at the same time."
"""What ``marked`` means, for captions."""


def machine(entry: Entry) -> set[tuple[Any, ...]]:
    """What times and memory depend on, of each run."""
    found = set()
    for run in entry.runs:
        environment = run.result["environment"]
        name = (environment.get("gpu") or {}).get("name") or environment.get("cpu")
        found.add((run.result["device"], name, environment.get("threads"), run.result["precision"]))
    return found


def best_for(entries: Sequence[Entry]) -> list[list[str]]:
    """Words for each entry by the stated rule."""
    one_machine = len(set().union(*(machine(entry) for entry in entries))) == 1
    alike = one_machine and not any(entry.is_shared for entry in entries)
    words: list[list[str]] = [[] for _ in entries]
    for measure, (word, best) in BEST.items():
        means = [entry.mean(measure) for entry in entries]
        if None in means or (measure in ("train_s", "latency_ms", "peak_memory_mib") and not alike):
            continue
        values = [value for value in means if value is not None]
        if len(set(values)) == 1:
            continue  # all alike: no reason to choose one
        for own, value in zip(words, values, strict=True):
            if value == best(values):
                own.append(word)
    return words


def runs_table(entries: Sequence[Entry]) -> Table:
    """A row per entry: accuracy with its interval or spread, macro measures, cost, and what it is best for."""
    rows = []
    for entry, words in zip(entries, best_for(entries), strict=True):
        row: dict[str, Any] = {"run": entry.label, "n": len(entry.runs), "seeds": " ".join(map(str, entry.seeds))}
        low, high = accuracy_interval(entry)
        for measure in MEASURES:
            row[measure] = entry.mean(measure)
            row[f"{measure}_sd"] = entry.sd(measure)
            if measure == "test_accuracy":
                row |= {"test_accuracy_low": low, "test_accuracy_high": high}
        row["shared_device"] = entry.is_shared
        rows.append({**row, "best_for": ", ".join(words), "folders": " ".join(str(run.path) for run in entry.runs)})
    several = any(len(entry.runs) > 1 for entry in entries)
    columns = [
        Column("run", lambda row: row["run"], is_number=False),
        *([Column("n", lambda row: str(row["n"]))] if several else []),
        Column("accuracy", _accuracy),
        Column("precision", _fraction("precision_macro")),
        Column("recall", _fraction("recall_macro")),
        Column("F1", _fraction("f1_macro")),
        Column("training", lambda row: marked(duration(row["train_s"]), row["shared_device"])),
        Column("epochs", lambda row: f"{row['epochs']:.0f}"),
        Column("parameters", lambda row: f"{row['num_params']:,.0f}"),
        Column("MACs", lambda row: short_count(row["macs"])),
        *([Column("latency", _measured("latency_ms", "ms"))] if _any(rows, "latency_ms") else []),
        *([Column("peak memory", _measured("peak_memory_mib", "MiB"))] if _any(rows, "peak_memory_mib") else []),
        Column("best for", lambda row: row["best_for"] or DASH, is_number=False),
    ]
    means = " Means ± standard deviations over n seeds." if several else ""
    caption = (
        "Test accuracy (with its 95 % Wilson interval), macro precision, recall and F1, and cost. Training with validation."
        f" MACs of one image{', latency of one image (median)' if _any(rows, 'latency_ms') else ''}.{means}"
    )
    if any(entry.is_shared for entry in entries):
        caption += f" {SHARED}"
    return Table("runs", caption, columns, rows)


def accuracy_interval(entry: Entry) -> tuple[float, float]:
    """Wilson's interval of a single run; for several, one standard deviation to both sides of the mean."""
    if len(entry.runs) > 1:
        mean, sd = entry.mean("test_accuracy") or 0.0, entry.sd("test_accuracy") or 0.0
        return mean - sd, mean + sd
    run = entry.runs[0]
    found = stats.wilson(int((run.predicted() == run.labels()).sum()), len(run.labels()))
    return found.low, found.high


def pairs_table(pairs: Sequence[Pair]) -> Table:
    """A row per pair: who gets right what, difference, interval, p."""
    sides = {pair.names: pair.sides for pair in pairs}
    columns = [
        Column("first", lambda row: sides[row["first"], row["second"]][0], is_number=False),
        Column("second", lambda row: sides[row["first"], row["second"]][1], is_number=False),
        Column("only first right", lambda row: f"{row['only_first_right']:,}"),
        Column("only second right", lambda row: f"{row['only_second_right']:,}"),
        Column("difference", lambda row: points(row["difference"])),
        Column("95 % interval", lambda row: f"{points(row['difference_low'])} to {points(row['difference_high'])}"),
        Column("p (Holm)" if len(pairs) > 1 else "p", lambda row: p_text(row["mcnemar_p_holm"])[2:].removeprefix("= ")),
    ]
    caption = (
        "Differences of test accuracy in percentage points, first less second, on the same images: Tango's 95 % interval"
        f" and McNemar's exact test{', corrected by Holm for the number of pairs' if len(pairs) > 1 else ''}."
    )
    if any(pair.of_several for pair in pairs):
        caption += " Where a side has several seeds, these are of the one in brackets."
    if any(pair.mean_interval for pair in pairs):
        columns.append(Column("mean over shared seeds", _over_seeds))
        caption += " The mean over shared seeds is of the configurations, with its 95 % t interval."
    return Table("pairs", caption, columns, [pair.plain() for pair in pairs])


def classes_table(pair: Pair, class_names: Sequence[str]) -> Table:
    """Recall of every class on both sides, and the difference with Tango's interval."""
    labels = pair.runs[0].labels()
    right = [run.predicted() == run.labels() for run in pair.runs]
    rows = []
    for k, name in enumerate(class_names):
        own = labels == k
        if not own.any():
            continue
        counts = stats.paired_counts(right[0][own], right[1][own])
        interval = stats.paired_difference(counts)
        rows.append(
            {
                "class": name,
                "images": counts.images,
                "first_seed": pair.seeds[0],
                "second_seed": pair.seeds[1],
                "recall_first": float(right[0][own].mean()),
                "recall_second": float(right[1][own].mean()),
                "difference": counts.difference,
                "difference_low": interval.low,
                "difference_high": interval.high,
            }
        )
    columns = [
        Column("class", lambda row: row["class"], is_number=False),
        Column("images", lambda row: f"{row['images']:,}"),
        Column(pair.sides[0], _fraction("recall_first")),
        Column(pair.sides[1], _fraction("recall_second")),
        Column("difference", lambda row: points(row["difference"])),
        Column("95 % interval", lambda row: f"{points(row['difference_low'])} to {points(row['difference_high'])}"),
    ]
    of = f", {' and '.join(pair.sides)}" if pair.of_several else ""
    caption = f"Recall of each class in percent{of}, and the difference in percentage points with its 95 % interval (Tango)."
    return Table("classes", f"{caption} Intervals are of one class each, not corrected for their number.", columns, rows)


def points(difference: float) -> str:
    """A signed difference of accuracies in percentage points."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def marked(text: str, is_shared: bool) -> str:
    """A time or a peak of memory; see ``SHARED``."""
    return f"{text}*" if is_shared and text != DASH else text


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, by size."""
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _accuracy(row: Row) -> str:
    mean = f"{100 * row['test_accuracy']:.2f}"
    if row["n"] > 1:
        return f"{mean} ± {100 * row['test_accuracy_sd']:.2f} %"
    return f"{mean} % ({100 * row['test_accuracy_low']:.1f} to {100 * row['test_accuracy_high']:.1f})"


def _measured(name: str, unit: str) -> Callable[[Row], str]:
    return lambda row: marked(_unit(row[name], unit), row["shared_device"])


def _fraction(name: str) -> Callable[[Row], str]:
    return lambda row: f"{100 * row[name]:.2f} %"


def _unit(value: float | None, unit: str) -> str:
    return DASH if value is None else f"{value:,.2f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def _any(rows: Sequence[Row], name: str) -> bool:
    return any(row[name] is not None for row in rows)


def _over_seeds(row: Row) -> str:
    if row["mean_difference"] is None:
        return DASH
    ends = f"{points(row['mean_difference_low'])} to {points(row['mean_difference_high'])}"
    return f"{points(row['mean_difference'])} ({ends}, n = {row['shared_seeds']})"
