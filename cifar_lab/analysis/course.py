"""What the rows of a run say about its training, in words: the best epoch, how well it fits, whether it was over."""

from collections.abc import Sequence
from typing import Any

from cifar_lab.analysis.convergence import milestones
from cifar_lab.analysis.figures import percent
from cifar_lab.analysis.made import Run

Finding = dict[str, Any]
"""``name``, ``text``, the ``numbers`` that it is made of, and their ``source``."""

GAP = 0.05
"""Training minus validation accuracy above which a model is called overfit."""
LOW = 0.6
"""Accuracy that both have to stay below for a model that is not overfit to be called underfit."""
WINDOW = 5
"""Epochs at the end over which the fall of the loss is averaged."""
FALLING = 0.01
"""Fall of the loss per epoch above which it is called falling."""


def training_findings(run: Run) -> list[Finding]:
    """The findings of this module that apply to a run."""
    if not run.rows:
        text = "The run was not trained: its weights are those that it started with."
        return [{"name": "best_epoch", "text": text, "numbers": {"epochs": 0}, "source": "result.json: epochs_done"}]
    return [_best_epoch(run), _fit(run), _end_of_training(run), _milestones(run)]


def _best_epoch(run: Run) -> Finding:
    result, settings = run.result, run.config["train"]
    best, monitor = result["best_epoch"], settings["monitor"]
    row = next((row for row in run.rows if row["epoch"] == best), {})
    numbers = {"best_epoch": best, "epochs": result["epochs_done"], "monitor": monitor, "select": settings["select"]}
    numbers |= {key: row.get(key) for key in ("val_loss", "val_accuracy")}
    if settings["select"] == "last":
        text = f"The weights of the last epoch, {best}, were tested (train.select=last)"
    elif all(row.get(monitor) is None for row in run.rows):
        text = f"The weights of the last epoch, {best}, were tested: no {monitor} was measured that could choose another"
    else:
        extreme = "highest" if monitor.endswith("accuracy") else "lowest"
        text = f"The weights of epoch {best} of {result['epochs_done']} were tested: its {monitor} is the {extreme}"
    if numbers["val_loss"] is not None and numbers["val_accuracy"] is not None:
        text += f" (validation loss {numbers['val_loss']:.4f}, accuracy {percent(numbers['val_accuracy'])})"
    numbers["stopped_early"] = result["stopped_early"]
    text += f". Training stopped early: {result['stopped_early']}." if result["stopped_early"] else "."
    return {
        "name": "best_epoch",
        "text": text,
        "numbers": numbers,
        "source": "result.json: best_epoch, stopped_early; metrics.jsonl",
    }


def fit_status(train_accuracy: float, val_accuracy: float) -> str:
    """``overfit`` above a gap of 5 points, else ``underfit`` where both accuracies are below 60 %, else ``balanced``."""
    # Counted in 1e-9 so that a gap of 5 points is not above 5 points for the rounding of a difference.
    if train_accuracy - val_accuracy > GAP + 1e-9:
        return "overfit"
    return "underfit" if max(train_accuracy, val_accuracy) < LOW else "balanced"


def _fit(run: Run) -> Finding:
    """By accuracies measured with the tested weights on images as they are; those of the rows see augmentation and dropout."""
    metrics = run.result["metrics"]
    source = "result.json: metrics.train.accuracy, metrics.val.accuracy"
    train = metrics["train"]["accuracy"]
    if metrics["val"] is None:
        text = "Whether the model overfits cannot be said: the run has no validation images."
        return {"name": "fit", "text": text, "numbers": {"status": None, "train_accuracy": train}, "source": source}
    val = metrics["val"]["accuracy"]
    status = fit_status(train, val)
    rule = {
        "overfit": f"above {100 * GAP:.0f} points",
        "underfit": f"not above {100 * GAP:.0f} points, and both accuracies are below {100 * LOW:.0f} %",
        "balanced": f"not above {100 * GAP:.0f} points, and not both accuracies are below {100 * LOW:.0f} %",
    }
    text = (
        f"Fit: {status}. With the tested weights the training accuracy is {percent(train)} and the validation accuracy"
        f" {percent(val)}: a gap of {100 * (train - val):.1f} points, {rule[status]}."
    )
    numbers = {
        "status": status,
        "train_accuracy": train,
        "val_accuracy": val,
        "gap": train - val,
        "rule_gap": GAP,
        "rule_low": LOW,
    }
    return {"name": "fit", "text": text, "numbers": numbers, "source": source}


def fall_per_epoch(points: Sequence[tuple[int, float]]) -> tuple[float, int] | None:
    """By what share a loss fell each epoch at the end.

    Args:
        points: (epoch, loss) of the epochs in which it was measured, in order.

    Returns:
        The constant share that leads from the first loss of the window to the last, and the window's epochs; the window begins
        with the last measured epoch at least five before the end, or where there is none with the first. None with fewer than
        two points, or where a loss is not above zero.
    """
    if len(points) < 2:
        return None
    end_epoch, end = points[-1]
    begin_epoch, begin = next((p for p in reversed(points) if p[0] <= end_epoch - WINDOW), points[0])
    if begin <= 0 or end <= 0:
        return None
    return 1 - (end / begin) ** (1 / (end_epoch - begin_epoch)), end_epoch - begin_epoch


def _end_of_training(run: Run) -> Finding:
    numbers: dict[str, Any] = {"rule_window_epochs": WINDOW, "rule_fall_per_epoch": FALLING}
    parts = []
    for split, name in (("train", "training"), ("val", "validation")):
        points = [(row["epoch"], row[f"{split}_loss"]) for row in run.rows if row.get(f"{split}_loss") is not None]
        found = fall_per_epoch(points)
        numbers |= {f"{split}_falling": None, f"{split}_fall_per_epoch": None, f"{split}_window_epochs": None}
        if found is None:
            continue
        fall, window = found
        falling = fall > FALLING
        numbers |= {f"{split}_falling": falling, f"{split}_fall_per_epoch": fall, f"{split}_window_epochs": window}
        span = f"from epoch {points[-1][0] - window} to {points[-1][0]}"
        moved = f"{'fell' if fall >= 0 else 'rose'} by {100 * abs(fall):.1f} % per epoch {span}"
        state = "was still falling" if falling else "was rising" if fall < -FALLING else "had levelled off"
        parts.append(f"the {name} loss {state} (it {moved})")
    if parts:
        text = f"At the end {' and '.join(parts)}; falling and rising mean more than {100 * FALLING:.0f} % per epoch."
    else:
        text = "Whether the loss was still falling at the end cannot be said: it takes two epochs with a loss above zero."
    return {"name": "convergence", "text": text, "numbers": numbers, "source": "metrics.jsonl: train_loss, val_loss"}


def _milestones(run: Run) -> Finding:
    source = "metrics.jsonl: val_accuracy, seconds"
    measured = [row["val_accuracy"] for row in run.rows if row.get("val_accuracy") is not None]
    if not measured:
        text = "How fast it learned cannot be said: there is no validation accuracy."
        return {"name": "milestones", "text": text, "numbers": {"reached": None}, "source": source}
    images = run.result["data"]["images"]["train"]
    first = milestones(run.rows, images=images, before_s=run.result["cost"].get("features_s", 0.0))
    found = {f"{100 * row['accuracy']:.0f}": row if row["epoch"] is not None else None for row in first}
    reached = [f"{goal} % after epoch {at['epoch']} ({at['seconds']:.0f} s)" for goal, at in found.items() if at]
    missed = [goal for goal, at in found.items() if not at]
    parts = [f"reached {', '.join(reached)}"] if reached else []
    parts += [f"never reached {', '.join(missed)} % (its best is {percent(max(measured))})"] if missed else []
    text = f"Validation accuracy {'; '.join(parts)}."
    return {"name": "milestones", "text": text, "numbers": {"reached": found, "best": max(measured)}, "source": source}
