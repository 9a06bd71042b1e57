"""Two passes a step in the loop: the same function twice, buffers of the first, and nothing that a resume could miss."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from engine_rig import Run, make_state, seed_all, tiny_model, train_batches, train_config, val_batches
from torch import nn

from cifar_lab.engine.predict import Sums
from cifar_lab.engine.twopass import TwoPass
from cifar_lab.errors import ConfigError, DivergedError
from cifar_lab.optim.optimizers import build_optimizer

SETTINGS = {"momentum": 0.9, "weight_decay": 0.01}


def run_of(folder, optimizer, config, **keywords):
    settings = {**SETTINGS, **keywords.pop("settings", {})}
    state = make_state(config, optimizer=optimizer, optimizer_settings=settings, **keywords)
    seed_all(11)
    return Run(folder, config, state, val=val_batches()).fit()


def test_only_sam_wants_two_passes():
    model = tiny_model()
    wants = {name: isinstance(build_optimizer(name, model), TwoPass) for name in ("sgd", "adam", "muon", "rmsprop", "sam")}
    assert [name for name, two in wants.items() if two] == ["sam"]


@pytest.mark.parametrize(
    "case", [{}, {"accumulation_steps": 3}, {"grad_clip_norm": 0.2, "ema_decay": 0.9, "label_smoothing": 0.1}]
)
def test_rho_0_is_sgd_to_the_bit_with_dropout_and_batch_norm(tmp_path, case):
    """So the second pass has the masks of the first, and leaves buffers, generators, loss and accuracy alone."""
    config = train_config(epochs=2, **case)
    one = run_of(tmp_path / "sam", "sam", config, settings={"rho": 0.0}, dropout=0.4, batch_norm=True)
    drawn = torch.get_rng_state()
    other = run_of(tmp_path / "sgd", "sgd", config, dropout=0.4, batch_norm=True)
    assert torch.equal(drawn, torch.get_rng_state())
    expected = other.state.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in one.state.model.state_dict().items())
    columns = ("train_loss", "train_accuracy", "val_loss", "lr", "step")
    assert [[row[c] for c in columns] for row in one.tracker.read()] == [
        [row[c] for c in columns] for row in other.tracker.read()
    ]


def test_equals_a_loop_written_out(tmp_path):
    config = train_config(epochs=2, label_smoothing=0.1)
    model = tiny_model(3, batch_norm=True)
    twin = copy.deepcopy(model)
    run = run_of(tmp_path, "sam", config, settings={"rho": 0.5}, model=model)
    optimizer = build_optimizer("sgd", twin, lr=0.1, **SETTINGS)
    parameters = list(twin.parameters())
    twin.train()
    for epoch in range(2):
        for images, labels in train_batches().iterate(epoch):
            loss = F.cross_entropy(twin(images), labels, label_smoothing=0.1)
            gradients = torch.autograd.grad(loss, parameters)
            length = torch.cat([g.flatten() for g in gradients]).norm()
            buffers = copy.deepcopy(list(twin.buffers()))
            weights = [p.detach().clone() for p in parameters]
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    p += 0.5 * g / length
            optimizer.zero_grad()
            F.cross_entropy(twin(images), labels, label_smoothing=0.1).backward()
            with torch.no_grad():
                for p, w in zip([*parameters, *twin.buffers()], [*weights, *buffers], strict=True):
                    p.copy_(w)
            optimizer.step()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(run.state.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    plain = run_of(tmp_path / "sgd", "sgd", config, model=tiny_model(3, batch_norm=True))
    assert not torch.allclose(plain.state.model[0].weight, twin[0].weight, rtol=1e-2)


@pytest.mark.parametrize("count", [24, 17])
def test_accumulation_equals_big_batches(tmp_path, count):
    ends = []
    for size, steps in ((4, 3), (12, 1)):
        config = train_config(accumulation_steps=steps, epochs=2)
        batches = train_batches(count, batch_size=size)
        batches.images = batches.images.double()
        state = make_state(config, model=tiny_model(1).double(), optimizer="sam", optimizer_settings={"rho": 0.5})
        Run(tmp_path / str(size), config, state, train=batches).fit()
        ends.append(dict(state.model.named_parameters()))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


def test_fp16_is_refused_before_anything_runs():
    with pytest.raises(ConfigError) as error:
        make_state(train_config(precision="fp16"), optimizer="sam")
    assert error.value.what == "train.precision=fp16; must be bf16 or fp32 for SAM, which needs two gradients a step"
    assert "fp32" in error.value.hint


def test_bf16_trains(tmp_path):
    rows = run_of(tmp_path, "sam", train_config(precision="bf16", epochs=3)).tracker.read()
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


class Cliff(nn.Module):
    """Logits that are NaN as soon as the weights are not those of before."""

    def __init__(self, inner, from_step):
        super().__init__()
        self.inner, self.calls, self.from_step = inner, 0, from_step

    def forward(self, images):
        self.calls += 1
        answers = self.inner(images)
        return answers * math.nan if self.calls == 2 * self.from_step else answers


def test_a_second_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    config = train_config(epochs=1)
    state = make_state(config, model=Cliff(tiny_model(0), 4), optimizer="sam")
    run, before = Run(tmp_path, config, state), {}
    run.tracker.on_step = lambda count: before.update(copy.deepcopy(state.model.state_dict()))
    with pytest.raises(DivergedError, match="loss is nan at epoch 1 step 4"):
        run.fit()
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_spoiling_a_sum():
    sums = Sums(torch.device("cpu"), loss=1.2345678901234567)
    sums.spoil(torch.tensor(3.0))
    assert sums.read()[0] == 1.2345678901234567
    sums.spoil(torch.tensor(math.inf))
    assert math.isnan(sums.read()[0])
