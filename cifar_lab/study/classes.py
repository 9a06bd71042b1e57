"""Claims about classes: which are recognised least, and what they are taken for; judged by in how many seeds it is so."""

from collections.abc import Mapping, Sequence

import numpy as np

from cifar_lab.stats import Interval, clopper_pearson
from cifar_lab.study.design import Variant
from cifar_lab.study.images import confusion_counts, load_answers
from cifar_lab.study.measures import RECALL, Sheet, classes_of_run
from cifar_lab.study.relations import INCONCLUSIVE, judge_share

Judged = tuple[str, float | None, Interval | None, str]
"""Verdict, share of seeds, its interval and words."""


def judge_worst(variant: Variant, classes: Sequence[str], sheet: Sheet) -> Judged:
    """Whether exactly these classes have the lowest test recalls in most seeds; in no order, and not shared with another class.

    The interval is that of Clopper and Pearson of the share of seeds: above one half the claim is supported, below it refuted.
    That takes six seeds or more.
    """
    rows = [_recalls(sheet[run.name]) for run in variant.done.values()]
    rows = [row for row in rows if row]
    if not rows:
        return INCONCLUSIVE, None, None, "no run is done"
    hits = sum(_are_worst(row, classes) for row in rows)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    lowest = sorted(means, key=lambda name: means[name])[: len(classes) + 1]
    shown = ", ".join(f"{name} {100 * means[name]:.1f} %" for name in lowest)
    words = f"{', '.join(classes)} have the lowest recalls in {hits} of {len(rows)} seeds; lowest on average: {shown}"
    return _by_share(hits, len(rows), words)


def judge_confused(variant: Variant, classes: Sequence[str]) -> Judged:
    """Whether the first class, where it is not recognised, is taken for the second most often, in most seeds."""
    true, taken = classes
    rows = []
    for run in variant.done.values():
        answers = load_answers(run)
        names = classes_of_run(run)
        if answers is not None and true in names and taken in names:
            row = confusion_counts(answers, len(names))[names.index(true)]
            rows.append({name: int(count) for name, count in zip(names, row, strict=True) if name != true})
    if not rows:
        return INCONCLUSIVE, None, None, "no run that is done has saved its answers"
    hits = sum(all(row[taken] > count for name, count in row.items() if name != taken) for row in rows)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    ahead = sorted((name for name in means if means[name] > means[taken]), key=lambda name: -means[name])
    words = f"{true} -> {taken} {means[taken]:.3g} a run, "
    words += _listed("behind", ahead[:3], means) if ahead else _runner_up(taken, means)
    left_out = len(variant.done) - len(rows)
    words += f"; most frequent in {hits} of {len(rows)} seeds" + (f" ({left_out} without saved answers)" if left_out else "")
    return _by_share(hits, len(rows), words)


def _by_share(hits: int, n: int, words: str) -> Judged:
    share, interval = hits / n, clopper_pearson(hits, n)
    if n < 2:
        return INCONCLUSIVE, share, None, f"{words}; n = 1 cannot decide: one seed does not show how much seeds differ"
    shown = f"share of seeds {100 * interval.low:.0f} to {100 * interval.high:.0f} % (95 %), n = {n}"
    return judge_share(interval), share, interval, f"{words}; {shown}"


def _are_worst(recalls: dict[str, float], classes: Sequence[str]) -> bool:
    rest = [value for name, value in recalls.items() if name not in classes]
    return bool(rest) and max(recalls[name] for name in classes) < min(rest)


def _recalls(measured: Mapping[str, float | None]) -> dict[str, float]:
    found = {key.removeprefix(RECALL): value for key, value in measured.items() if key.startswith(RECALL)}
    return {name: value for name, value in found.items() if name != "macro" and value is not None}


def _runner_up(taken: str, means: dict[str, float]) -> str:
    rest = sorted((name for name in means if name != taken), key=lambda name: -means[name])
    return _listed("ahead of", rest[:2], means)


def _listed(head: str, names: Sequence[str], means: dict[str, float]) -> str:
    return f"{head} " + " and ".join(f"{name} {means[name]:.3g}" for name in names)
