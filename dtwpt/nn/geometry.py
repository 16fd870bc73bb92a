"""Convolutions and poolings that a modulus can stand in for, and where its samples lie."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["Axis", "as_activation", "as_axes", "as_convolution", "as_norm", "as_pooling"]


class Axis(NamedTuple):
    """One axis: convolution of ``kernel`` taps, then windows of ``window`` of its outputs."""

    kernel: int
    stride: int
    padding: int
    window: int
    hop: int
    margin: int
    ceil_mode: bool

    @property
    def step(self) -> int:
        """Pixels between pooling windows."""
        return self.stride * self.hop

    @property
    def before(self) -> int:
        """Pixels from the first tap, with the kernel amid the first window, to the image."""
        return self.padding + self.stride * self.margin - self.stride * (self.window - 1) // 2

    def count(self, n: int) -> int:
        """Return the number of pooling windows on n pixels."""
        inner = (n + 2 * self.padding - self.kernel) // self.stride + 1
        room = inner + 2 * self.margin - self.window
        if not self.ceil_mode:
            return room // self.hop + 1
        # A last window that would begin beyond the padding is left out.
        whole, within = -(room // -self.hop) + 1, -((inner + self.margin) // -self.hop)
        count: int = torch.sym_min(whole, within)  # type: ignore[no-untyped-call]
        return count


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
    if _pair(pool.dilation) != (1, 1) or pool.return_indices:
        raise ValueError("pool must have dilation=1 and return_indices=False")
    if len(set(_pair(pool.stride))) > 1:
        raise ValueError(f"pool must have one stride for both axes, got {pool.stride}")
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


def as_axes(conv: nn.Conv2d, pool: nn.MaxPool2d) -> tuple[Axis, Axis]:
    """Return rows and columns of a convolution and the pooling after it."""
    rows, columns = (
        Axis(
            conv.kernel_size[axis],
            conv.stride[axis],
            int(conv.padding[axis]),
            _pair(pool.kernel_size)[axis],
            _pair(pool.stride)[axis],
            _pair(pool.padding)[axis],
            pool.ceil_mode,
        )
        for axis in (0, 1)
    )
    for axis in (rows, columns):
        if axis.stride * (axis.window - 1) % 2:
            raise ValueError(
                f"the middle of a pooling window of {axis.window} samples, {axis.stride} pixels "
                "apart, lies between pixels, where no sample can be taken"
            )
    return rows, columns


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return first, second
