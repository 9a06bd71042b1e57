"""Schedules, step by step, against torch's schedulers and against closed forms."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from cifar_lab.optim import SCHEDULES
from cifar_lab.optim.curves import Schedule
from cifar_lab.optim.schedules import build_schedule

LR = 0.3


def build(name: str, *, epochs: int = 6, steps_per_epoch: int = 7, lr: float = LR, **keywords) -> Schedule:
    return build_schedule(name, lr=lr, total_steps=epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch, **keywords)


def rates(schedule: Schedule, steps: int, lr: float = LR) -> list[float]:
    return [lr * schedule(step) for step in range(steps)]


def torchs_rates(make, steps: int, every: int = 1, lr: float = LR) -> list[float]:
    """The learning rate of each update under a torch scheduler that is stepped every so many updates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return found


def close(expected: list[float]):
    return pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_constant():
    assert rates(build("constant"), 42) == [LR] * 42


@pytest.mark.parametrize("eta_min", [0.0, 1e-8, 0.1])
def test_cosine_equals_torch(eta_min):
    ours = rates(build("cosine", eta_min=eta_min), 42)
    assert ours == close(torchs_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 42, eta_min=eta_min), 42))


def test_cosine_ends_at_eta_min_and_stays():
    assert [LR * build("cosine", eta_min=0.01)(step) for step in (42, 60)] == close([0.01, 0.01])


def test_cosine_with_warmup_equals_torchs_sequence():
    def make(optimizer):
        # the first update has 1/14 of the rate, the 14th the whole; the cosine starts with the 15th
        warmup = lr_scheduler.LinearLR(optimizer, 1 / 14, total_iters=13)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, 28, eta_min=0.01)
        return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [14])

    assert rates(build("cosine", eta_min=0.01, warmup_epochs=2), 42) == close(torchs_rates(make, 42))


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "plateau"])
def test_warmup_is_linear_from_its_first_share_to_one(name):
    keywords = {"milestones": (5.0,)} if name == "step" else {}
    ours = [build(name, warmup_epochs=1.5, **keywords)(step) for step in range(11)]  # 10.5 steps, rounded to the even 10
    assert ours[:10] == close([(step + 1) / 10 for step in range(10)])
    assert ours[10] == 1.0


def test_step_equals_torchs_milestones():
    ours = rates(build("step", milestones=(2, 3, 5), gamma=0.2), 42)
    assert ours == close(torchs_rates(lambda o: lr_scheduler.MultiStepLR(o, [2, 3, 5], gamma=0.2), 42, every=7))


def test_step_equals_torchs_step_lr():
    ours = rates(build("step", every_epochs=2, gamma=0.5), 42)
    assert ours == close(torchs_rates(lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5), 42, every=7))


def test_step_without_milestones_drops_at_a_half_and_three_quarters():
    ours = rates(build("step", epochs=8), 56)
    assert ours == close([LR] * 28 + [LR / 10] * 14 + [LR / 100] * 14)


def test_milestones_count_from_the_start_of_the_run_whatever_the_warmup():
    with_warmup, without = build("step", milestones=(3,), warmup_epochs=2), build("step", milestones=(3,))
    assert [with_warmup(step) for step in range(14, 42)] == [without(step) for step in range(14, 42)]


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(("share", "div", "final"), [(0.3, 25.0, 1e4), (0.25, 10.0, 100.0), (0.0, 4.0, 1.0), (1.0, 4.0, 1.0)])
def test_one_cycle_equals_torch(anneal, share, div, final):
    ours = rates(build("one_cycle", warmup_share=share, div_factor=div, final_div_factor=final, anneal=anneal), 42)

    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            LR,
            total_steps=42,
            pct_start=share,
            anneal_strategy=anneal,
            div_factor=div,
            final_div_factor=final,
            cycle_momentum=False,
        )

    assert ours == close(torchs_rates(make, 42))


def test_one_cycle_rises_for_whole_epochs_when_asked():
    ours = rates(build("one_cycle", warmup_epochs=2), 42)
    assert ours == close(rates(build("one_cycle", warmup_share=14 / 42), 42))
    assert ours.index(max(ours)) == 13


@pytest.mark.parametrize(("share", "edge"), [(0.2, 0.2), (0.5, 0.01)])
def test_triangular_equals_torchs_cyclic(share, edge):
    up = math.floor(share * 42)
    ours = rates(build("triangular", warmup_share=share, start_factor=edge, end_factor=edge), 42)

    def make(optimizer):
        return lr_scheduler.CyclicLR(optimizer, LR * edge, LR, step_size_up=up, step_size_down=42 - up, cycle_momentum=False)

    assert ours == close(torchs_rates(make, 42))


def test_triangular_equals_an_interpolation():
    ours = [build("triangular", start_factor=0.3, end_factor=0.07, warmup_epochs=1)(step) for step in range(43)]
    assert ours == close(list(np.interp(np.arange(43), [0, 7, 42], [0.3, 1.0, 0.07])))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "warmup_epochs"), [(0, 7, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0.5), (1, 3, 5), (3, 2, 3)]
)
def test_short_runs_have_a_rate_between_0_and_the_base(name, epochs, steps_per_epoch, warmup_epochs):
    schedule = build(name, epochs=epochs, steps_per_epoch=steps_per_epoch, warmup_epochs=warmup_epochs)
    assert all(0.0 <= schedule(step) <= 1.0 for step in range(epochs * steps_per_epoch + 2))


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "plateau"])
def test_the_others_are_functions_of_the_step_without_a_state(name):
    schedule = build(name)
    forward = rates(schedule, 42)
    schedule.observe({"val_loss": 1.0})
    assert rates(schedule, 42) == forward
    assert schedule.state_dict() == {}
    schedule.load_state_dict({})
    with pytest.raises(ValueError, match=r"^schedule state has \['best'\], expected \[\]$"):
        schedule.load_state_dict({"best": 1.0})


def test_a_person_s_own_schedule(monkeypatch):
    module = types.ModuleType("persons_lab")

    def halves(steps_per_epoch: int, each: int = 1):
        return lambda step: 0.5 ** (step // (each * steps_per_epoch))

    module.halves, module.wrong = halves, lambda: 0.5
    monkeypatch.setitem(sys.modules, "persons_lab", module)
    monkeypatch.setattr("cifar_lab.optim.schedules.SCHEDULES", {"mine": "persons_lab:halves", "wrong": "persons_lab:wrong"})
    schedule = build("mine", each=2)
    assert isinstance(schedule, Schedule)
    assert [schedule(step) for step in (0, 13, 14, 28)] == [1.0, 1.0, 0.5, 0.25]
    assert schedule.state_dict() == {}
    with pytest.raises(ValueError, match=r"^schedule=wrong; persons_lab:wrong must return a function of the step, not float$"):
        build("wrong")
    with pytest.raises(ValueError, match=r"^schedule=cosine; must be one of mine, wrong$"):
        build("cosine")


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("constant", {"warmup_epochs": -1}, "warmup_epochs=-1; must be a finite number, 0 or more"),
        ("cosine", {"eta_min": 0.5}, "eta_min=0.5; must be 0 to the base learning rate 0.3"),
        ("step", {"milestones": (2.0,), "every_epochs": 2.0}, "every_epochs=2.0; must be 0 where milestones are given"),
        ("step", {"milestones": (0.0,)}, "milestones=[0.0]; must be epochs above 0"),
        ("step", {"gamma": -0.1}, "gamma=-0.1; must be a finite number, 0 or more"),
        ("one_cycle", {"div_factor": 0.5}, "div_factor=0.5; must be a finite number, 1 or more"),
        ("one_cycle", {"anneal": "exp"}, "anneal=exp; must be cos or linear"),
        ("one_cycle", {"warmup_share": 1.5}, "warmup_share=1.5; must be 0 to 1"),
        ("triangular", {"end_factor": 2.0}, "end_factor=2.0; must be 0 to 1"),
        ("plateau", {"factor": 1.0}, "factor=1.0; must be more than 0 and less than 1"),
        ("plateau", {"patience": -1}, "patience=-1; must be a finite number, 0 or more"),
        ("plateau", {"min_lr": 1.0}, "min_lr=1.0; must be 0 to the base learning rate 0.3"),
    ],
)
def test_refuses_values_out_of_range(name, keywords, message):
    with pytest.raises(ValueError) as error:
        build(name, **keywords)
    assert str(error.value) == message
