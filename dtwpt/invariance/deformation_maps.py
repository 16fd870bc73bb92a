"""Affine maps of the plane, and local affine approximations of smooth deformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Displacement", "as_maps", "local_maps", "rotation", "scaling", "shear"]

#: Displacements (down, right) of the sampled places, pixels, at rows y and columns x.
Displacement = Callable[
    [NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]
]


def rotation(degrees: float) -> NDArray[np.float64]:
    """Return the map of a picture that is rotated clockwise.

    Parameters
    ----------
    degrees : float

    Returns
    -------
    ndarray, shape (2, 2)
        Matrix A, acting on (row, column): the turned picture at ``r`` is the picture at ``A @ r``.

    Examples
    --------
    >>> from dtwpt.invariance import rotation
    >>> (rotation(90) @ [0, 1]).round(12).tolist()
    [-1.0, 0.0]
    """
    angle = np.radians(_finite(degrees, "degrees"))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def scaling(factor: float) -> NDArray[np.float64]:
    """Return the map of a picture that is enlarged by a factor.

    Parameters
    ----------
    factor : float
        Above 0; 1.02 makes everything 2 % larger.

    Returns
    -------
    ndarray, shape (2, 2)
        Matrix A: the grown picture at ``r`` is the picture at ``A @ r``.

    Examples
    --------
    >>> from dtwpt.invariance import scaling
    >>> scaling(2).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    if not _finite(factor, "factor") > 0:
        raise ValueError(f"factor must be above 0, got {factor!r}")
    return np.eye(2) / float(factor)


def shear(amount: float) -> NDArray[np.float64]:
    """Return the map of a picture whose rows slide, each to the right by ``amount`` times its row.

    Parameters
    ----------
    amount : float
        Pixels a row.

    Returns
    -------
    ndarray, shape (2, 2)
        Matrix A: the sheared picture at ``r`` is the picture at ``A @ r``.

    Examples
    --------
    >>> from dtwpt.invariance import shear
    >>> shear(0.1).tolist()
    [[1.0, 0.0], [-0.1, 1.0]]
    """
    return np.array([[1.0, 0.0], [-_finite(amount, "amount"), 1.0]])


def local_maps(displacement: Displacement, places: ArrayLike) -> NDArray[np.float64]:
    r"""Return the affine maps that approximate a smooth deformation near given positions.

    The deformed picture is :math:`X'(t) = X(t + d(t))`. Near c it is
    :math:`X(c + A r + u)` at :math:`c + r`, with :math:`u = d(c)` and
    :math:`A = I + \nabla d(c)`.

    Parameters
    ----------
    displacement : callable
        From rows and columns, arrays of one shape, to displacements d down and right, pixels.
    places : array_like of float, shape (n, 2)
        Places c, (row, column).

    Returns
    -------
    ndarray, shape (n, 2, 3)
        ``[A | u]`` of each place, for :func:`predict_deformation`.

    Raises
    ------
    ValueError
        If places do not have shape (n, 2), or a displacement is not finite or misshapen.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import local_maps
    >>> maps = local_maps(lambda y, x: (0.1 * x, 0 * y), [(5, 20)])
    >>> np.allclose(maps, [[[1, 0.1, 2], [0, 1, 0]]])
    True
    """
    at = np.asarray(places, dtype=np.float64)
    if at.ndim != 2 or at.shape[1] != 2 or not len(at) or not np.isfinite(at).all():
        raise ValueError(f"places must be finite, of shape (n, 2), got shape {at.shape}")
    step = 1e-3
    maps = np.empty((len(at), 2, 3))
    maps[:, :, 2] = _moved(displacement, at)
    for axis in range(2):
        aside = step * np.eye(2)[axis]
        slope = (_moved(displacement, at + aside) - _moved(displacement, at - aside)) / (2 * step)
        maps[:, :, axis] = np.eye(2)[axis] + slope
    return maps


def _moved(displacement: Displacement, at: NDArray[np.float64]) -> NDArray[np.float64]:
    down, right = displacement(at[:, 0], at[:, 1])
    moved = np.stack(np.broadcast_arrays(down, right, at[:, 0])[:2], axis=1).astype(np.float64)
    if moved.shape != at.shape or not np.isfinite(moved).all():
        raise ValueError("displacement must return two finite arrays of the shape of its arguments")
    return moved


def as_maps(maps: Any) -> tuple[NDArray[np.float64], bool]:
    """Return maps as (n, 2, 3), and whether a single one was given."""
    if isinstance(maps, list | tuple) and np.ndim(maps[:1]) == 3:
        each = [_as_map(affine) for affine in maps]
        return np.stack(each), False
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim == 3 and len(array):
        return np.stack([_as_map(affine) for affine in array]), False
    return _as_map(array)[None], True


def _as_map(affine: Any) -> NDArray[np.float64]:
    array = np.asarray(affine, dtype=np.float64)
    if array.shape not in ((2, 2), (2, 3)):
        raise ValueError(
            f"maps must have shape (2, 2), (2, 3), (n, 2, 2) or (n, 2, 3), got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("maps must be finite, got NaN or infinity")
    return np.column_stack([array, np.zeros((2, 3 - array.shape[1]))])


def _finite(value: Any, name: str) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number
