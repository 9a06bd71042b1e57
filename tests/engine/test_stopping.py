"""The best epoch, patience and convergence, by cases worked out by hand."""

import json
import math

import pytest
from engine_rig import train_config

from cifar_lab.engine.stopping import Stopper


def watch(values, monitor="val_loss", **settings):
    """Show the values epoch by epoch; the epochs that were best and the epoch that ended it."""
    stopper, config = Stopper(), train_config(monitor=monitor, **settings)
    best, end = [], None
    for epoch, value in enumerate(values, 1):
        if stopper.see(epoch, {monitor: value}, config):
            best.append(epoch)
        if stopper.reason and end is None:
            end = epoch
    return stopper, best, end


def test_lower_losses_and_higher_accuracies_are_better():
    assert watch([3.0, 2.0, 2.5, 1.0])[1] == [1, 2, 4]
    assert watch([0.1, 0.3, 0.2, 0.4], monitor="val_accuracy")[1] == [1, 2, 4]
    assert watch([0.1, 0.3, 0.2], monitor="train_accuracy")[1] == [1, 2]


def test_an_equal_value_is_not_better():
    stopper, best, _ = watch([0.5, 0.5, 0.5], monitor="val_accuracy")
    assert best == [1]
    assert (stopper.best, stopper.best_epoch) == (0.5, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_what_is_not_finite_is_never_best(bad, monitor):
    stopper, best, _ = watch([bad, 0.5, bad], monitor=monitor)
    assert best == [2]
    assert (stopper.best, stopper.best_epoch) == (0.5, 2)
    assert watch([bad, bad], monitor=monitor)[0].best is None


@pytest.mark.parametrize(
    ("values", "patience", "end"),
    [
        ([3, 2, 2, 2, 2], 2, 4),  # two epochs after the second
        ([3, 2, 2, 1, 1, 1], 2, 6),
        ([3, 2, 2.5, 1.5, 2, 2], 3, None),
        ([1, 2], 1, 2),
        ([3, 3, 3, 3], 0, None),
        ([math.nan] * 4, 3, 3),
    ],
)
def test_patience(values, patience, end):
    assert watch(values, patience_epochs=patience)[2] == end


def test_a_gain_of_no_more_than_min_delta_does_not_feed_patience_but_is_best():
    # 1.0 is the mark; 0.95 and 0.90 gain no more than 0.1 on it, 0.875 does.
    stopper, best, end = watch([1.0, 0.95, 0.9, 0.875], patience_epochs=3, min_delta=0.1)
    assert best == [1, 2, 3, 4]
    assert end is None
    assert (stopper.mark, stopper.mark_epoch) == (0.875, 4)
    assert watch([1.0, 0.95, 0.92, 0.91], patience_epochs=3, min_delta=0.1)[2] == 4
    # exactly min_delta better is not better by more
    assert watch([1.0, 0.5], patience_epochs=1, min_delta=0.5)[2] == 2


def test_patience_counts_epochs_also_where_only_some_are_measured():
    stopper, config = Stopper(), train_config(monitor="val_loss", patience_epochs=4)
    for epoch in range(1, 10):
        stopper.see(epoch, {"train_loss": 1.0}, config)
        if epoch % 3 == 0:
            stopper.see(epoch, {"val_loss": 1.0}, config)
        if stopper.reason:
            break
    assert epoch == 9  # the mark is of epoch 3; at epoch 6 three have passed, at epoch 9 six
    assert stopper.reason == "val_loss is no better since epoch 3 (train.patience_epochs=4)"


def test_a_reason_says_what_it_is():
    assert watch([1, 1, 1], patience_epochs=2)[0].reason == "val_loss is no better since epoch 1 (train.patience_epochs=2)"
    assert "no better than nothing" in watch([math.nan], patience_epochs=1)[0].reason


@pytest.mark.parametrize(
    ("losses", "window", "tolerance", "end"),
    [
        ([4, 3, 2, 1], 1, 0.01, None),
        ([4, 4], 1, 0.01, 2),
        ([1.0, 0.995], 1, 0.01, 2),  # fell by 0.5 %
        ([1.0, 0.98], 1, 0.01, None),  # fell by 2 %
        ([4, 2, 3, 3, 3, 3], 2, 0.01, 4),  # means 3 and 3
        ([8, 4, 3, 2, 2, 2.6, 2.4], 2, 0.01, 7),  # means 6 -> 2.5, 3.5 -> 2, 2.5 -> 2.3, then 2 -> 2.5
        ([1, 2], 1, 0.0, 2),  # a rise is no fall
        ([0.0, 0.0], 1, 0.01, 2),
        ([1, 1, 1], 2, 0.01, None),  # too few
    ],
)
def test_convergence(losses, window, tolerance, end):
    stopper, config = Stopper(), train_config(convergence_epochs=window, convergence_tolerance=tolerance)
    ended = None
    for epoch, loss in enumerate(losses, 1):
        stopper.see(epoch, {"train_loss": loss}, config)
        if stopper.reason and ended is None:
            ended = epoch
    assert ended == end
    assert len(stopper.losses) == min(len(losses), 2 * window)


def test_a_copy_is_judged_alone():
    stopper, _, _ = watch([1.0])
    config = train_config(monitor="val_loss", convergence_epochs=2)
    copy = stopper.copy()
    copy.see(2, {"train_loss": 0.5}, config)
    copy.see(2, {"val_loss": 0.5}, config)
    assert (stopper.best, stopper.losses) == (1.0, [])
    assert (copy.best, copy.losses) == (0.5, [0.5])


def test_state_goes_through_json_and_nothing_may_be_missing():
    stopper, _, _ = watch([1.0, 0.1 + 0.2, math.nan], patience_epochs=1)
    other = Stopper()
    state = json.loads(json.dumps(stopper.state_dict(), allow_nan=False))
    other.load_state_dict(state)
    assert other == stopper
    for key in state:
        with pytest.raises(KeyError):
            Stopper().load_state_dict({k: v for k, v in state.items() if k != key})
