"""Shifted crops of images, and what a model answers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dtwpt.checks import as_count, as_pair

__all__ = ["random_shifts", "shifted_crops", "shifted_outputs"]


def random_shifts(
    num_shifts: int,
    num_images: int,
    max_shift: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw shifts for every image, uniformly and independently.

    Parameters
    ----------
    num_shifts : int
        S, the number of shifts of an image.
    num_images : int
        N, the number of images.
    max_shift : int
        Largest shift in each direction, pixels.
    generator : torch.Generator, optional
        Source of the random numbers; torch's own by default.

    Returns
    -------
    Tensor, shape (S, N, 2), int64, on the CPU
        (down, right) in pixels, from ``-max_shift`` to ``max_shift``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not an integer of at least 1, or not a generator.

    See Also
    --------
    shifted_crops : crops with these shifts.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import random_shifts
    >>> random_shifts(2, 10, 16, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 10, 2])
    """
    size = (as_count(num_shifts, "num_shifts"), as_count(num_images, "num_images"), 2)
    largest = as_count(max_shift, "max_shift")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    device = "cpu" if generator is None else generator.device
    return torch.randint(-largest, largest + 1, size, generator=generator, device=device).cpu()


def shifted_crops(
    images: Tensor, size: int | tuple[int, int], shifts: ArrayLike | Tensor
) -> Tensor:
    """Cut crops whose content is shifted, out of larger images: no border is made up.

    Shift (0, 0) is the crop in the middle, half a pixel up and to the left where there is no
    middle. A shift (down, right) moves the content that way: the crop is cut as many pixels
    further up and to the left.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
    size : int or (int, int)
        (h, w) of the crops, or the side of a square.
    shifts : array_like of int or Tensor, shape (S,), (S, 2) or (S, N, 2)
        Pixels. (S,): to the right; (S, 2): (down, right); (S, N, 2): a shift of its own for each
        image, as :func:`random_shifts` gives.

    Returns
    -------
    Tensor, shape (S, N, C, h, w)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or a crop does not lie within the image.

    See Also
    --------
    shifted_outputs : what a model answers to the crops.

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
    return torch.stack(list(_crops(images, size, shifts)))


def shifted_outputs(
    model: Callable[[Tensor], Any],
    images: Tensor,
    size: int | tuple[int, int],
    shifts: ArrayLike | Tensor,
) -> Tensor:
    """Return what a model answers to shifted crops, for the metrics of :mod:`dtwpt.metrics`.

    No gradient is recorded. A module is in evaluation mode for the time of the call.

    Parameters
    ----------
    model : torch.nn.Module or callable
        From (N, C, h, w) to logits (N, K), or to an object that has them as ``logits``, as the
        models of transformers do. It is called once for each shift.
    images : Tensor, shape (N, C, H, W)
        On the device and in the dtype that the model takes.
    size : int or (int, int)
        (h, w) of the crops, or the side of a square.
    shifts : array_like of int or Tensor, shape (S,), (S, 2) or (S, N, 2)
        As for :func:`shifted_crops`.

    Returns
    -------
    Tensor, shape (S, N, K)

    Raises
    ------
    TypeError, ValueError
        As :func:`shifted_crops` does, or if the model returns something else.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_rate, shifted_outputs
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
    >>> outputs = shifted_outputs(model, torch.randn(5, 3, 40, 40), size=32, shifts=range(5))
    >>> outputs.shape
    torch.Size([5, 5, 10])
    >>> 0 <= flip_rate(outputs) <= 1
    tensor(True)
    """
    if not callable(model):
        raise TypeError(f"model must be callable, got {type(model).__name__}")
    with _evaluation(model), torch.no_grad():
        return torch.stack(
            [_logits(model(crop), len(crop)) for crop in _crops(images, size, shifts)]
        )


def _logits(output: Any, count: int) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"model must return a tensor or an object with logits, got {type(output).__name__}"
        )
    if logits.ndim != 2 or len(logits) != count:
        raise ValueError(
            f"model must return logits of shape ({count}, K) for {count} images, got "
            f"{tuple(logits.shape)}"
        )
    return logits


@contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts back into its own."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode


def _crops(images: Tensor, size: Any, shifts: Any) -> Iterator[Tensor]:
    """Yield the crops (N, C, h, w) of one shift after the other."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have shape (N, C, H, W), no axis empty, got {tuple(images.shape)}"
        )
    height, width = as_pair(size, "size")
    room = torch.tensor([images.shape[-2] - height, images.shape[-1] - width])
    if room.min() < 0:
        raise ValueError(
            f"size {height} x {width} is larger than the images, "
            f"{images.shape[-2]} x {images.shape[-1]} pixels"
        )
    moves = _as_shifts(shifts, len(images))
    corners = room // 2 - moves
    if (corners < 0).any() or (corners > room).any():
        (up, left), (down, right) = (room - room // 2).tolist(), (room // 2).tolist()
        raise ValueError(
            f"shifts of crops of {height} x {width} within {images.shape[-2]} x {images.shape[-1]} "
            f"pixels must be from {-up} to {down} down and from {-left} to {right} to the right, "
            f"got {moves.amin((0, 1)).tolist()} to {moves.amax((0, 1)).tolist()}"
        )
    for places in corners.tolist():
        yield torch.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, (top, left) in zip(images, places, strict=True)
            ]
        )


def _as_shifts(shifts: Any, count: int) -> Tensor:
    """Return shifts as integers (S, count, 2) on the CPU."""
    try:
        given = torch.as_tensor(shifts if isinstance(shifts, Tensor) else list(shifts)).cpu()
    except (TypeError, ValueError) as error:
        raise TypeError(f"shifts must be integers, got {shifts!r}") from error
    if given.numel() == 0:
        raise ValueError("shifts must not be empty")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"shifts must be integers, whole pixels, got {given.dtype}")
    given = given.long()
    if given.ndim == 1:
        given = torch.stack([torch.zeros_like(given), given], -1)
    if given.ndim == 2 and given.shape[-1] == 2:
        given = given[:, None].expand(-1, count, -1)
    if given.ndim != 3 or tuple(given.shape[1:]) != (count, 2):
        raise ValueError(
            f"shifts must have shape (S,), (S, 2) or (S, {count}, 2) for {count} images, got "
            f"{tuple(given.shape)}"
        )
    return given
