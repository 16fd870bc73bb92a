"""Margin of a shift-invariant linear classifier: dc_margin."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["dc_margin"]


def dc_margin(a: ArrayLike, b: ArrayLike) -> float:
    r"""Return the largest margin between all shifts of one class and all shifts of another.

    Parameters
    ----------
    a, b : array_like, shape (N, ...) and (M, ...)
        Images or signals of two classes, of one size. All axes but the first are shifted.

    Returns
    -------
    float
        The distance between the nearest points of the two sets of circular shifts, as far as a
        hyperplane can separate them. At most 0 where none can; how far the classes overlap then.

    Raises
    ------
    ValueError
        If there is no image, or the sizes differ.

    Notes
    -----
    A linear function that separates all shifts of some images also does so when it is averaged over
    the shifts, which leaves the mean alone. So with d pixels and

    .. math:: f(x) = \frac{1}{\sqrt{d}} \sum_p x_p

    the classes can be separated if and only if all f of the one are below all f of the other,
    and the margin is the gap between them. It is theorem 1 of V. Singla, S. Ge, R. Basri,
    D. Jacobs, "Shift Invariance Can Reduce Adversarial Robustness", NeurIPS 2021. Half of it is the
    distance of the nearest image to the boundary.

    Examples
    --------
    One bright pixel and one dark pixel are 2 apart, but all their shifts only 2 / sqrt(d).

    >>> import numpy as np
    >>> from dtwpt.invariance import dc_margin
    >>> dot = np.zeros((1, 5, 5))
    >>> dot[0, 2, 2] = 1
    >>> round(dc_margin(dot, -dot), 6)
    0.4
    """
    one, two = _levels(a, "a"), _levels(b, "b")
    sizes = np.shape(a)[1:], np.shape(b)[1:]
    if sizes[0] != sizes[1]:
        raise ValueError(f"a and b must hold images of one size, got {sizes[0]} and {sizes[1]}")
    return float(max(two.min() - one.max(), one.min() - two.max()))


def _levels(images: ArrayLike, name: str) -> NDArray[np.float64]:
    x = np.asarray(images, np.float64)
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (N, ...), no axis empty, got {x.shape}")
    flat = x.reshape(len(x), -1)
    levels: NDArray[np.float64] = flat.sum(1) / np.sqrt(flat.shape[1])
    return levels
