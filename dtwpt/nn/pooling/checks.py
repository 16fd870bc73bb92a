"""Checks of the arguments and inputs of poolings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dtwpt.checks import as_int

__all__ = ["as_blur", "as_step", "check_divisible", "check_maps"]


def as_step(stride: Any) -> int:
    """Return the stride of a pooling as an int of at least 2."""
    accepted = "an integer of at least 2"
    number = as_int(stride, "stride", accepted)
    if number < 2:
        raise ValueError(f"stride must be {accepted}, got {number}")
    return number


def as_blur(blur: Any) -> int:
    """Return the taps of a binomial filter as an int from 1 to 7."""
    accepted = "an integer from 1 to 7"
    number = as_int(blur, "blur", accepted)
    if not 1 <= number <= 7:
        raise ValueError(f"blur must be {accepted}, got {number}")
    return number


def check_maps(x: Tensor, channels: int | None = None) -> None:
    """Raise an error unless ``x`` is a batch of floating-point maps."""
    if x.ndim != 4:
        raise ValueError(f"x must have shape (N, C, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be of a floating-point dtype, got {x.dtype}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"x must have {channels} channels, got {x.shape[1]}")


def check_divisible(x: Tensor, stride: int) -> None:
    """Raise an error unless the sides of ``x`` are multiples of the stride."""
    height, width = x.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"x of {height} x {width} pixels has no phases of one size at stride {stride}: "
            f"height and width must be multiples of {stride}"
        )
