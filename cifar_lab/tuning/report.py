"""What a person sees of a search: a line per trial that ends, then the best of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from cifar_lab import storage
from cifar_lab.display import duration, say, table_console
from cifar_lab.tuning.desk import Desk, ended, trial_folder, what_failed
from cifar_lab.tuning.search import Search

_SHOWN = 10
_LEAST_FOR_IMPORTANCE = 10


class Progress:
    """Says how trials end, whichever command runs them.

    Args:
        desk: Of the search.
        most: Trials of the whole search.
    """

    def __init__(self, desk: Desk, most: int):
        self._desk, self._most = desk, most
        self._said = {trial.number for trial in ended(desk.trials())}

    def look(self) -> None:
        """Say what has ended since the last look."""
        trials = self._desk.trials()
        for trial in ended(trials):
            if trial.number not in self._said:
                self._said.add(trial.number)
                say(f"[{len(self._said)}/{self._most}] trial {trial.number:04d}: {self._words(trial, trials)}")

    def _words(self, trial: Any, trials: Sequence[Any]) -> str:
        search = self._desk.search
        found = best(search, trials)
        mark = " (best)" if found is not None and found.number == trial.number else ""
        own = " ".join(search.space.overrides(trial.params)) if trial.params else ""
        seconds = duration((trial.datetime_complete - trial.datetime_start).total_seconds())
        return f"{how_it_ended(search, trial)}{mark}, {own}, {seconds}"


def how_it_ended(search: Search, trial: Any) -> str:
    """``val_accuracy 93.10 %``, ``pruned after epoch 3`` or what made it fail."""
    if trial.state.name == "COMPLETE":
        return f"{search.metric} {in_words(search, trial.value)}"
    if trial.state.name == "PRUNED":
        last = max(trial.intermediate_values, default=0)
        return f"pruned after epoch {last} at {in_words(search, trial.intermediate_values.get(last))}"
    return what_failed(trial)


def in_words(search: Search, value: float | None) -> str:
    """A value of the metric as a person reads it."""
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if search.measure == "accuracy" else f"{value:.4f}"


def best(search: Search, trials: Sequence[Any]) -> Any | None:
    """The completed trial with the best value, the first of equal ones; None where none was completed."""
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    sign = -1.0 if search.direction == "maximize" else 1.0
    return min(done, key=lambda trial: (sign * trial.value, trial.number), default=None)


def show_trials(desk: Desk) -> None:
    """Print the best trials, how all of them ended, and what mattered."""
    search, trials = desk.search, desk.trials()
    sign = -1.0 if search.direction == "maximize" else 1.0
    done = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: (sign * t.value, t.number))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("trial", search.metric, *(d.key for d in search.space.dimensions), "epochs", "training"):
        table.add_column(escape(head), justify="left" if head == "trial" else "right", overflow="fold")
    for trial in done[:_SHOWN]:
        result = storage.read_json(trial_folder(desk.where, trial.number) / "result.json")
        values = (_short(trial.params[d.key]) for d in search.space.dimensions)
        row = (f"{trial.number:04d}", in_words(search, trial.value), *values, str(result["epochs_done"]))
        table.add_row(*map(escape, row), duration(result["cost"]["train_s"]))
    table_console().print(table)
    say(counts(trials))
    if len(done) >= _LEAST_FOR_IMPORTANCE and (shares := _importances(desk)):
        say("how much each key mattered among these trials: " + ", ".join(f"{key} {100 * v:.0f} %" for key, v in shares.items()))


def counts(trials: Sequence[Any]) -> str:
    """``30 trials: 18 done, 10 pruned, 2 failed (2 E-DIVERGED)``."""
    names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}
    found = Counter(names.get(trial.state.name, "unfinished") for trial in trials)
    text = ", ".join(f"{found[name]} {name}" for name in ("done", "pruned", "failed", "unfinished") if found[name])
    codes = Counter(what_failed(trial).partition(" ")[0] for trial in trials if trial.state.name == "FAIL")
    return f"{len(trials)} trials: {text or 'none begun'}" + (
        f" ({', '.join(f'{n} {c}' for c, n in codes.items())})" if codes else ""
    )


def _importances(desk: Desk) -> dict[str, float]:
    """Optuna's shares that sum to one; empty where it cannot tell, such as when all values are equal."""
    import optuna

    try:
        shares = optuna.importance.get_param_importances(desk.study)
    except (RuntimeError, ValueError, ZeroDivisionError):
        return {}
    return {key: share for key, share in shares.items() if share == share}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
