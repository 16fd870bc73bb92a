"""Circular convolution in space and by spectra, and that networks of it commute with rolls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dtwpt.nn import CircularConv2d
from tests.strategies import seeds

sides = st.integers(1, 9)


def naive(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Sum over taps of rolled images, group by group."""
    rows, columns = conv.kernel_size
    out = []
    for part, weight in zip(x.chunk(conv.groups, 1), conv.weight.chunk(conv.groups), strict=True):
        total = torch.zeros((), dtype=x.dtype)
        for i in range(rows):
            for j in range(columns):
                moved = part.roll(((rows - 1) // 2 - i, (columns - 1) // 2 - j), (-2, -1))
                total = total + torch.einsum("nihw,oi->nohw", moved, weight[..., i, j])
        out.append(total)
    whole = torch.cat(out, 1)
    return whole if conv.bias is None else whole + conv.bias[:, None, None]


@given(seeds, sides, sides, sides, sides, st.sampled_from([1, 2]), st.booleans())
def test_both_ways_are_the_definition(
    seed: int, height: int, width: int, rows: int, columns: int, groups: int, bias: bool
) -> None:
    torch.manual_seed(seed)
    conv = CircularConv2d(2, 4, (rows, columns), groups=groups, bias=bias).double()
    x = torch.randn(2, 2, height, width, dtype=torch.float64)
    expected = naive(x, conv)
    torch.testing.assert_close(conv(x), expected)
    conv.fft = True
    torch.testing.assert_close(conv(x), expected)
    torch.testing.assert_close(conv(x[0]), expected[0])


def test_gradients_and_state() -> None:
    conv = CircularConv2d(2, 3, 4, fft=True).double()
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, (x,))
    other = CircularConv2d(2, 3, 4).double()
    other.load_state_dict(conv.state_dict())
    for y in (conv(x), other(x)):
        torch.testing.assert_close(y, naive(x, conv))
    (weight,) = torch.autograd.grad(conv(x).square().sum(), conv.weight)
    (same,) = torch.autograd.grad(other(x).square().sum(), other.weight)
    torch.testing.assert_close(weight, same)
    half = conv.bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    # Tools build layers of the same type by the arguments of Conv2d (LoRA).
    like: Any = CircularConv2d(2, 3, 4, other.stride, other.padding, bias=False)  # type: ignore[arg-type]
    assert like.double()(x).shape == y.shape
    for name, value in (("stride", 2), ("padding", (1, 1))):
        wrong: Any = {name: value}
        with pytest.raises(ValueError, match=f"{name} of a circular convolution must be"):
            CircularConv2d(1, 1, 3, **wrong)
    with pytest.raises(TypeError, match="fft must be True or False, got 1"):
        CircularConv2d(1, 1, 3, fft=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("fft", [False, True])
def test_stride_one_network_is_exact(fft: bool) -> None:
    """Whatever its weights: a fully convolutional network of stride 1, and the mean over space."""
    torch.manual_seed(0)
    net = nn.Sequential(
        CircularConv2d(3, 8, 3, fft=fft),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        CircularConv2d(8, 8, 4, groups=2, fft=fft),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).double()
    x = torch.randn(2, 3, 11, 7, dtype=torch.float64)
    for training in (True, False):
        net.train(training)
        still = net(x)
        for shift in ((1, 0), (0, 3), (5, 6)):
            torch.testing.assert_close(net(x.roll(shift, (-2, -1))), still, rtol=0, atol=1e-13)
    strided = nn.Sequential(net[:2], nn.AvgPool2d(1, 2), net[2:])
    assert (strided(x.roll(1, -1)) - strided(x)).abs().max() > 1e-4
