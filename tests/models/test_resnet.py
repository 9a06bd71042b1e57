"""ResNet-18 against torchvision's own, and its keys."""

import pytest
import torch
import torchvision
from torch import nn

from cifar_lab.models.build import build_model


def build(**keywords) -> nn.Module:
    return build_model("resnet18", **{"num_classes": 10, "input_size": 32, **keywords})


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_equals_torchvision_with_the_same_weights(stem):
    torch.manual_seed(0)
    ours = build(stem=stem)
    theirs = torchvision.models.resnet18(num_classes=10)
    if stem == "cifar":
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.train()(images), theirs.train()(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_initialization_has_torchvisions_spread():
    torch.manual_seed(0)
    ours, theirs = build(stem="imagenet").state_dict(), torchvision.models.resnet18(num_classes=10).state_dict()
    for (name, a), b in zip(ours.items(), theirs.values(), strict=True):
        assert a.shape == b.shape, name
        if a.ndim == 4:
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.1), name


def test_zero_init_starts_every_block_as_the_identity():
    model = build(width=8, zero_init_residual=True).eval()
    features = torch.rand(1, 8, 4, 4)
    torch.testing.assert_close(model.stages[0](features), features)
    assert not torch.equal(build(width=8).eval().stages[0](features), features)


def test_kernel_size_of_blocks_and_cifar_stem():
    model = build(width=4, kernel_size=5)
    sizes = sorted({m.kernel_size[0] for m in model.modules() if isinstance(m, nn.Conv2d)})
    assert sizes == [1, 5]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    stem = build(width=4, kernel_size=5, stem="imagenet").stem
    assert [m.kernel_size for m in stem.modules() if isinstance(m, nn.Conv2d)] == [(7, 7)]


def test_maps_of_the_two_stems():
    image = torch.zeros(1, 3, 32, 32)
    assert build(width=4).stem(image).shape == (1, 4, 32, 32)
    assert build(width=4, stem="imagenet").stem(image).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"stem": "mnist"}, "stem=mnist; must be cifar or imagenet"),
        ({"width": 0}, "width=0; must be 1 or more"),
        ({"kernel_size": 2}, "kernel_size=2; must be odd and 1 or more"),
        ({"kernel_size": -1}, "kernel_size=-1; must be odd and 1 or more"),
    ],
)
def test_refuses_what_cannot_be_built(keywords, message):
    with pytest.raises(ValueError) as error:
        build(**keywords)
    assert str(error.value) == message
