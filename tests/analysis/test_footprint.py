"""Peak memory against closed forms: a network of plain matrices, where every byte can be named."""

import pytest
import torch
from torch import nn

from cifar_lab.analysis.footprint import inference_memory, peak_growth, training_memory
from cifar_lab.analysis.latency import Answering
from cifar_lab.analysis.training_step import TrainingStep
from cifar_lab.config import TrainConfig

CPU = torch.device("cpu")
MIB = 2**20
BATCH, WIDTH, HIDDEN, CLASSES = 64, 3 * 32 * 32, 2048, 10


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, CLASSES, bias=False))


def test_growth_is_what_lives_at_once():
    def work() -> None:
        first = torch.ones(1000)  # 4 kB
        second = torch.ones(3000)  # 16 kB in all
        del first
        torch.ones(500)  # 14 kB in all
        del second

    assert peak_growth(work, CPU) == 16_000
    with pytest.raises(ValueError, match="device=meta; must be cpu or cuda"):
        peak_growth(work, torch.device("meta"))


def test_answering_holds_weights_batch_and_two_results():
    model = network().eval()
    call = Answering(model, (3, 32, 32), BATCH, CPU, precision="fp32", channels_last=False)
    found = inference_memory(model, call, CPU)
    assert found is not None
    held = 4 * (WIDTH * HIDDEN + HIDDEN * CLASSES + BATCH * WIDTH)
    assert found["held_mib"] == held / MIB
    assert found["peak_mib"] == (held + 4 * BATCH * (HIDDEN + CLASSES)) / MIB


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_training_step_holds_weights_gradients_activations_and_the_optimisers_state(momentum):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum, foreach=False)
    step = TrainingStep(model, optimizer, TrainConfig(), CPU, "fp32")
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % CLASSES
    found = training_memory(step, images, labels, CPU)
    assert found is not None
    weights, batch = 4 * (WIDTH * HIDDEN + HIDDEN * CLASSES), images.numel() * 4 + BATCH * 8
    held = weights * (2 if momentum else 1) + batch
    assert found["held_mib"] == pytest.approx(held / MIB)
    # At the peak all gradients are there, and the hidden layer with its gradient; what is as small as the logits aside.
    assert found["peak_mib"] == pytest.approx((held + weights + 2 * 4 * BATCH * HIDDEN) / MIB, rel=0.03)


def test_a_step_trains_as_the_loop_does():
    """Against the update written out: cross-entropy with smoothing, clipped gradient, plain SGD."""
    torch.manual_seed(0)
    model = network()
    copy = [p.detach().clone().requires_grad_() for p in model.parameters()]
    config = TrainConfig(label_smoothing=0.1, grad_clip_norm=0.5)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])
    TrainingStep(model.eval(), torch.optim.SGD(model.parameters(), lr=0.1), config, CPU, "fp32")(images, labels)
    assert model.training
    logits = images.flatten(1) @ copy[0].T @ copy[1].T
    target = nn.functional.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
    (-(target * logits.log_softmax(1)).sum(1).mean()).backward()
    norm = sum(p.grad.square().sum() for p in copy).sqrt()
    for ours, theirs in zip(model.parameters(), copy, strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad * min(1.0, 0.5 / norm), rtol=1e-4, atol=1e-6)
        assert ours.grad is None
