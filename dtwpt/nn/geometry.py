"""Convolutions and poolings that a modulus can stand in for, and averages over its windows."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_pair
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.windows import reach_beyond

__all__ = ["as_activation", "as_convolution", "as_norm", "as_pooling", "window_average"]


def as_convolution(conv: nn.Module) -> nn.Conv2d:
    """Return a convolution whose kernels can be extended."""
    if not isinstance(conv, nn.Conv2d) or type(conv).forward is not nn.Conv2d.forward:
        raise ValueError(f"conv must be an nn.Conv2d, got {type(conv).__name__}")
    expected = {"groups": 1, "padding_mode": "zeros", "dilation": (1, 1)}
    for name, value in expected.items():
        if getattr(conv, name) != value:
            raise ValueError(f"conv must have {name}={value!r}, got {getattr(conv, name)!r}")
    if isinstance(conv.padding, str):
        raise ValueError(f"conv must have its padding as numbers, got {conv.padding!r}")
    if conv.stride[0] != conv.stride[1]:
        raise ValueError(f"conv must have one stride for both axes, got {conv.stride}")
    return conv


def as_pooling(pool: nn.Module | None) -> nn.MaxPool2d:
    """Return a max pooling that a modulus can stand in for."""
    if type(pool) is not nn.MaxPool2d:
        given = "none" if pool is None else type(pool).__name__
        raise ValueError(
            f"pool must be an nn.MaxPool2d, whose maximum a modulus can stand for, got {given}"
        )
    if as_pair(pool.dilation, "dilation") != (1, 1) or pool.return_indices:
        raise ValueError("pool must have dilation=1 and return_indices=False")
    return pool


def as_norm(norm: nn.Module | None) -> nn.Module | None:
    """Return a normalisation with one scale for each channel, or None."""
    if norm is None or type(norm) is nn.Identity:
        return None
    plain = type(norm).forward in (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)
    if not plain and type(norm).__name__ != "FrozenBatchNorm2d":
        raise ValueError(
            "norm must be BatchNorm2d, SyncBatchNorm or FrozenBatchNorm2d, whose scale does not "
            f"depend on the image, got {type(norm).__name__}"
        )
    return norm


def as_activation(act: nn.Module | None, conv: nn.Conv2d) -> nn.Module | None:
    """Return an activation that never decreases, or None."""
    if act is None:
        return None
    values = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    with torch.no_grad():
        out = (
            copy.deepcopy(act)
            .eval()
            .to("cpu", torch.float64)(values.expand(1, conv.out_channels, 1, -1).clone())
        )
    if (out.diff(dim=-1) < -1e-9).any():
        raise ValueError(
            f"act must never decrease, so that it can be exchanged with the maximum, and "
            f"{type(act).__name__} does"
        )
    return act


def window_average(x: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """Average over the windows of a max pooling with binomial weights.

    As for the maximum, positions outside of x do not exist: the weights of the others sum to one.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    pool : torch.nn.MaxPool2d

    Returns
    -------
    Tensor, shape (N, C, H', W')
        Of the shape that the pooling gives.
    """
    window, hop, padding = (
        as_pair(getattr(pool, name), name, 0) for name in ("kernel_size", "stride", "padding")
    )
    channels = x.shape[1]
    with full_dtype(x):
        inside = torch.ones_like(x[:1, :1])
        if pool.ceil_mode:
            down, across = (
                reach_beyond(x.shape[axis + 2], window[axis], hop[axis], padding[axis])
                for axis in (0, 1)
            )
            x, inside = (functional.pad(v, (0, across, 0, down)) for v in (x, inside))
        rows, columns = (x.new_tensor([math.comb(n - 1, k) for k in range(n)]) for n in window)
        taps = torch.outer(rows, columns)[None, None]
        total = functional.conv2d(
            x, taps.expand(channels, 1, -1, -1), stride=hop, padding=padding, groups=channels
        )
        return total / functional.conv2d(inside, taps, stride=hop, padding=padding)
