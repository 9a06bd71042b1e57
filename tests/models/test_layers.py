"""The separable convolution against dense convolutions, and its cost."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifar_lab.models.layers import SeparableConv, depthwise_conv, global_pool, pointwise_conv


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("depthwise_bias", "pointwise_bias"), [(False, False), (True, False), (False, True), (True, True)])
def test_equals_a_dense_convolution_of_outer_products(kernel_size, stride, depthwise_bias, pointwise_bias):
    torch.manual_seed(0)
    layer = SeparableConv(5, 8, kernel_size, stride, depthwise_bias, pointwise_bias).double()
    first, second = layer.depthwise, layer.pointwise
    assert (first.bias is not None, second.bias is not None) == (depthwise_bias, pointwise_bias)
    mixing = second.weight[:, :, 0, 0]  # [out, in]
    kernel = torch.empty(8, 5, kernel_size, kernel_size, dtype=torch.float64)
    for o in range(8):
        for i in range(5):
            kernel[o, i] = mixing[o, i] * first.weight[i, 0]
    bias = torch.zeros(8, dtype=torch.float64)
    if depthwise_bias:
        bias = bias + mixing @ first.bias
    if pointwise_bias:
        bias = bias + second.bias
    images = torch.randn(2, 5, 9, 10, dtype=torch.float64)
    dense = F.conv2d(images, kernel, bias, stride=stride, padding=kernel_size // 2)
    torch.testing.assert_close(layer(images), dense)


def test_a_depthwise_convolution_keeps_channels_apart():
    layer = depthwise_conv(4, bias=True)
    images = torch.randn(1, 4, 6, 6)
    changed = images.clone()
    changed[:, 2] += 1
    differs = (layer(images) != layer(changed)).flatten(2).any(dim=2)[0]
    assert differs.tolist() == [False, False, True, False]


def test_a_pointwise_convolution_keeps_pixels_apart():
    layer = pointwise_conv(4, 7)
    images = torch.randn(2, 4, 3, 5)
    by_pixel = nn.functional.linear(images.permute(0, 2, 3, 1), layer.weight.flatten(1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(images), by_pixel)
    assert layer.bias is None


@pytest.mark.parametrize(("in_channels", "out_channels", "kernel_size"), [(64, 128, 3), (16, 8, 5)])
def test_number_of_weights(in_channels, out_channels, kernel_size):
    separable = sum(p.numel() for p in SeparableConv(in_channels, out_channels, kernel_size).parameters())
    dense = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False).weight.numel()
    assert separable == in_channels * kernel_size**2 + in_channels * out_channels
    assert separable / dense == pytest.approx((kernel_size**2 + out_channels) / (kernel_size**2 * out_channels))


def test_global_pool_is_the_mean_over_pixels():
    maps = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(global_pool()(maps), maps.mean(dim=(2, 3)))
