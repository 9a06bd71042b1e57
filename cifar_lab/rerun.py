"""A run trained again from its own folder, and one line on whether it came out the same.

The configuration is the one in its config.yaml, where ``auto`` is resolved already; only places (device, threads, the
data's folder) may be others. What differs around the run (code, packages, machine, data) is listed, because that is what a
different outcome is then explained by.
"""

import io
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cifar_lab import pipeline, runs, runtime, schema, storage
from cifar_lab.config import Config, flatten, to_plain
from cifar_lab.display import say
from cifar_lab.errors import ConfigError, LabError, ResumeError
from cifar_lab.plugins import plugin_files
from cifar_lab.reference import compact
from cifar_lab.saved import SavedRun, load_run
from cifar_lab.stats import are_equal

CLOCKS = ("seconds", "train_seconds", "images_per_s")
"""Columns of metrics.jsonl that a clock wrote."""
_CONFIDENCE = 0.95
_FEW_IMAGES = 5
"""Images that one of two equally good models alone may get right by chance: McNemar's exact p is 0.06, and of six 0.03."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """How a second run compares with the first.

    Attributes:
        text: One line, with the numbers.
        reproduced: Bit for bit, or within the spread.
    """

    text: str
    reproduced: bool


def rerun(path: Path, places: Sequence[str] = (), out: Path | None = None) -> tuple[SavedRun, Verdict]:
    """Train a finished run again, into a new folder.

    Args:
        path: Run folder or folder of evidence.
        places: Overrides of places, such as ``device=cpu`` or ``data.root=DIR``.
        out: Folder of the new run; None: outputs/reruns/NAME-DIGEST, so that the same command goes on with a rerun that was
            stopped, and another run of that name, other code, places or packages begin another.

    Returns:
        The new run, and the verdict.

    Raises:
        ConfigError: An override of something that is no place, or a configuration that this version does not know.
        CheckpointError: The folder is no finished run.
        ResumeError: ``out`` holds another run, or a rerun under other conditions.
    """
    old = load_run(path)
    config = _config(old, places)
    now = _surroundings(config)
    for line in _differences_around(old, config, now):
        say(f"differs: {line}")
    seeds = siblings(old)  # read before hours of training: what is damaged around the run must not cost its verdict
    conditions = [str(old.path.resolve()), sorted(places), runs.code_digest(plugin_files()), _flat(now)]
    folder = out or Path("outputs/reruns") / f"{old.path.resolve().name}-{storage.digest(conditions)[:8]}"
    try:
        pipeline.run(config, folder, [*old.overrides, *places])
    except ResumeError as error:
        error.hint = "--out DIR makes it elsewhere"
        raise
    new = load_run(folder)
    if changed := list(_changes(_flat(new.result["environment"]), _flat(now))):  # it was there already
        raise ResumeError(f"{folder} holds a rerun under other conditions: {changed[0]}", hint="--out DIR makes another")
    if (was := old.result["digests"]["data"]) != (found := new.result["digests"]["data"]):
        say(f"differs: data ({was[:8]} -> {found[:8]})")
    return new, compare(old, new, seeds)


def _config(old: SavedRun, places: Sequence[str]) -> Config:
    """The run's configuration in other places."""
    for override in places:
        if not runs.is_place(override.partition("=")[0]):
            raise ConfigError(
                f"{override}: a rerun changes nothing but places",
                hint=f"places are {', '.join(runs.PLACES)}; `cifar-lab train` changes the rest",
            )
    fresh = "train.keep_features=false"  # else it would read what the run itself has written
    return schema.from_plain(old.config, [fresh, *places])


def _surroundings(config: Config) -> dict[str, Any]:
    """The record of this machine as the run will find it."""
    device = runtime.resolve_device(config.device)
    runtime.set_threads(config.threads)
    runtime.set_deterministic(config.train.deterministic)
    return runtime.environment_record(device)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """What may change a result: without the commit, for which the code's digest stands."""
    return {key: value for key, value in flatten(dict(record)).items() if not key.startswith(("git", "torch_build"))}


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*then, *now]):
        if then.get(key) != now.get(key):
            yield f"{key} ({then.get(key)} -> {now.get(key)})"


def _differences_around(old: SavedRun, config: Config, now: Mapping[str, Any]) -> Iterator[str]:
    """Code, packages and machine now against then; settings that have been added since."""
    then = old.result["environment"]
    if old.result["digests"]["code"] != (code := runs.code_digest(plugin_files())):
        commits = [((record.get("git") or {}).get("commit") or "no commit")[:8] for record in (then, now)]
        yield f"code ({old.result['digests']['code'][:8]} of {commits[0]} -> {code[:8]} of {commits[1]})"
    yield from _changes(_flat(then), _flat(now))
    known = flatten(old.config)
    changed = runs.differences(old.config, to_plain(config))
    yield from (f"setting {key} ({was} -> {value})" for key, was, value in changed if key in known)
    if new := [key for key in runs.comparable(to_plain(config)) if key not in known]:
        yield f"settings that there were not then, at their defaults: {', '.join(new)}"


def siblings(run: SavedRun) -> list[SavedRun]:
    """Runs beside this one that differ from it by their seed alone, one for each seed, itself included."""
    key, found = runs.without_seed(run.config), {run.config["seed"]: run}
    for folder in sorted(run.path.resolve().parent.iterdir()):
        if folder == run.path.resolve() or not (folder / "result.json").is_file():
            continue
        try:
            other = load_run(folder)
            if runs.without_seed(other.config) == key:
                found.setdefault(other.config["seed"], other)
        except LabError:  # whatever is wrong with a neighbour, it is no seed to count
            continue
    return list(found.values())


def compare(old: SavedRun, new: SavedRun, seeds: Sequence[SavedRun]) -> Verdict:
    """Bit for bit, within the spread, or not reproduced.

    Within the spread means: the new test accuracy lies in the interval in which 95 % of further seeds would lie,
    mean +- t * s * sqrt(1 + 1/n) over the seeds of the old configuration. One seed has no spread, and neither have several of
    one accuracy; then the difference must be at most what 95 % of pairs of equally good models differ by on a test set of this
    size, 1.96 * sqrt(2 p (1 - p) / N), or five images.

    Args:
        old: The first run.
        new: The second.
        seeds: Runs of the old configuration, the old one included.
    """
    before, after = (run.metrics["test"]["accuracy"] for run in (old, new))
    same_rows = _without_clocks(old.rows) == _without_clocks(new.rows)
    if same_rows and _same_predictions(old, new):
        return Verdict(f"bit for bit: {len(new.rows)} epochs and {len(new.labels()):,} test predictions are the same", True)
    center, margin, basis = _expected([run.metrics["test"]["accuracy"] for run in seeds], before, len(old.labels()))
    reproduced = abs(after - center) <= margin + _ROUNDING
    verdict = "within spread" if reproduced else "NOT reproduced"
    return Verdict(f"{verdict}: test accuracy {_percent(after)} against {_percent(before)} ({basis})", reproduced)


def _expected(accuracies: Sequence[float], before: float, num_images: int) -> tuple[float, float, str]:
    """What a further test accuracy should be, how far from it it may lie, and why."""
    count = len(accuracies)
    if count > 1 and not are_equal(accuracies):
        center, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        margin = float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * spread * math.sqrt(1 + 1 / count)
        basis = f"{count} seeds have {_percent(center)} with s = {_points(spread)}: further ones lie within {_points(margin)}"
        return center, margin, basis
    margin = float(stats.norm.ppf((1 + _CONFIDENCE) / 2)) * math.sqrt(2 * before * (1 - before) / num_images)
    margin = max(margin, _FEW_IMAGES / num_images)
    known = (
        "n = 1, so nothing is known of seeds" if count == 1 else f"{count} seeds have the same accuracy, which shows no spread"
    )
    return before, margin, f"{known}: on {num_images:,} images equally good models lie within {_points(margin)}"


def _without_clocks(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


def _same_predictions(old: SavedRun, new: SavedRun) -> bool:
    """All logits, or, of evidence, what is left of them."""
    found = new.arrays
    if not old.has_logits and new.has_logits:
        with np.load(io.BytesIO(compact(new.logits(), new.labels())), allow_pickle=False) as packed:
            found = {name: packed[name] for name in packed.files}
    return all(name in found and np.array_equal(value, found[name]) for name, value in old.arrays.items())


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} points"
