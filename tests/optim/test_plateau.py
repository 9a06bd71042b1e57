"""Reduce-on-plateau against torch's, on any series of results, and continued from a saved state."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from cifar_lab.optim.schedules import build_schedule

LR = 0.2
VALUES = st.lists(st.sampled_from([0.1, 0.5, 0.9, 0.9001, 0.91, 1.0, 1.5, float("nan")]), min_size=1, max_size=40)
KEYWORDS = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 1e-4, 0.05]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.01, 0.2]),
    }
)


def build(**keywords):
    return build_schedule("plateau", lr=LR, total_steps=400, steps_per_epoch=10, **keywords)


def rates(schedule, monitor: str, values: list[float]) -> list[float]:
    found = []
    for epoch, value in enumerate(values):
        schedule.observe({"epoch": epoch, monitor: value})
        found.append(LR * schedule((epoch + 1) * 10))
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(values=VALUES, keywords=KEYWORDS, monitor=st.sampled_from(["val_loss", "train_loss", "val_accuracy", "train_accuracy"]))
def test_equals_torch(values, keywords, monitor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, "max" if monitor.endswith("accuracy") else "min", **keywords)
    expected = []
    for value in values:
        theirs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates(build(monitor=monitor, **keywords), monitor, values) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=VALUES, keywords=KEYWORDS, cut=st.integers(0, 40))
def test_a_restored_one_goes_on_identically(values, keywords, cut):
    whole = rates(build(**keywords), "val_loss", values)
    first = build(**keywords)
    before = rates(first, "val_loss", values[:cut])
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))  # as a checkpoint holds it
    second = build(**keywords)
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    assert before + rates(second, "val_loss", values[cut:]) == whole


def test_published_behaviour_in_words():
    ours = rates(build(patience=2), "val_loss", [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    assert ours == pytest.approx([0.2, 0.2, 0.2, 0.02, 0.02, 0.02, 0.02, 0.002])


def test_warmup_multiplies_and_reductions_stay_under_it():
    schedule = build(patience=0, warmup_epochs=2)
    rates(schedule, "val_loss", [1.0, 1.0])
    assert [schedule(step) for step in (0, 19, 20, 399)] == pytest.approx([0.1 / 20, 0.1, 0.1, 0.1])


def test_epochs_without_an_evaluation_do_not_count():
    schedule = build(patience=0)
    schedule.observe({"val_loss": 1.0})
    before = schedule.state_dict()
    for row in ({"val_loss": None}, {"train_loss": 0.5}, {}):
        schedule.observe(row)
    assert schedule.state_dict() == before


def test_a_foreign_state_is_an_error():
    state = build().state_dict()
    state.pop("best")
    with pytest.raises(
        ValueError, match=r"^schedule state has \['bad_evaluations', 'cooldown_left', 'reduced_lr'\], expected \["
    ):
        build().load_state_dict(state)
