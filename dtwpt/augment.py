"""Amplitude-phase recombination: one image's Fourier phases with another one's amplitudes.

From G. Chen et al., "Amplitude-Phase Recombination: Rethinking Robustness of Convolutional Neural
Networks in Frequency Domain", ICCV 2021: the label stays with the phases, so that a network learns
to read these. The classes are modules that are called as the transforms of
``torchvision.transforms.v2`` are; they draw from torch's random numbers.

>>> import torch
>>> from dtwpt.augment import PairRecombination
>>> images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
>>> images, labels = PairRecombination(append=True)(images, labels)
>>> images.shape, labels.shape
(torch.Size([16, 3, 32, 32]), torch.Size([16]))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

if find_spec("torch") is None:
    raise ImportError('dtwpt.augment needs torch: pip install "dtwpt[torch]"')

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PairRecombination", "SingleRecombination", "recombine"]

Operation = Callable[[Tensor], Tensor]

#: Of 10, as in the article; magnitudes are drawn from 0.1 up to it.
_LEVEL = 3.0


def recombine(
    phase: Tensor,
    amplitude: Tensor,
    *,
    dims: Sequence[int] = (-2, -1),
    clamp: bool = False,
) -> Tensor:
    """Return the image with the Fourier phases of one image and the amplitudes of another.

    Parameters
    ----------
    phase, amplitude : Tensor, shape (..., H, W), floating-point
        Of shapes that broadcast, the sides equal.
    dims : sequence of int, default: (-2, -1)
        Axes of the Fourier transform. (-3, -2, -1) transforms the channels too, as the published
        code does.
    clamp : bool, default: False
        Whether to clamp to 0..1: parts of a recombined image lie outside.

    Returns
    -------
    Tensor
        Real, of the dtype of ``phase``; half precision is computed in float32. Where
        ``phase`` has no energy at a frequency, its phase is 0 there.

    Raises
    ------
    TypeError, ValueError
        If an argument is no floating-point tensor, or the sides differ.

    Notes
    -----
    A shift of ``phase`` shifts the result, a shift of ``amplitude`` changes nothing. The mean of
    the result is that of ``amplitude``, with the sign of that of ``phase``.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.augment import recombine
    >>> x = torch.rand(3, 8, 8)
    >>> torch.allclose(recombine(x, x), x, atol=1e-6)
    True
    """
    for name, given in (("phase", phase), ("amplitude", amplitude)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(given).__name__}")
        if not given.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype, got {given.dtype}")
        if given.ndim < len(dims):
            raise ValueError(f"{name} must have the axes {dims}, got shape {tuple(given.shape)}")
    sides = [phase.shape[axis] for axis in dims]
    if sides != [amplitude.shape[axis] for axis in dims]:
        raise ValueError(
            "phase and amplitude must be of one size, got "
            f"{tuple(phase.shape)} and {tuple(amplitude.shape)}"
        )
    dtype = torch.promote_types(phase.dtype, torch.float32)
    angle = torch.fft.rfftn(phase.to(dtype), dim=tuple(dims)).angle()
    size = torch.fft.rfftn(amplitude.to(dtype), dim=tuple(dims)).abs()
    mixed: Tensor = torch.fft.irfftn(torch.polar(size, angle), sides, dim=tuple(dims))
    mixed = mixed.to(phase.dtype)
    return mixed.clamp(0, 1) if clamp else mixed


class PairRecombination(nn.Module):
    """Give the images of a batch the amplitudes of one another (APR-P).

    Parameters
    ----------
    p : float, default: 0.6
        Probability of recombining; drawn once for the whole batch.
    clamp : bool, default: True
        Whether values are clamped to 0 to 1. The published code does not, and lets a seventh of
        the pixels of two photographs lie outside.
    append : bool, default: False
        Whether the batch becomes twice as long, the images as they are and then the recombined
        ones, as in the article; with the labels.
    dims : sequence of int, default: (-2, -1)
        As for :func:`recombine`.

    Raises
    ------
    TypeError, ValueError
        If p is no probability.

    Notes
    -----
    Called with images (N, C, H, W), 0 to 1, and anything else, such as their labels (N, ...), it
    returns all of it. Labels are those of the phases. Partners form one random cycle, so no image
    is its own partner; the published code shuffles, so that some images keep their own amplitudes.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.augment import PairRecombination
    >>> PairRecombination(p=1.0)(torch.rand(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        p: float = 0.6,
        *,
        clamp: bool = True,
        append: bool = False,
        dims: Sequence[int] = (-2, -1),
    ) -> None:
        super().__init__()
        self.p, self.clamp, self.append, self.dims = _probability(p), clamp, append, tuple(dims)

    def forward(self, images: Tensor, *others: Any) -> Any:
        """Return the images, recombined or not, and whatever else was given."""
        if not isinstance(images, Tensor) or images.ndim != 4:
            raise TypeError("images must be a torch.Tensor of shape (N, C, H, W)")
        mixed = images
        if torch.rand(()) < self.p:
            order = torch.randperm(len(images), device=images.device)
            partner = torch.empty_like(order)
            partner[order] = order.roll(1)
            mixed = recombine(images, images[partner], dims=self.dims, clamp=self.clamp)
        if self.append:
            mixed = torch.cat([images, mixed])
            others = tuple(
                torch.cat([other, other]) if isinstance(other, Tensor) else other
                for other in others
            )
        return (mixed, *others) if others else mixed

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"p={self.p}, clamp={self.clamp}, append={self.append}, dims={self.dims}"


class SingleRecombination(nn.Module):
    """Recombine two altered copies of one image (APR-S).

    With probability one half, one operation alters the image. Otherwise the amplitudes of one
    altered copy meet the phases of another, or the other way round.

    Parameters
    ----------
    operations : sequence of callable, optional
        Each from an image (C, H, W) to one of that shape. By default those of the article at
        level 3 of 10: autocontrast, equalize, posterize, rotate, solarize, shear and translate
        along either axis.
    p : float, default: 0.5
        Probability of a recombination.
    clamp : bool, default: True
        Whether values are clamped to 0 to 1.
    dims : sequence of int, default: (-2, -1)
        As for :func:`recombine`.

    Raises
    ------
    TypeError, ValueError
        If p is no probability, or there is no operation.

    Notes
    -----
    Called with an image (C, H, W), or a batch (N, C, H, W) of which each is drawn for, and anything
    else; it returns all of it.

    The published code converts the result to bytes without clamping, so that values below 0 and
    above 255 wrap around: dark pixels in bright places. With ``clamp=True`` they stay bright.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.augment import SingleRecombination
    >>> image, label = SingleRecombination()(torch.rand(3, 32, 32), 7)
    >>> image.shape, label
    (torch.Size([3, 32, 32]), 7)
    """

    def __init__(
        self,
        operations: Sequence[Operation] | None = None,
        *,
        p: float = 0.5,
        clamp: bool = True,
        dims: Sequence[int] = (-2, -1),
    ) -> None:
        super().__init__()
        self.operations = _OPERATIONS if operations is None else tuple(operations)
        if not self.operations:
            raise ValueError("operations must not be empty")
        self.p, self.clamp, self.dims = _probability(p), clamp, tuple(dims)

    def forward(self, image: Tensor, *others: Any) -> Any:
        """Return the image, or images, altered, and whatever else was given."""
        if not isinstance(image, Tensor) or image.ndim not in (3, 4):
            raise TypeError("image must be a torch.Tensor of shape (C, H, W) or (N, C, H, W)")
        if image.ndim == 3:
            altered = self._altered(image)
        else:
            altered = torch.stack([self._altered(one) for one in image])
        return (altered, *others) if others else altered

    def _altered(self, image: Tensor) -> Tensor:
        copy = self._operation()(image)
        if torch.rand(()) < self.p:
            pair = (copy, self._operation()(image))
            phase, amplitude = pair if torch.rand(()) < 0.5 else pair[::-1]
            copy = recombine(phase, amplitude, dims=self.dims)
        return copy.clamp(0, 1) if self.clamp else copy

    def _operation(self) -> Operation:
        return self.operations[int(torch.randint(len(self.operations), ()))]

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return (
            f"{len(self.operations)} operations, p={self.p}, clamp={self.clamp}, dims={self.dims}"
        )


def _probability(p: Any) -> float:
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise TypeError(f"p must be a number from 0 to 1, got {p!r}")
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a number from 0 to 1, got {p!r}")
    return float(p)


# The operations, on images (C, H, W) of 0 to 1 --------------------------------------------------


def _magnitude(most: float) -> float:
    return most * float(torch.empty(()).uniform_(0.1, _LEVEL)) / 10


def _signed(most: float) -> float:
    return _magnitude(most) * (1 if torch.rand(()) < 0.5 else -1)


def _autocontrast(image: Tensor) -> Tensor:
    low, high = image.flatten(1).amin(1), image.flatten(1).amax(1)
    span = (high - low)[:, None, None]
    stretched = (image - low[:, None, None]) / torch.where(span > 0, span, 1)
    return torch.where(span > 0, stretched, image)


def _equalize(image: Tensor) -> Tensor:
    levels = (image.clamp(0, 1) * 255).round().long()
    flat = levels.flatten(1)
    counts = torch.zeros(len(image), 256, dtype=torch.int64, device=image.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    below = counts.cumsum(1)
    first = counts.gather(1, flat.amin(1, keepdim=True))
    rest = flat.shape[1] - first
    table = (below - first).clamp(min=0) / rest.clamp(min=1)
    equal = table.gather(1, flat).reshape(image.shape).to(image.dtype)
    return torch.where((rest > 0)[..., None], equal, image)


def _posterize(image: Tensor) -> Tensor:
    kept: int = 2 ** (4 - int(_magnitude(4)))
    levels = (image * 255).clamp(0, 255).div(256 // kept).floor()
    return levels * (256 // kept) / 255


def _solarize(image: Tensor) -> Tensor:
    return torch.where(image < 1 - _magnitude(1), image, 1 - image)


def _affine(image: Tensor, matrix: list[list[float]]) -> Tensor:
    """Sample the image at matrix times (x, y, 1), in units of half its sides; zeros beyond it."""
    theta = torch.tensor([matrix], dtype=image.dtype, device=image.device)
    grid = functional.affine_grid(theta, [1, *image.shape], align_corners=False)
    sampled: Tensor = functional.grid_sample(image[None], grid, align_corners=False)[0]
    return sampled


def _rotate(image: Tensor) -> Tensor:
    angle = math.radians(_signed(30))
    ratio = image.shape[-2] / image.shape[-1]  # of units along the axes
    cos, sin = math.cos(angle), math.sin(angle)
    return _affine(image, [[cos, sin * ratio, 0], [-sin / ratio, cos, 0]])


def _shear_x(image: Tensor) -> Tensor:
    return _affine(image, [[1, _signed(0.3), 0], [0, 1, 0]])


def _shear_y(image: Tensor) -> Tensor:
    return _affine(image, [[1, 0, 0], [_signed(0.3), 1, 0]])


def _translate_x(image: Tensor) -> Tensor:
    return _affine(image, [[1, 0, 2 * _signed(1 / 3)], [0, 1, 0]])


def _translate_y(image: Tensor) -> Tensor:
    return _affine(image, [[1, 0, 0], [0, 1, 2 * _signed(1 / 3)]])


_OPERATIONS: tuple[Operation, ...] = (
    _autocontrast,
    _equalize,
    _posterize,
    _rotate,
    _solarize,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
