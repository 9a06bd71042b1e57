"""What `cifar-lab runs` prints: a line per run, or per configuration with mean, standard deviation and n."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from cifar_lab import storage
from cifar_lab.differing import differing, words
from cifar_lab.display import duration, table_console
from cifar_lab.errors import ConfigError
from cifar_lab.finding.filters import Filter, best_first, choose, parse_filter
from cifar_lab.finding.records import MISSING, Record, find_runs

_SHOWN = ("folder", "status", "experiment", "model", "data", "seed", "val.accuracy", "test.accuracy", "epochs", "cost.train_s")
_MEANS = ("val.accuracy", "test.accuracy", "cost.train_s")


def list_runs(
    filters: Sequence[str], *, where: Sequence[str], by_config: bool, sort: str, reverse: bool, limit: int, as_json: bool
) -> None:
    """Find, choose, order and print.

    Args:
        filters: Such as ``model=resnet18``.
        where: Folders to look below.
        by_config: Seeds of one configuration together.
        sort: Key, best first; empty: by folder.
        reverse: The other way round.
        limit: At most so many lines; 0: all.
        as_json: For programs.

    Raises:
        CheckpointError: A folder of ``where`` is none.
        ConfigError: A filter or key that means nothing.
    """
    if limit < 0:
        raise ConfigError(f"--limit {limit}; must be 0 (all) or more")
    conditions = [parse_filter(text) for text in filters]
    records = find_runs(where)
    chosen = choose(records, conditions, [sort] if sort else [])
    extra = _extra(conditions, sort, ("model", "data", *_MEANS) if by_config else _SHOWN)
    rows = _groups(chosen, extra) if by_config else [_row(record, extra) for record in chosen]
    if sort:
        rows.sort(key=lambda row: best_first(sort, row[sort]["mean"] if isinstance(row[sort], dict) else row[sort]))
    if reverse:
        # What has no value stays last.
        rows = (
            [*reversed([r for r in rows if not _empty(r, sort)]), *(r for r in rows if _empty(r, sort))] if sort else rows[::-1]
        )
    shown = rows[:limit] if limit else rows
    if as_json:
        print(json.dumps([{key: value for key, value in row.items() if key != "settings_text"} for row in shown], indent=2))
        return
    _print(shown, len(rows), len(records), extra, where, by_config=by_config)


def _empty(row: dict[str, Any], key: str) -> bool:
    value = row.get(key)
    return (value["mean"] if isinstance(value, dict) else value) is None


def _extra(conditions: Sequence[Filter], sort: str, shown: Sequence[str]) -> list[str]:
    """Keys that a person asked about and that are not shown anyway."""
    keys = dict.fromkeys([*(one.key for one in conditions), *([sort] if sort else [])])
    return [key for key in keys if key not in shown]


def _row(record: Record, extra: Sequence[str]) -> dict[str, Any]:
    """One run: what is shown of each, the keys asked about, and why it is damaged."""
    row = {key: _plain(record.value(key)) for key in (*_SHOWN, *extra)}
    row["status"] = record.status  # looking at its configuration may have found it damaged
    return {**row, "problem": _problem(record)}


def _problem(record: Record) -> str | None:
    error = record.result.get("error")
    if not record.problem and isinstance(error, dict):
        return f"{error.get('code')}: {error.get('message')}"
    return record.problem or None


def _groups(records: Sequence[Record], extra: Sequence[str]) -> list[dict[str, Any]]:
    """One row per configuration, in the order of its first folder; damaged runs are a row each."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        known = record.settings  # reading it may find the run damaged
        groups.setdefault(str(record.path) if record.problem else storage.digest(known), []).append(record)
    unlike = iter(differing([group[0].settings for group in groups.values() if not group[0].problem]))
    rows = []
    for group in groups.values():
        first = group[0]
        done = [record for record in group if record.status == "done"]
        others = Counter(record.status for record in group if record.status != "done")
        settings = {} if first.problem else next(unlike)
        row: dict[str, Any] = {
            "model": _plain(first.value("model")),
            "data": _plain(first.value("data")),
            "settings": settings,
            "settings_text": words({key: value for key, value in settings.items() if key not in ("model.name", "data.name")}),
            "n": len(done),
            "seeds": [record.value("seed") for record in done],
            "others": dict(others),
        }
        for key in dict.fromkeys((*_MEANS, *extra)):
            row[key] = _mean([record.value(key) for record in (done if key not in ("status", "folder") else group)])
        rows.append({**row, "folders": [str(record.path) for record in group], "problem": _problem(first)})
    return rows


def _mean(values: Sequence[Any]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of numbers; of anything else the value itself if all share it."""
    known = [value for value in values if value is not MISSING and value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return {"mean": statistics.fmean(known), "sd": statistics.stdev(known) if len(known) > 1 else None, "n": len(known)}
    return {"mean": known[0] if known and all(value == known[0] for value in known) else None, "sd": None, "n": len(known)}


def _plain(value: Any) -> Any:
    return None if value is MISSING else value


def _print(
    rows: Sequence[dict[str, Any]], found: int, all_runs: int, extra: Sequence[str], where: Sequence[str], *, by_config: bool
) -> None:
    console = table_console()
    places = ", ".join(map(str, where))
    if not all_runs:
        console.print(f"no runs below {places}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    heads = (
        ["model", "data", "settings", "n", "val", "test", "training"] if by_config else ["run", "model", "data", "seed", "val"]
    )
    heads += [*extra, "folders"] if by_config else ["test", "epochs", "training", *extra, "status"]
    texts = {"run", "model", "data", "settings", "folders", "status"}
    for head in heads:
        table.add_column(escape(head), justify="left" if head in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in (_group_cells(row, extra) if by_config else _run_cells(row, extra))))
    console.print(table)
    for row in rows:
        if row["problem"]:
            name = row["folders"][0] if by_config else row["folder"]
            console.print(f"{name}: {row['problem']}", markup=False, highlight=False, soft_wrap=True)
    what = "configurations" if by_config else "runs"
    limited = f"{len(rows)} of {found} {what}" if len(rows) < found else f"{found} {what}"
    console.print(f"{limited}; {all_runs} runs below {places}", markup=False, highlight=False, soft_wrap=True)


def _run_cells(row: dict[str, Any], extra: Sequence[str]) -> list[str]:
    return [
        row["folder"],
        *(_text(row[key]) for key in ("model", "data", "seed")),
        _percent(row["val.accuracy"]),
        _percent(row["test.accuracy"]),
        _text(row["epochs"]),
        "-" if row["cost.train_s"] is None else duration(row["cost.train_s"]),
        *(_text(row[key]) for key in extra),
        row["status"],
    ]


def _group_cells(row: dict[str, Any], extra: Sequence[str]) -> list[str]:
    seconds = row["cost.train_s"]["mean"]
    folders = _folders(row["folders"])
    notes = [f"{count} {status}" for status, count in row["others"].items()]
    notes += [f"seed {seed} {count} times" for seed, count in Counter(row["seeds"]).items() if count > 1]
    return [
        _text(row["model"]),
        _text(row["data"]),
        row["settings_text"] or "-",
        str(row["n"]),
        _spread(row["val.accuracy"], percent=True),
        _spread(row["test.accuracy"], percent=True),
        "-" if seconds is None else duration(seconds),
        *(_spread(row[key]) for key in extra),
        f"{folders} ({', '.join(notes)})" if notes else folders,
    ]


def _folders(paths: Sequence[str]) -> str:
    """All of them, their common parent once."""
    parents = {str(Path(path).parent) for path in paths}
    if len(paths) > 1 and len(parents) == 1:
        return f"{parents.pop()}/{{{', '.join(Path(path).name for path in paths)}}}"
    return ", ".join(paths)


def _spread(value: dict[str, Any], *, percent: bool = False) -> str:
    mean, sd = value["mean"], value["sd"]
    if mean is None or isinstance(mean, str | bool | list):
        return _text(mean)
    if percent:
        return f"{100 * mean:.2f} %" if sd is None else f"{100 * mean:.2f} ± {100 * sd:.2f} %"
    return _text(mean) if sd is None else f"{_text(mean)} ± {sd:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
