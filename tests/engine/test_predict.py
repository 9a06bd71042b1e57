"""Answers on a set."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_rig import CPU, MemoryBatches, picture_set, tiny_model
from torch import nn

from cifar_lab.config import TTA
from cifar_lab.engine.predict import VIEWS, Sums, evaluate, mixed_precision, predict
from cifar_lab.errors import Interrupted

IMAGES, LABELS = picture_set(11)


def batches(batch_size=4):
    return MemoryBatches(IMAGES, LABELS, batch_size)


def ask(model, **keywords):
    return predict(model, batches(), device=CPU, precision="fp32", **keywords)


@pytest.fixture
def model():
    """Dropout and batch norm with statistics of its own: its mode matters."""
    model = tiny_model(3, dropout=0.5, batch_norm=True)
    model(IMAGES)
    return model


def test_predictions_are_the_models_answers_in_the_sets_order(model):
    answers = ask(model)
    with torch.no_grad():
        expected = model.eval()(IMAGES)
    torch.testing.assert_close(answers.logits, expected)
    assert torch.equal(answers.labels, LABELS)
    assert answers.logits.dtype == torch.float32
    assert not answers.logits.requires_grad


def test_the_batch_size_does_not_matter(model):
    one = predict(model, batches(3), device=CPU, precision="fp32")
    torch.testing.assert_close(one.logits, ask(model).logits)


def test_flip_is_the_mean_of_two_predictions(model):
    mirrored = predict(model, MemoryBatches(IMAGES.flip(3), LABELS, 4), device=CPU, precision="fp32")
    plain, both = ask(model), ask(model, tta="flip")
    torch.testing.assert_close(both.logits, (plain.logits + mirrored.logits) / 2)
    assert not torch.allclose(both.logits, plain.logits)
    with pytest.raises(ValueError, match="tta=rotate"):
        ask(model, tta="rotate")


def test_flip_shift_is_half_the_picture_and_a_quarter_of_each_moved_one(model):
    """Written out with numpy's padding: the picture, up and left by one pixel, down and right by one, each with its mirror."""
    padded = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    up_left, down_right = padded[:, :, 2:, 2:], padded[:, :, :-2, :-2]
    np.testing.assert_array_equal(up_left[:, :, :-1, :-1], IMAGES.numpy()[:, :, 1:, 1:])

    def mirrored_mean(images):
        views = (images, images[..., ::-1])
        sets = [MemoryBatches(torch.from_numpy(seen.copy()), LABELS, 4) for seen in views]
        plain, mirrored = (predict(model, one, device=CPU, precision="fp32").logits for one in sets)
        return (plain + mirrored) / 2

    expected = mirrored_mean(IMAGES.numpy()) / 2 + mirrored_mean(up_left) / 4 + mirrored_mean(down_right) / 4
    torch.testing.assert_close(ask(model, tta="flip_shift").logits, expected)


def test_every_test_time_augmentation_that_may_be_set_is_there():
    assert set(VIEWS) == set(TTA)
    assert all(sum(weight for weight, _ in views) == 1.0 for views in VIEWS.values() if views)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("question", [predict, evaluate])
def test_every_module_is_put_back_in_its_mode(model, question, training):
    model.train(training)
    model[1].train(not training)
    statistics = model[1].running_mean.clone()
    modes = [module.training for module in model.modules()]
    question(model, batches(), device=CPU, precision="fp32")
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[1].running_mean, statistics)

    def refuse():
        raise Interrupted("stopped", signum=15)

    with pytest.raises(Interrupted):
        question(model, batches(), device=CPU, precision="fp32", stop=refuse)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("question", [predict, evaluate])
def test_stop_is_asked_at_every_batch(model, question):
    asked = []
    question(model, batches(), device=CPU, precision="fp32", stop=lambda: asked.append(1))
    assert len(asked) == 3


def test_evaluate_is_the_mean_over_images_not_over_batches(model):
    loss, accuracy = evaluate(model, batches(), device=CPU, precision="fp32")
    logits = ask(model).logits
    assert loss == pytest.approx(F.cross_entropy(logits.double(), LABELS).item(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == LABELS).sum().item() / 11


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_answers_in_fp32_and_nearly_alike(precision):
    seen = []

    class Spy(nn.Module):
        def forward(self, logits):
            seen.append(logits.dtype)
            return logits

    model = tiny_model(3).append(Spy())
    answers = predict(model, batches(), device=CPU, precision=precision)
    assert answers.logits.dtype == torch.float32
    assert set(seen) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    torch.testing.assert_close(answers.logits, ask(model).logits, atol=0.05, rtol=0.05)
    assert seen[-1] == torch.float32


def test_fp32_runs_without_autocast():
    with mixed_precision("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_sums_go_on_from_where_they_were_and_in_double():
    sums = Sums(CPU, 2.0**30, 5)
    for _ in range(1000):
        sums.add(torch.tensor(1e-3), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    total, correct = sums.read()
    assert total == pytest.approx(2.0**30 + 2.0, abs=1e-3)  # float32 would have lost every addition
    assert correct == 1005
    assert isinstance(correct, int)
