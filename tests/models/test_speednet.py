"""The airbench network: its start (whitening, Dirac), its frozen parts, and the whole against the paper's layers."""

import pytest
import torch
from torch import nn

from cifar_lab.models import speednet
from cifar_lab.models.build import build_model
from cifar_lab.models.speednet import init_whitening


def build(**keywords) -> nn.Module:
    return build_model("speednet", **{"num_classes": 10, "input_size": 32, **keywords})


def correlated_images(n: int, size: int = 12) -> torch.Tensor:
    """Neighboring pixels and the three channels go together, as in photographs; second moments from 0.05 to about 10."""
    noise = torch.randn(n, 3, size + 1, size + 1)
    smooth = noise[:, :, 1:, 1:] + 0.6 * noise[:, :, :-1, 1:] + 0.5 * noise[:, :, 1:, :-1]
    mixing = torch.tensor([[1.0, 0.8, 0.6], [0.0, 0.5, 0.3], [0.0, 0.0, 0.4]])
    return torch.einsum("nchw,cd->ndhw", smooth, mixing)


def patches_of(images: torch.Tensor) -> torch.Tensor:
    """All 2x2 patches [P, 12], cut out one place after the other."""
    height, width = images.shape[2:]
    places = [(y, x) for y in range(height - 1) for x in range(width - 1)]
    return torch.cat([images[:, :, y : y + 2, x : x + 2].flatten(1) for y, x in places]).double()


def test_equals_the_papers_layers():
    torch.manual_seed(0)
    ours = build()

    def group(i: int, o: int) -> list[nn.Module]:
        first, second = nn.Conv2d(i, o, 3, padding="same", bias=False), nn.Conv2d(o, o, 3, padding="same", bias=False)
        norms = [nn.BatchNorm2d(o, eps=1e-12, momentum=0.4) for _ in range(2)]
        return [first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU()]

    written_out = nn.Sequential(
        *(nn.Conv2d(3, 24, 2), nn.GELU(), *group(24, 64), *group(64, 256), *group(256, 256)),
        *(nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False)),
    )
    written_out.load_state_dict(dict(zip(written_out.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 32, 32)
    for training in (True, False):  # training first: it moves the statistics that evaluation reads
        expected = written_out.train(training)(images) / 9
        torch.testing.assert_close(ours.train(training)(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.state_dict()["groups.2.5.running_var"], written_out.state_dict()["21.running_var"])


def test_frozen_are_the_stems_weight_and_the_scales_of_the_norms():
    model = build()
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert sum(p.numel() for p in frozen.values()) == 2 * 12 * 12 + 2 * (64 + 256 + 256)
    norms = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert frozen.keys() == {"whiten.weight", *norms}
    assert all((frozen[name] == 1).all() for name in norms)
    assert model.whiten.bias.requires_grad
    assert not model.whiten.bias.any()
    assert model.head.bias is None


@pytest.mark.parametrize("widths", [(64, 256, 256), (40, 16, 20)])
def test_dirac_start_passes_the_input_channels_through(widths):
    torch.manual_seed(0)
    convs = [m for m in build(widths=widths).groups.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        maps = torch.randn(2, conv.in_channels, 5, 5)
        passed = min(conv.in_channels, conv.out_channels)
        found = conv(maps)
        torch.testing.assert_close(found[:, :passed], maps[:, :passed])
        assert passed == conv.out_channels or found[:, passed:].std() > 0.1


def test_whitened_patches_have_the_identity_as_second_moment():
    torch.manual_seed(0)
    model, images = build(), correlated_images(64)
    model.prepare(images)
    patches = patches_of(images)
    before = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    assert before.max() / before.min() > 50
    whitened = model.whiten(images).permute(0, 2, 3, 1).reshape(-1, 24).double()
    first, second = whitened[:, :12], whitened[:, 12:]
    moment = first.T @ first / len(first)
    # eps = 5e-4 is added to each eigenvalue: l / (l + eps) is left of 1
    torch.testing.assert_close(moment, torch.diag(before.flip(0) / (before.flip(0) + 5e-4)), rtol=0, atol=1e-4)
    torch.testing.assert_close(moment, torch.eye(12, dtype=torch.float64), rtol=0, atol=2e-2)
    torch.testing.assert_close(second, -first, rtol=0, atol=1e-5)


def test_whitened_patches_of_centered_images_have_the_identity_as_covariance():
    torch.manual_seed(0)
    images = correlated_images(64)
    patches = patches_of(images)
    centered = images - patches.view(-1, 3, 4).mean(dim=(0, 2)).view(1, 3, 1, 1).float()
    model = build()
    model.prepare(centered)
    covariance = torch.cov(model.whiten(centered)[:, :12].permute(1, 0, 2, 3).flatten(1))
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=2e-2)


def test_directions_of_no_variance_do_not_explode():
    model = build()
    model.prepare(torch.randn(8, 1, 12, 12).expand(-1, 3, -1, -1))  # gray pictures: 8 of 12 directions are empty
    assert model.whiten.weight.isfinite().all()
    assert model.whiten.weight.abs().max() <= 5e-4**-0.5
    model.prepare(torch.zeros(2, 3, 12, 12))
    assert model.whiten.weight.isfinite().all()


def test_the_stem_does_not_depend_on_chunks_or_layout_and_stays_frozen(monkeypatch):
    torch.manual_seed(0)
    images, one, other = correlated_images(9), build(), build().to(memory_format=torch.channels_last)
    one.prepare(images)
    monkeypatch.setattr(speednet, "_CHUNK", 4)
    init_whitening(other, images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other.whiten.weight, one.whiten.weight)
    assert not one.whiten.weight.requires_grad
    assert one.whiten.weight.abs().flatten(1).max(dim=1).values[:12].equal(one.whiten.weight[:12].flatten(1).max(dim=1).values)


@pytest.mark.parametrize(("epochs", "trained"), [(3, [True, True, True, False, False]), (0, [False] * 5)])
def test_the_stems_bias_is_trained_in_the_first_epochs(epochs, trained):
    model = build(whiten_bias_epochs=epochs)
    assert model.whiten.bias.requires_grad is (epochs > 0)
    found = []
    for epoch in range(1, 6):
        model.begin_epoch(epoch)
        model.zero_grad(set_to_none=True)
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        found.append(model.whiten.bias.grad is not None)
    assert found == trained
    model.begin_epoch(2)  # a run that goes on in epoch 2
    assert model.whiten.bias.requires_grad is (epochs >= 2)


def test_one_scale_for_the_logits_and_one_momentum_for_the_norms():
    torch.manual_seed(0)
    model, images = build(), torch.randn(2, 3, 32, 32)
    assert model.logit_scale == 1 / 9
    small = model.eval()(images)
    model.logit_scale = 1.0
    torch.testing.assert_close(model(images), 9 * small)
    assert {m.momentum for m in build(batch_norm_momentum=0.1).modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (4, 1, 8, 8), (4, 3, 1, 8), (3, 8, 8)])
def test_whitening_refuses_what_are_no_images(shape):
    with pytest.raises(ValueError, match=r"must be \[N, 3, H, W\]"):
        build().prepare(torch.zeros(shape))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"widths": ()}, "widths=[]; must be at least one number, each 1 or more"),
        ({"batch_norm_momentum": 0.0}, "batch_norm_momentum=0.0; must be above 0 and at most 1"),
        ({"logit_scale": -1.0}, "logit_scale=-1.0; must be a number above 0"),
    ],
)
def test_refuses_what_cannot_be_built(keywords, message):
    with pytest.raises(ValueError) as error:
        build(**keywords)
    assert str(error.value) == message
