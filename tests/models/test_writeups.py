"""The networks of write-ups D0, D1, D2 and D4 against the same networks written out layer by layer.

Each comparison copies the weights in order, replaces every statistic of the batch norms by a random one and
compares the logits twice: in evaluation, and in training under the same seed, which compares the batch
statistics, and the places, probabilities and order of all dropouts.
"""

import pytest
import torch
from torch import nn
from torch.nn import BatchNorm1d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, ReLU6

from cifar_lab.models.build import build_model
from cifar_lab.models.dropout import Dropout


class Concatenated(nn.Module):
    """x and layer(x), side by side."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layer = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.layer(x)), 1)


class Added(nn.Module):
    """main(x) + shortcut(x), then ReLU6."""

    def __init__(self, main: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu6(self.main(x) + self.shortcut(x))


def conv3(i: int, o: int, **keywords) -> Conv2d:
    return Conv2d(i, o, 3, padding=1, **keywords)


def gap() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d((1, 1)), Flatten()]


def alexnet_like() -> list[nn.Module]:
    return [
        *(conv3(3, 64), ReLU(), BatchNorm2d(64), MaxPool2d(2)),
        *(conv3(64, 128), ReLU(), BatchNorm2d(128), MaxPool2d(2)),
        *(conv3(128, 256), ReLU(), BatchNorm2d(256)),
        *(conv3(256, 256), ReLU(), BatchNorm2d(256), MaxPool2d(2)),
        *(Flatten(), Linear(4096, 1024), ReLU(), Dropout(0.5)),
        *(Linear(1024, 512), ReLU(), Dropout(0.5), Linear(512, 10)),
    ]


def mobilenet_like() -> list[nn.Module]:
    def block(i: int, o: int) -> list[nn.Module]:
        return [conv3(i, i, groups=i), ReLU(), BatchNorm2d(i), Conv2d(i, o, 1), ReLU()]

    stem = [conv3(3, 32), ReLU(), BatchNorm2d(32)]
    return [*stem, *block(32, 64), MaxPool2d(2), *block(64, 128), MaxPool2d(2), *block(128, 256), *gap(), Linear(256, 10)]


def densenet(separable: bool, downsample: bool = False) -> list[nn.Module]:
    def conv(i: int, o: int) -> list[nn.Module]:
        if not separable:
            return [conv3(i, o, bias=False)]
        return [conv3(i, i, groups=i, bias=False), Conv2d(i, o, 1, bias=False)]

    layers = conv(3, 32)
    for width, out in ((32, 64), (64, 96), (96, 128), (128, 128)):
        for i in range(4):
            now = width + 16 * i
            layers.append(Concatenated(BatchNorm2d(now), ReLU(), *conv(now, 16)))
        layers.append(Conv2d(width + 64, out, 1))
        if downsample and (width, out) != (128, 128):
            layers.append(nn.AvgPool2d(2))
    return [*layers, *gap(), Linear(128, 10)]


def traditional_cnn() -> list[nn.Module]:
    return [
        *(conv3(3, 64), ReLU(), conv3(64, 64), ReLU(), MaxPool2d(2)),
        *(conv3(64, 128), ReLU(), conv3(128, 128), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(8192, 256), ReLU(), Dropout(0.5), Linear(256, 10)),
    ]


def few_param_resnet() -> list[nn.Module]:
    def unit(i: int, o: int, kernel: int, stride: int) -> list[nn.Module]:
        depthwise = Conv2d(i, i, kernel, stride=stride, padding=kernel // 2, groups=i, bias=True)
        return [depthwise, Conv2d(i, o, 1, bias=False), BatchNorm2d(o)]

    def block(i: int, o: int, stride: int) -> nn.Module:
        shortcut = nn.Identity() if i == o else nn.Sequential(*unit(i, o, 1, stride))
        return Added(nn.Sequential(*unit(i, o, 3, stride), ReLU6(), *unit(o, o, 3, 1)), shortcut)

    return [
        *(*unit(3, 32, 7, 2), ReLU6(), MaxPool2d(3, stride=2, padding=1)),
        *(block(32, 32, 1), block(32, 32, 1), block(32, 64, 2), block(64, 64, 1)),
        *(block(64, 128, 2), block(128, 128, 1), block(128, 256, 2), block(256, 256, 1)),
        *(*gap(), Linear(256, 64), Dropout(0.2), Linear(64, 10)),
    ]


def dense_dnn() -> list[nn.Module]:
    return [
        *(Flatten(), Linear(3072, 512), ReLU(), BatchNorm1d(512), Dropout(0.3)),
        *(Linear(512, 256), ReLU(), Dropout(0.3), Linear(256, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 10)),
    ]


def unit(i: int, o: int) -> list[nn.Module]:
    return [conv3(i, o), BatchNorm2d(o), ReLU()]


def tf_cnn() -> list[nn.Module]:
    return [
        *(*unit(3, 32), *unit(32, 32), MaxPool2d(2), Dropout(0.2)),
        *(*unit(32, 64), *unit(64, 64), MaxPool2d(2), Dropout(0.3)),
        *(*unit(64, 128), MaxPool2d(2), Dropout(0.4)),
        *(Flatten(), Linear(2048, 512), ReLU(), Dropout(0.5), Linear(512, 10)),
    ]


def custom_cnn() -> list[nn.Module]:
    return [
        *(*unit(3, 64), *unit(64, 64), MaxPool2d(2), Dropout(0.25)),
        *(*unit(64, 128), *unit(128, 128), MaxPool2d(2), Dropout(0.25)),
        *(*unit(128, 256), *unit(256, 256), *unit(256, 256), MaxPool2d(2), Dropout(0.25)),
        *(*gap(), Linear(256, 256), ReLU(), Dropout(0.5), Linear(256, 10)),
    ]


WRITTEN_OUT = [
    ("alexnet_like", {}, alexnet_like()),
    ("mobilenet_like", {}, mobilenet_like()),
    ("separable_densenet", {}, densenet(separable=True)),
    ("separable_densenet", {"conv": "standard"}, densenet(separable=False)),
    ("separable_densenet", {"downsample": True}, densenet(separable=True, downsample=True)),
    ("traditional_cnn", {}, traditional_cnn()),
    ("few_param_resnet", {}, few_param_resnet()),
    ("dense_dnn", {}, dense_dnn()),
    ("tf_cnn", {}, tf_cnn()),
    ("custom_cnn", {}, custom_cnn()),
]


def scramble_norms(model: nn.Module) -> None:
    """A fresh batch norm is nearly the identity in evaluation, so that its place would not show."""
    for module in model.modules():
        if isinstance(module, BatchNorm1d | BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize(("name", "keywords", "layers"), WRITTEN_OUT, ids=[f"{n}-{k}" for n, k, _ in WRITTEN_OUT])
def test_equals_the_network_written_out(name, keywords, layers):
    torch.manual_seed(0)
    ours = build_model(name, num_classes=10, input_size=32, **keywords)
    scramble_norms(ours)
    written_out = nn.Sequential(*layers)
    written_out.load_state_dict(dict(zip(written_out.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(3, 3, 32, 32)
    for training in (False, True):
        torch.manual_seed(1)
        found = ours.train(training)(images)
        torch.manual_seed(1)
        expected = written_out.train(training)(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.std() > 1e-3  # not equal because both are blank


@pytest.mark.parametrize("input_size", [32, 64, 128, 224, 320])
def test_few_param_resnet_at_its_resolutions(input_size):
    model = build_model("few_param_resnet", num_classes=10, input_size=input_size).eval()
    image = torch.randn(1, 3, input_size, input_size)
    assert model.stages(model.stem(image)).shape == (1, 256, input_size // 32, input_size // 32)
    assert model(image).shape == (1, 10)


@pytest.mark.parametrize("width_mult", [0.25, 0.3, 0.5, 1.1, 1.4, 2.0])
def test_few_param_resnet_rounds_widths_as_torchvision_does(width_mult):
    from torchvision.models._utils import _make_divisible

    model = build_model("few_param_resnet", num_classes=10, input_size=32, width_mult=width_mult)
    found = [stage[-1].conv2[0].pointwise.out_channels for stage in model.stages]
    assert found == [_make_divisible(width * width_mult, 8) for width in (32, 64, 128, 256)]
    assert model.stem[0][0].pointwise.out_channels == found[0]


@pytest.mark.parametrize(("depth_mult", "depth"), [(0.5, 1), (1.0, 2), (1.1, 3), (1.5, 3), (2.0, 4)])
def test_few_param_resnet_rounds_depth_up(depth_mult, depth):
    model = build_model("few_param_resnet", num_classes=10, input_size=32, width_mult=0.25, depth_mult=depth_mult)
    assert [len(stage) for stage in model.stages] == [depth] * 4


@pytest.mark.parametrize(("downsample", "sizes"), [(False, [32, 32, 32, 32]), (True, [16, 8, 4, 4])])
def test_maps_of_the_densenet(downsample, sizes):
    model = build_model("separable_densenet", num_classes=10, input_size=32, downsample=downsample, growth_rate=2)
    maps, found = model.stem(torch.zeros(1, 3, 32, 32)), []
    for block in model.blocks:
        maps = block(maps)
        found.append(maps.shape[-1])
    assert found == sizes


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("alexnet_like", {"widths": (1, 2)}, "widths=[1, 2]; must be 4 numbers"),
        ("alexnet_like", {"input_size": 7}, "input_size=7; must be 8 or more for 3 poolings"),
        ("alexnet_like", {"hidden": ()}, "hidden=[]; must be at least one number, each 1 or more"),
        ("alexnet_like", {"dropout": -0.1}, "dropout=-0.1; must be 0 or more and less than 1"),
        ("mobilenet_like", {"kernel_size": 4}, "kernel_size=4; must be odd and 1 or more"),
        ("mobilenet_like", {"stem_channels": 0}, "stem_channels=0; must be 1 or more"),
        ("separable_densenet", {"conv": "dense"}, "conv=dense; must be separable or standard"),
        ("separable_densenet", {"growth_rate": 0}, "growth_rate=0; must be 1 or more"),
        (
            "separable_densenet",
            {"transition_channels": (4, 0)},
            "transition_channels=[4, 0]; must be at least one number, each 1 or more",
        ),
        ("traditional_cnn", {"depths": (2,)}, "depths=[2]; must be as many numbers as widths, 2"),
        ("traditional_cnn", {"input_size": 3}, "input_size=3; must be 4 or more for 2 poolings"),
        ("tf_cnn", {"group_dropouts": (0.1,)}, "group_dropouts=[0.1]; must be as many numbers as widths, 3"),
        ("tf_cnn", {"group_dropouts": (0.1, 0.1, 1.0)}, "group_dropouts=1.0; must be 0 or more and less than 1"),
        ("custom_cnn", {"hidden": 0}, "hidden=0; must be 1 or more"),
        ("few_param_resnet", {"width_mult": 0.0}, "width_mult=0.0; must be a number above 0"),
        ("few_param_resnet", {"depth_mult": float("nan")}, "depth_mult=nan; must be a number above 0"),
        ("dense_dnn", {"num_batch_norms": 5}, "num_batch_norms=5; must be 0 to 4, the number of hidden layers"),
        ("dense_dnn", {"widths": (0,)}, "widths=[0]; must be at least one number, each 1 or more"),
    ],
)
def test_refuses_what_cannot_be_built(name, keywords, message):
    with pytest.raises(ValueError) as error:
        build_model(name, **{"num_classes": 10, "input_size": 32, **keywords})
    assert str(error.value) == message
