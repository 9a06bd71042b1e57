"""Whether a variant changes one thing, from settings and facts written out by hand."""

import pytest

from cifar_lab.preview import _spread
from cifar_lab.study.audit import audit
from cifar_lab.study.estimate import SEED_SD, Effort, estimate, power_lines, readable_size

BASE = {"model.name": "small_cnn", "model.kernel_size": 3, "optimizer.name": "adam", "optimizer.lr": 0.01, "train.batch_size": 32}
FACTS = {"num_params": 18_422, "macs": 632_268, "head_inputs": 1764, "steps_per_epoch": 1250, "train_images": 40_000}


def changes(facts=None, **variants):
    settings = {"base": BASE, **{name: {**BASE, **change} for name, change in variants.items()}}
    return {c.variant: c for c in audit("base", settings, {"base": FACTS, **(facts or {})})}


def test_one_setting_is_one_factor():
    found = changes(lr={"optimizer.lr": 1e-4}, facts={"lr": FACTS})["lr"]
    assert found.is_one_factor
    assert found.text() == "lr=0.01 -> 0.0001"
    assert found.warning() == ""


def test_a_component_with_its_own_settings_is_one_factor():
    found = changes(sgd={"optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.9})["sgd"]
    assert found.is_one_factor
    assert found.text() == "optimizer=adam -> sgd"


def test_a_smaller_head_is_a_second_factor():
    facts = {"k7": {**FACTS, "head_inputs": 1296, "num_params": 14_582, "macs": 1_038_744}}
    found = changes(k7={"model.kernel_size": 7}, facts=facts)["k7"]
    assert not found.is_one_factor
    assert found.warning() == "k7 changes more than one thing: inputs of the head 1,764 -> 1,296"
    assert "parameters 18,422 -> 14,582" in found.text()
    assert "multiply-adds 0.63 M -> 1.04 M" in found.text()


def test_more_parameters_alone_are_no_second_factor():
    assert changes(wide={"model.kernel_size": 5}, facts={"wide": {**FACTS, "num_params": 20_000}})["wide"].is_one_factor


def test_two_settings_are_two_factors():
    found = changes(two={"optimizer.lr": 0.1, "train.batch_size": 128}, facts={"two": {**FACTS, "steps_per_epoch": 313}})["two"]
    assert "2 settings (optimizer.lr, train.batch_size); steps per epoch 1,250 -> 313" in found.warning()


def test_what_is_not_known_is_not_compared():
    assert changes(k7={"model.kernel_size": 7}, facts={"k7": {"error": "it does not fit"}})["k7"].is_one_factor


def test_time_is_shared_by_workers_but_not_below_the_longest_run():
    facts = {"a": {"train_s": 9.0, "bytes": 10**6}, "b": {"train_s": 99.0, "bytes": 2 * 10**6}}
    assert estimate({"a": 4, "b": 1}, facts, workers=1) == Effort(140.0, 6 * 10**6)
    assert estimate({"a": 4, "b": 1}, facts, workers=2) == Effort(100.0, 6 * 10**6)
    assert estimate({"a": 4, "b": 0}, facts, workers=2) == Effort(20.0, 4 * 10**6)


def test_unknown_time_is_said_to_be_unknown():
    found = estimate({"a": 1, "c": 1}, {"a": {"train_s": 1.0, "bytes": 5}, "c": {"train_s": None}}, workers=1)
    assert found == Effort(None, None, ("c",))


def test_what_seeds_can_show_is_said_plainly():
    assert "n = 1" in power_lines(1, 3, None, None, 0.003, measured=False)[0]
    five = power_lines(5, 14, 14 * 2 / 32, None, 0.003, measured=False)
    assert "5 seeds, 14 comparisons: the smallest p that can come out is 0.88 after correction" in five[0]
    assert "n = 5 cannot decide this" in five[1]
    ten = power_lines(10, 14, 14 * 2 / 1024, 0.0066, 0.003, measured=True)
    assert "0.027" in ten[0]
    assert "as the runs that are done do, a difference of 0.66 points" in ten[1]
    assert "no comparison" in power_lines(3, 0, None, None, 0.003, measured=False)[0]


def test_sizes_are_readable():
    assert [readable_size(n) for n in (10, 193_000_000, 2_400_000_000)] == ["1 MB", "193 MB", "2.4 GB"]


def test_the_spread_between_seeds_is_assumed_until_runs_show_one():
    def done(*accuracies: float):
        return [{"metrics": {"val": {"accuracy": accuracy}}} for accuracy in accuracies]

    assert _spread([done(0.7), []]) == (SEED_SD, False)
    assert _spread([done(0.7, 0.7, 0.7), done(0.8)]) == (SEED_SD, False)
    # variances 0.0002 and 0, of two seeds each
    assert _spread([done(0.70, 0.72), done(0.8, 0.8)]) == (pytest.approx(0.01), True)
