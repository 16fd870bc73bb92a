"""Shifts to measure at: along a line, or drawn at random."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dtwpt.checks import as_count

__all__ = ["as_shifts", "random_shifts", "shifts_along"]

_DIRECTIONS = {"horizontal": (0, 1), "vertical": (1, 0), "diagonal": (1, 1)}


def shifts_along(direction: str, largest: int, step: int | float = 1) -> Tensor:
    """Return shifts from 0 to the largest one, in equal steps in one direction.

    Parameters
    ----------
    direction : {"horizontal", "vertical", "diagonal"}
        To the right, down, or both at once.
    largest : int
        Pixels, along each axis that moves.
    step : int or float, default: 1
        Pixels from one shift to the next; ``largest`` must be a multiple of it.

    Returns
    -------
    Tensor, shape (S, 2), int64, or float64 unless the step is whole
        (down, right) in pixels.

    Raises
    ------
    TypeError, ValueError
        If the direction is unknown, or largest is not a positive whole number of steps.

    Notes
    -----
    H. Leterme, K. Polisano, V. Perrier, K. Alahari, arXiv 2212.00394, measure flips in these three
    directions at 0 to 8 pixels (0 to 4 on CIFAR-10), and divergences in steps of half a pixel.

    Examples
    --------
    >>> from dtwpt.metrics import shifts_along
    >>> shifts_along("diagonal", 2).tolist()
    [[0, 0], [1, 1], [2, 2]]
    >>> shifts_along("horizontal", 1, 0.5).tolist()
    [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]]
    """
    if direction not in _DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}; known: {', '.join(_DIRECTIONS)}")
    largest = as_count(largest, "largest")
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        raise TypeError(f"step must be a number, got {type(step).__name__}")
    if not step > 0 or largest % Fraction(step):
        raise ValueError(f"step must be positive and divide largest = {largest}, got {step}")
    count = int(largest / Fraction(step)) + 1
    line = torch.arange(count)
    line = line * int(step) if float(step).is_integer() else line.double() * step
    return line[:, None] * torch.tensor(_DIRECTIONS[direction])


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
    shifts_along : shifts in one direction.

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


def as_shifts(shifts: Any, count: int, parts: int | None = 1) -> Tensor:
    """Return shifts (S, count, 2) on the CPU.

    Integers that count parts of a pixel; float64 pixels, of any fraction, if ``parts`` is None.
    """
    try:
        # By way of NumPy, which takes Python's floats as they are.
        given = shifts if isinstance(shifts, Tensor) else torch.from_numpy(np.array(list(shifts)))
    except (TypeError, ValueError) as error:
        accepted = "integers" if parts == 1 else "numbers"
        raise TypeError(f"shifts must be {accepted}, got {shifts!r}") from error
    given = given.cpu()
    if given.numel() == 0:
        raise ValueError("shifts must not be empty")
    if given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"shifts must be numbers of pixels, got {given.dtype}")
    if given.is_floating_point() and parts == 1:
        raise TypeError(f"shifts must be integers, whole pixels, got {given.dtype}")
    if not given.double().isfinite().all():
        raise ValueError("shifts must be finite, but hold NaN or infinity")
    if parts is None:
        given = given.double()
    else:
        scaled = given.double() * parts
        if not torch.equal(scaled, scaled.round()):
            raise ValueError(f"shifts must be multiples of 1/{parts} pixel, got {given.tolist()}")
        given = scaled.long()
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
