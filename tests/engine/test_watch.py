"""Losses that are not finite and steps that fp16 skips, as the host and as the device see them."""

import math

import pytest
import torch
from engine_rig import Run, deeper_model, make_state, picture_set, train_config

from cifar_lab.engine import watch as module
from cifar_lab.engine.watch import MAX_SKIPPED_STEPS, DeviceWatch, HostWatch, build_watch
from cifar_lab.errors import DivergedError


def backward(state, factor=1.0):
    images, labels = picture_set(6)
    state.optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(state.model(images), labels) * factor
    state.scaler.scale(loss).backward()
    return loss


def weights(state):
    return torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])


def step(state, watch, total, factor=1.0):
    """One optimiser step under a watch, with the epoch's loss sum so far."""
    total += backward(state, factor).detach().double()
    watch.before_step(total)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    watch.after_step()
    state.progress.step += 1
    return weights(state)


OPTIMIZERS = [("sgd", {"momentum": 0.9}), ("sgd", {"momentum": 0.0}), ("adam", {}), ("adamw", {}), ("muon", {}), ("muon_sgd", {})]


def state_with(optimizer, settings, **changes):
    """Muon needs a weight between hidden layers."""
    model = deeper_model(0) if optimizer.startswith("muon") else None
    return make_state(train_config(**changes), optimizer=optimizer, optimizer_settings=settings, model=model)


def test_on_a_cpu_the_host_watches():
    assert type(build_watch(make_state(train_config()))) is HostWatch


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_host_raises_before_the_step(value):
    state = make_state(train_config())
    state.progress.step, state.progress.epochs_done = 11, 2
    watch = build_watch(state)
    watch.start()
    watch.before_step(torch.tensor(3.0, dtype=torch.float64))
    with pytest.raises(DivergedError, match=f"loss is {'nan' if math.isnan(value) else 'inf'} at epoch 3 step 12"):
        watch.before_step(torch.tensor(value, dtype=torch.float64))


@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS)
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_the_device_skips_every_step_from_the_bad_one_on(optimizer, settings, factor):
    """The same tensors on a CPU, whose fused optimisers honour the flag as those on CUDA do."""
    state = state_with(optimizer, settings)
    watch, total = DeviceWatch(state), torch.zeros((), dtype=torch.float64)
    watch.start()
    first = step(state, watch, total)
    good = step(state, watch, total)
    assert not torch.equal(first, good)
    assert torch.equal(step(state, watch, total, factor), good)
    assert torch.equal(step(state, watch, total), good)
    with pytest.raises(DivergedError, match="epoch 1 step 3"):
        watch.settle(total)
    watch.end()
    assert not hasattr(state.optimizer, "found_inf")


@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS)
def test_the_devices_flag_changes_nothing_while_all_is_well(optimizer, settings):
    ends = []
    for watched in (False, True):
        state = state_with(optimizer, settings)
        watch, total = (DeviceWatch if watched else HostWatch)(state), torch.zeros((), dtype=torch.float64)
        watch.start()
        for _ in range(4):
            weight = step(state, watch, total)
        watch.settle(total)
        watch.end()
        ends.append(weight)
    assert torch.equal(*ends)


@pytest.mark.parametrize("optimizer", ["muon", "muon_sgd"])
def test_muon_takes_the_loss_scale_off_and_skips_with_it(optimizer):
    """fp16's loss scale is a power of two: taken off again it leaves no trace."""
    ends = []
    for precision in ("fp32", "fp16"):
        state = state_with(optimizer, {}, precision=precision)
        first, second, third = (step(state, HostWatch(state), torch.zeros((), dtype=torch.float64)) for _ in range(3))
        assert not torch.equal(first, second)
        ends.append(third)
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)
    backward(state, math.inf)
    state.scaler.step(state.optimizer)
    assert torch.equal(weights(state), third)
    assert not hasattr(state.optimizer, "found_inf")


def test_the_count_starts_anew_with_each_epoch():
    state = make_state(train_config())
    watch = DeviceWatch(state)
    watch.start()
    step(state, watch, torch.zeros((), dtype=torch.float64), math.nan)
    watch.start()
    moved = step(state, watch, torch.zeros((), dtype=torch.float64))
    watch.settle(torch.zeros(()))
    assert torch.isfinite(moved).all()


class FakeEvent:
    """A copy that has arrived when asked."""

    arrived = True

    def record(self, stream=None):
        pass

    def query(self):
        return self.arrived


@pytest.mark.parametrize(("arrived", "heard"), [(True, 10), (False, None)])
def test_the_host_hears_of_it_without_waiting_at_the_second_poll(monkeypatch, arrived, heard):
    monkeypatch.setattr(module, "POLL_STEPS", 5)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(FakeEvent, "arrived", arrived)
    state = make_state(train_config())
    watch, total = DeviceWatch(state), torch.zeros((), dtype=torch.float64)
    watch.start()
    steps = []

    def run():
        for number in range(1, 21):
            steps.append(number)
            step(state, watch, total, math.nan if number == 4 else 1.0)

    if heard is None:
        run()
        assert len(steps) == 20
    else:
        with pytest.raises(DivergedError, match="loss is nan at epoch 1 step 4"):
            run()
        assert steps[-1] == heard


@pytest.mark.parametrize("watch_type", [HostWatch, DeviceWatch])
def test_fp16_counts_skips_in_a_row(watch_type):
    state = make_state(train_config(precision="fp16"))
    watch, total = watch_type(state), torch.zeros((), dtype=torch.float64)
    watch.start()
    start = state.model[0].weight.detach().clone()

    def skip():
        backward(state)
        state.model[0].weight.grad[0, 0, 0, 0] = math.inf
        watch.before_step(total)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        watch.after_step()
        return state.model[0].weight.detach()

    assert torch.equal(skip(), start)
    assert torch.equal(skip(), start)
    watch.settle(total)
    assert state.progress.skipped == 2
    assert not torch.equal(step(state, watch, total), start)
    watch.settle(total)
    assert state.progress.skipped == 0
    skip()
    watch.settle(total)
    watch.start()  # a new epoch goes on counting
    skip()
    watch.settle(total)
    assert state.progress.skipped == 2


@pytest.mark.parametrize("watch_type", [HostWatch, DeviceWatch])
def test_fp16_stops_after_fifty_skips_in_a_row(tmp_path, monkeypatch, watch_type):
    """A gradient that never fits: the loss is fine, no step is ever made."""
    monkeypatch.setattr("cifar_lab.engine.fit.build_watch", watch_type)
    config = train_config(precision="fp16", epochs=20)
    state = make_state(config)
    start = state.model[0].weight.detach().clone()
    state.model[0].weight.register_hook(lambda gradient: gradient * math.inf)
    run = Run(tmp_path, config, state)
    with pytest.raises(DivergedError, match=f"{MAX_SKIPPED_STEPS} steps skipped in a row") as caught:
        run.fit()
    assert "bf16" in caught.value.hint
    assert torch.equal(state.model[0].weight, start)
    # 6 steps an epoch: the host stops within the ninth, the device's count is looked at by its end
    assert len(run.tracker.read()) == 8
    assert MAX_SKIPPED_STEPS - 1 <= state.progress.step <= 54
    again = make_state(config, seed=2)
    Run(tmp_path, config, again).resume()
    assert again.progress.skipped == 48
