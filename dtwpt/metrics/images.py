"""Shifted images: crops, rolled, filled with zeros, or interpolated; and maps shifted back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dtwpt.checks import as_count, as_pair
from dtwpt.metrics.shifts import as_shifts

__all__ = ["iterate", "shifted_crops", "shifted_images", "ten_crops", "unshifted_maps"]

WAYS = ("crop", "roll", "zero", "fourier")


def shifted_crops(
    images: Tensor, size: int | tuple[int, int], shifts: ArrayLike | Tensor, *, scale: int = 1
) -> Tensor:
    """Cut crops with shifted content out of larger images, without padding.

    Shift (0, 0) is the crop in the middle, half a pixel up and to the left where there is no
    middle. A shift (down, right) moves the content that way: the crop is cut as many pixels
    further up and to the left.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
    size : int or (int, int)
        (h, w) of the crops, or the side of a square.
    shifts : array_like or Tensor, shape (S,), (S, 2) or (S, N, 2)
        Pixels. (S,): to the right; (S, 2): (down, right); (S, N, 2): a shift of its own for each
        image, as :func:`random_shifts` gives.
    scale : int, default: 1
        How many pixels of ``images`` make one of the crops along either axis. Crops of images of
        double size (``scale=2``) are subsampled, and may be shifted by multiples of half a pixel.

    Returns
    -------
    Tensor, shape (S, N, C, h, w)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or a crop does not lie within the image.

    See Also
    --------
    shifted_images : images that are shifted whole.
    shifted_outputs : a model's outputs for the crops.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import shifted_crops
    >>> image = torch.arange(6).reshape(1, 1, 1, 6)
    >>> shifted_crops(image, (1, 2), shifts=range(3)).squeeze()
    tensor([[2, 3],
            [1, 2],
            [0, 1]])
    """
    return torch.stack(list(iterate(images, size, shifts, "crop", scale)))


def shifted_images(images: Tensor, shifts: ArrayLike | Tensor, by: str = "roll") -> Tensor:
    """Shift images whole, so that they keep their size.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
    shifts : array_like or Tensor, shape (S,), (S, 2) or (S, N, 2)
        As for :func:`shifted_crops`: pixels (down, right). Whole ones unless by "fourier".
    by : {"roll", "zero", "fourier"}
        What enters at the border: the pixels that leave on the other side; zeros; or, for any
        fraction of a pixel, the periodic image interpolated by its Fourier series.

    Returns
    -------
    Tensor, shape (S, N, C, H, W)
        Of the dtype of the images.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or ``by`` is unknown.

    See Also
    --------
    shifted_crops : without padding.

    Notes
    -----
    The Fourier series of an even side has a highest frequency that cannot move: only its real part
    remains, ``cos(pi * shift)``. Whole shifts are then those of "roll", to rounding.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import shifted_images
    >>> image = torch.arange(4.0).reshape(1, 1, 1, 4)
    >>> shifted_images(image, [1], "roll").flatten().tolist()
    [3.0, 0.0, 1.0, 2.0]
    >>> shifted_images(image, [1], "zero").flatten().tolist()
    [0.0, 0.0, 1.0, 2.0]
    """
    if by not in WAYS[1:]:
        raise ValueError(f"unknown by {by!r}; known: {', '.join(WAYS[1:])}")
    return torch.stack(list(iterate(images, None, shifts, by, 1)))


def unshifted_maps(maps: Tensor, shifts: ArrayLike | Tensor, by: str = "crop") -> Tensor:
    """Shift maps back, so that every pixel shows the same place of the image at all shifts.

    A segmentation can then be compared with that of the shifted image, pixel by pixel, by
    :func:`flip_rate` and the other functions.

    Parameters
    ----------
    maps : Tensor, shape (S, N, K, H, W), or (S, N, H, W) of integers
        Logits or features of K channels, or predicted classes, of S shifts and N images, as
        :func:`shifted_outputs` gives of a model that keeps the size of the image.
    shifts : array_like or Tensor, shape (S,), (S, 2) or (S, N, 2)
        Those of the images, in pixels of the maps.
    by : {"crop", "roll", "zero", "fourier"}
        How the images were shifted. After "crop" and "zero" only the pixels that are seen at all
        shifts are left.

    Returns
    -------
    Tensor, shape (S, N, K, H', W') or (S, N, H', W')

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, ``by`` is unknown, or no pixel is seen at all
        shifts.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_rate, shifted_images, unshifted_maps
    >>> images = torch.rand(1, 3, 8, 8)
    >>> maps = shifted_images(images, range(3))  # a model that returns its input
    >>> flip_rate(unshifted_maps(maps, range(3), "roll"))
    tensor(0., dtype=torch.float64)
    """
    if by not in WAYS:
        raise ValueError(f"unknown by {by!r}; known: {', '.join(WAYS)}")
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps must be a torch.Tensor, got {type(maps).__name__}")
    classes = not maps.is_floating_point()
    if maps.ndim != (4 if classes else 5):
        raise ValueError(
            "maps must have shape (S, N, K, H, W), or (S, N, H, W) of integers, got "
            f"{tuple(maps.shape)} {maps.dtype}"
        )
    moves = as_shifts(shifts, maps.shape[1], None if by == "fourier" and not classes else 1)
    if len(moves) != len(maps):
        raise ValueError(f"shifts must be as many as maps have, {len(maps)}, got {len(moves)}")
    whole = maps[:, :, None] if classes else maps
    if by in ("roll", "fourier"):
        way = "roll" if classes else by
        back = torch.stack([_moved(x, -move, way) for x, move in zip(whole, moves, strict=True)])
    else:
        first = (-moves.amin((0, 1))).clamp(min=0).tolist()
        last = moves.amax((0, 1)).clamp(min=0).tolist()
        sides = [n - a - b for n, a, b in zip(maps.shape[-2:], first, last, strict=True)]
        if min(sides) < 1:
            raise ValueError(
                f"shifts must leave a pixel of {tuple(maps.shape[-2:])} that is seen at all of them"
            )
        back = torch.stack(
            [
                _cut(x, move + torch.tensor(first), sides)
                for x, move in zip(whole, moves, strict=True)
            ]
        )
    return back[:, :, 0] if classes else back


def ten_crops(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cut the four corners and the middle out of images, and of these mirrored.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
    size : int or (int, int)
        (h, w) of the crops, or the side of a square.

    Returns
    -------
    Tensor, shape (10, N, C, h, w)
        Top left, top right, bottom left, bottom right, middle; then the same of the mirrored
        images, as ``torchvision.transforms.TenCrop`` orders them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or the crops are larger than the images.

    See Also
    --------
    ten_crop_probabilities : a model's class probabilities for them.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import ten_crops
    >>> ten_crops(torch.rand(2, 3, 256, 256), 224).shape
    torch.Size([10, 2, 3, 224, 224])
    """
    _check(images)
    height, width, room = _room(images, size)
    down, right = room.tolist()
    corners = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    return torch.stack(
        [
            x[..., top : top + height, left : left + width]
            for x in (images, images.flip(-1))
            for top, left in corners
        ]
    )


def iterate(images: Any, size: Any, shifts: Any, by: str, scale: Any) -> Iterator[Tensor]:
    """Yield the images (N, C, h, w) of one shift after the other."""
    _check(images)
    if by == "crop":
        yield from _crops(images, size, shifts, as_count(scale, "scale"))
        return
    if by not in WAYS:
        raise ValueError(f"unknown by {by!r}; known: {', '.join(WAYS)}")
    if size is not None or scale != 1:
        raise ValueError(f'size must be None and scale 1 unless by="crop", got {size} and {scale}')
    for move in as_shifts(shifts, len(images), None if by == "fourier" else 1):
        yield _moved(images, move, by)


def _check(images: Any) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have shape (N, C, H, W), no axis empty, got {tuple(images.shape)}"
        )


def _room(images: Tensor, size: Any, scale: int = 1) -> tuple[int, int, Tensor]:
    """Return the size of crops, and how far they can move within the images."""
    height, width = as_pair(size, "size")
    seen = [(side - 1) * scale + 1 for side in (height, width)]
    room = torch.tensor([images.shape[-2] - seen[0], images.shape[-1] - seen[1]])
    if room.min() < 0:
        at = f" at scale {scale}" if scale > 1 else ""
        raise ValueError(
            f"size {height} x {width}{at} is larger than the "
            f"images, {images.shape[-2]} x {images.shape[-1]} pixels"
        )
    return height, width, room


def _crops(images: Tensor, size: Any, shifts: Any, scale: int) -> Iterator[Tensor]:
    height, width, room = _room(images, size, scale)
    moves = as_shifts(shifts, len(images), scale)
    corners = room // 2 - moves
    if (corners < 0).any() or (corners > room).any():
        (up, left), (down, right) = (
            [n / scale if n % scale else n // scale for n in side.tolist()]
            for side in (room - room // 2, room // 2)
        )
        raise ValueError(
            f"shifts of crops of {height} x {width} within {images.shape[-2]} x {images.shape[-1]} "
            f"pixels must be from {-up} to {down} down and from {-left} to {right} to the right, "
            f"got {moves.amin((0, 1)).tolist()} to {moves.amax((0, 1)).tolist()}"
            + (f" of 1/{scale} pixel" if scale > 1 else "")
        )
    for places in corners:
        # The last pixel needs no more than one of the image.
        sides = [(side - 1) * scale + 1 for side in (height, width)]
        yield _cut(images, places, sides)[..., ::scale, ::scale]


def _cut(images: Tensor, corners: Tensor, sides: list[int]) -> Tensor:
    """Cut out of each image what begins at a corner of its own."""
    (height, width) = sides
    return torch.stack(
        [
            image[..., top : top + height, left : left + width]
            for image, (top, left) in zip(images, corners.tolist(), strict=True)
        ]
    )


def _moved(images: Tensor, move: Tensor, by: str) -> Tensor:
    """Shift each image (N, C, H, W) by its own (N, 2)."""
    if by == "fourier":
        return _interpolated(images, move)
    moved = []
    for image, (down, right) in zip(images, move.tolist(), strict=True):
        rolled = image.roll((down, right), (-2, -1))
        if by == "zero":
            for axis, shift in ((-2, down), (-1, right)):
                side = rolled.shape[axis]
                count = min(abs(shift), side)
                rolled.narrow(axis, 0 if shift > 0 else side - count, count).zero_()
        moved.append(rolled)
    return torch.stack(moved)


def _interpolated(images: Tensor, move: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise TypeError(f'images must be floating-point by "fourier", got {images.dtype}')
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    for axis in (-2, -1):
        side = x.shape[axis]
        # On the CPU: not every device has float64.
        angle = -2 * torch.pi * move[:, axis, None] * torch.arange(side // 2 + 1) / side
        phase = torch.polar(torch.ones_like(angle), angle).to(x.dtype.to_complex()).to(x.device)
        shape = (len(x), 1, -1, 1) if axis == -2 else (len(x), 1, 1, -1)
        x = torch.fft.irfft(torch.fft.rfft(x, dim=axis) * phase.reshape(shape), side, dim=axis)
    return x.to(images.dtype)
