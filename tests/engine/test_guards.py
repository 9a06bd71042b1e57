"""Each guard against the mistake it is for, and against what only looks like it."""

import pytest
import torch
from engine_rig import CPU, MemoryBatches, Run, make_state, picture_set, tiny_model, train_batches, train_config, val_batches
from torch import nn

from cifar_lab.engine.guards import GRADIENT_STEPS, TrainingGuard, check_logits
from cifar_lab.engine.predict import check_plain, evaluate, predict
from cifar_lab.errors import ConfigError, DataError


def fit(folder, model, *, epochs=2, val=None, **keywords):
    config = train_config(epochs=epochs, **keywords)
    return Run(folder, config, make_state(config, model=model), val=val).fit()


class Around(nn.Module):
    """A model with something wrong about it."""

    def __init__(self, **keywords):
        super().__init__()
        self.inner = tiny_model(0, **{"batch_norm": True, "dropout": 0.2, **keywords})

    def forward(self, images):
        return self.inner(images)


class EvalWithin(Around):
    def forward(self, images):
        answer = self.inner(images)
        self.eval()
        return answer


class NeverTrains(Around):
    def train(self, mode=True):
        super().train(mode)
        self.inner[1].eval()
        return self


class NeverEvaluates(Around):
    def train(self, mode=True):
        return super().train(True)


class TrainsWithin(Around):
    def forward(self, images):
        self.inner[1].train()
        return self.inner(images)


class Probabilities(Around):
    def forward(self, images):
        return self.inner(images).softmax(1)


class Unused(Around):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Skips(Around):
    """A block that is left out of the first steps, as stochastic depth may do."""

    def __init__(self, steps):
        super().__init__()
        self.extra, self.steps = nn.Linear(3, 3), steps

    def forward(self, images):
        answer = self.inner(images)
        self.steps -= 1
        return answer if self.steps >= 0 else answer + self.extra(answer)


@pytest.mark.parametrize(
    ("model", "named"), [(EvalWithin, "the model, inner.1, inner.5"), (NeverTrains, "inner.1")], ids=["within", "override"]
)
def test_training_in_evaluation_mode(tmp_path, model, named):
    with pytest.raises(ConfigError) as error:
        fit(tmp_path, model())
    assert error.value.what == f"in evaluation mode while training in epoch 1: {named}"
    assert "eval()" in error.value.hint
    assert not (tmp_path / "checkpoints").exists()


def test_a_part_that_is_frozen_as_a_whole_may_stay_in_evaluation_mode(tmp_path):
    model = NeverTrains()
    model.inner[1].requires_grad_(False)
    fit(tmp_path, model)
    assert (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("question", [predict, evaluate])
@pytest.mark.parametrize(("model", "named"), [(NeverEvaluates, "inner.1, inner.5"), (TrainsWithin, "inner.1")])
def test_batch_statistics_and_dropout_at_test_time(question, model, named):
    with pytest.raises(ConfigError) as error:
        question(model(), val_batches(), device=CPU, precision="fp32")
    assert error.value.what == f"in training mode during evaluation: {named}"


def test_a_batch_norm_without_running_statistics_cannot_be_evaluated():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(norm, nn.InstanceNorm2d(3), nn.Flatten(), nn.Linear(108, 3))
    with pytest.raises(ConfigError, match=r"^batch statistics at test time: 0 keeps no running ones$"):
        predict(model, val_batches(), device=CPU, precision="fp32")
    norm = nn.InstanceNorm2d(3)
    predict(nn.Sequential(norm, nn.Flatten(), nn.Linear(108, 3)), val_batches(), device=CPU, precision="fp32")


class Noisy(MemoryBatches):
    def iterate(self, epoch, start=0):
        for images, labels in super().iterate(epoch, start):
            yield images + torch.randn(len(images), 1, 1, 1, generator=torch.Generator().manual_seed(epoch)), labels


def test_evaluation_batches_are_neither_shuffled_nor_augmented(tmp_path):
    check_plain(val_batches())
    noisy = Noisy(*picture_set(10), 4)
    with pytest.raises(DataError, match=r"^random augmentation on the batches for evaluation$"):
        fit(tmp_path, tiny_model(), val=noisy)
    with pytest.raises(DataError, match=r"^random augmentation"):
        predict(tiny_model(), noisy, device=CPU, precision="fp32")
    with pytest.raises(DataError, match=r"^the batches for evaluation are shuffled or mixed$"):
        predict(tiny_model(), train_batches(), device=CPU, precision="fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_softmax_before_the_loss(tmp_path, precision):
    with pytest.raises(ConfigError, match=r"^the model answers with probabilities: every row of its first batch"):
        fit(tmp_path, Probabilities(), precision=precision)


@pytest.mark.parametrize(
    "logits",
    [
        torch.randn(8, 10).log_softmax(1),
        torch.randn(8, 10).sigmoid(),
        torch.eye(3) * 2,
        torch.tensor([[0.5, 0.5], [1.5, -0.5]]),
        torch.ones(4, 1),
        torch.full((2, 3), float("nan")),
    ],
)
def test_logits_that_are_no_probabilities(logits):
    check_logits(logits)


def test_a_parameter_without_a_gradient(tmp_path):
    with pytest.raises(ConfigError) as error:
        fit(tmp_path, Unused())
    assert error.value.what == "no gradient reaches spare.weight, spare.bias: the loss does not depend on it"
    model = Unused()
    model.spare.requires_grad_(False)
    fit(tmp_path / "frozen", model)


def test_a_block_that_is_dropped_now_and_then_gets_its_gradient_later(tmp_path):
    fit(tmp_path, Skips(3))
    with pytest.raises(ConfigError, match=r"^no gradient reaches extra\.weight, extra\.bias"):
        fit(tmp_path / "never", Skips(99))


def test_a_parameter_that_is_trained_from_a_later_epoch_on_must_have_a_gradient_then():
    model = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(2)])
    early, late = model
    late.requires_grad_(False)
    guard = TrainingGuard(model)
    early.weight.grad = torch.ones(1, 1)
    guard.gradients(is_last=True)
    early.requires_grad_(False)
    late.requires_grad_(True)
    early.weight.grad = None
    guard.begin_epoch()
    with pytest.raises(ConfigError, match=r"no gradient reaches 1\.weight:"):
        guard.gradients(is_last=True)
    late.weight.grad = torch.ones(1, 1)
    guard.gradients(is_last=True)


def test_gradients_are_looked_for_in_so_many_steps_and_no_more():
    model = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(5)])
    guard = TrainingGuard(model)
    for _ in range(GRADIENT_STEPS - 1):
        guard.gradients(is_last=False)
    with pytest.raises(ConfigError, match=r"no gradient reaches 0\.weight, 1\.weight, 2\.weight and 2 more:"):
        guard.gradients(is_last=False)
    guard = TrainingGuard(model)
    for layer in model:
        layer.weight.grad = torch.ones(1, 1)
        guard.gradients(is_last=False)
        layer.weight.grad = None  # one gradient is enough
    guard.gradients(is_last=True)
