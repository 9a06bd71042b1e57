"""Times against a model that sleeps a known time, the rule of the warm-up, and that nothing is disturbed."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.analysis import latency
from cifar_lab.analysis.latency import (
    Answering,
    is_stable,
    measure_latency,
    measure_throughput,
    quantiles,
    random_images,
    short_latency,
)
from cifar_lab.models.build import build_model

CPU = torch.device("cpu")


class Clock:
    """A clock that goes on only when somebody sleeps: a busy machine does not change what it says."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(latency, "time", made)
    return made


class Sleeper:
    """Takes as long as its list says, then as long as its last entry."""

    def __init__(self, clock: Clock, *seconds: float):
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def __call__(self) -> None:
        self.clock.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1


def test_quantiles_are_numpys_and_those_of_a_known_list():
    times = [float(n) for n in range(1, 102)]
    assert quantiles(times) == {"p50": 51.0, "p90": 91.0, "p99": 100.0, "mean": 51.0}
    some = np.random.default_rng(0).exponential(size=37)
    assert quantiles(some)["p90"] == pytest.approx(sorted(some)[32] * 0.6 + sorted(some)[33] * 0.4)


def test_a_call_of_the_machine_takes_its_time():
    found = measure_latency(lambda: time.sleep(0.004), CPU, calls=5)
    assert found["call_ms"]["p50"] >= 4.0, "a sleep is never shorter than asked for"


def test_a_model_that_sleeps_is_measured_by_its_sleep(clock):
    call = Sleeper(clock, 0.004)
    found = measure_latency(call, CPU)
    assert found["calls"] == 100
    assert found["capped"] is False
    assert call.calls == 100 + found["warmup_calls"]
    assert found["call_ms"] == pytest.approx(dict.fromkeys(("p50", "p90", "p99", "mean"), 4.0))
    assert found["device_ms"] is None, "a CPU has no clock of its own"


def test_every_tenth_call_is_slow_and_only_the_upper_quantiles_see_it(clock, monkeypatch):
    monkeypatch.setattr(latency, "MAX_WARMUP", 1)
    pattern = [0.0, *([0.001] * 88 + [0.02] * 12)]
    found = measure_latency(Sleeper(clock, *pattern), CPU)
    assert [found["call_ms"][name] for name in ("p50", "p90", "p99")] == pytest.approx([1.0, 20.0, 20.0])


def test_the_warm_up_waits_until_two_windows_agree():
    falling = [10.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.2, 1.1, 1.0]
    assert not is_stable(falling[:9])
    assert not is_stable(falling)
    assert not is_stable([*falling, *[1.0] * 6]), "the median of the window before is 1.1"
    assert is_stable([*falling, *[1.0] * 7])
    assert is_stable([1.0] * 5 + [1.04] * 5)
    assert not is_stable([1.0] * 5 + [1.06] * 5)
    assert is_stable([1.0, 1.0, 9.0, 1.0, 1.0] * 2), "a single slow call does not count"


def test_a_warm_up_that_never_settles_ends_and_is_said(clock, monkeypatch):
    never = [0.001 * 1.2**n for n in range(25)]
    monkeypatch.setattr(latency, "MAX_WARMUP", 15)
    found = measure_latency(Sleeper(clock, *never), CPU, calls=2)
    assert (found["warmup_calls"], found["stable"]) == (15, False)
    monkeypatch.setattr(latency, "MAX_WARMUP_S", 0.0)
    found = measure_latency(Sleeper(clock, *never), CPU, calls=2)
    assert (found["warmup_calls"], found["stable"], found["calls"]) == (10, False, 2), "two windows are made in any case"


def test_slow_first_calls_are_no_part_of_the_measurement(clock):
    call = Sleeper(clock, *[0.05] * 3, 0.002)
    found = measure_latency(call, CPU, calls=20)
    assert found["warmup_calls"] >= 2 * latency.WINDOW
    assert found["call_ms"]["p99"] == pytest.approx(2.0)


def test_a_limit_ends_it_and_is_said(clock):
    found = measure_latency(Sleeper(clock, 0.01), CPU, max_s=0.2)
    assert clock.now == pytest.approx(0.2, abs=0.011)
    assert found["capped"] is True
    assert 1 <= found["calls"] < 100
    call = Sleeper(clock, 0.1)
    found = measure_latency(call, CPU, max_s=0.05)
    assert (call.calls, found["calls"], found["warmup_calls"], found["stable"]) == (1, 1, 0, False), "one call is made, no more"
    assert found["call_ms"]["p50"] == pytest.approx(100.0)


def test_throughput_is_images_by_the_time_of_the_calls(clock):
    found = measure_throughput(Sleeper(clock, 0.01), CPU, 50, max_s=0.3)
    assert [found[name] for name in ("low", "images_per_s", "high")] == pytest.approx([5000.0] * 3)
    assert found["calls"] >= 5
    uneven = measure_throughput(Sleeper(clock, *[0.01] * 12, 0.02), CPU, 50, max_s=0.3)
    assert uneven["low"] < uneven["high"] == pytest.approx(5000.0)
    call = Sleeper(clock, 0.05)
    assert measure_throughput(call, CPU, 1, max_s=0.001)["calls"] == 1
    assert call.calls == 3, "two to warm up, one window of one call"
    slow_first = measure_throughput(Sleeper(clock, 0.4, 0.001), CPU, 1, max_s=0.3)
    assert slow_first["calls"] == 100, "a window's length follows from a call that is warm"


def test_pictures_are_random_bytes_with_mean_0_and_deviation_1():
    state = torch.random.get_rng_state()
    images = random_images(16, (3, 32, 32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, random_images(16, (3, 32, 32)))
    assert images.mean().abs() < 0.02
    assert abs(images.std() - 1) < 0.02
    shades = images * ((256**2 - 1) / 12) ** 0.5 + 127.5
    assert len(shades.round().unique()) == 256
    torch.testing.assert_close(shades, shades.round(), atol=1e-3, rtol=0)


def test_the_batch_has_the_layout_and_the_model_its_precision():
    seen = []

    class Looks(nn.Module):
        def forward(self, images):
            seen.append((images.is_contiguous(memory_format=torch.channels_last), torch.is_autocast_enabled("cpu")))
            return images.mean((2, 3))

    for precision, channels_last in (("fp32", False), ("bf16", True)):
        Answering(Looks(), (3, 8, 8), 2, CPU, precision=precision, channels_last=channels_last)()
    assert seen == [(False, False), (True, True)]


def test_what_a_run_measures_leaves_its_model_and_its_draws_alone():
    model = build_model("mobilenet_like", num_classes=10, input_size=32)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    draws = torch.random.get_rng_state()
    found = short_latency(model, (3, 32, 32), 4, CPU, precision="fp32", channels_last=True, max_s=0.05)
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training
    assert {"device", "precision", "channels_last", "batch_1", "batch_4"} == set(found["latency"])
    assert found["inference"]["batch_size"] == 4
    assert found["inference"]["images_per_s"] == pytest.approx(4e3 / found["latency"]["batch_4"]["call_ms"]["mean"])
