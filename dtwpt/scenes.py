"""Objects on backgrounds: pictures in which the object moves and the background stays.

No image is rolled, cropped or filled here, so that a network cannot be stable for what it does at
borders. The factors are those of J. Djolonga et al., "On Robustness and Transferability of
Convolutional Neural Networks", CVPR 2021 (SI-Score): place, size and angle of the object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from dtwpt.arrays import as_numpy

__all__ = ["compose", "sweep"]

#: The values of each factor in the article.
_VALUES: dict[str, Any] = {
    "centre": [(row / 20, column / 20) for row in range(21) for column in range(21)],
    "area": [share / 100 for share in range(1, 101)],
    "angle": list(range(1, 342, 20)),
}


def compose(
    cutout: ArrayLike,
    background: ArrayLike,
    centre: Sequence[float] = (0.5, 0.5),
    area: float = 0.2,
    angle: float = 0.0,
) -> NDArray[Any]:
    """Paste an object into a background.

    Parameters
    ----------
    cutout : array_like, shape (h, w, C + 1)
        The object. The last channel is its opacity, 0 to 1.
    background : array_like, shape (H, W, C) or, for C = 1, (H, W)
    centre : (float, float), default: (0.5, 0.5)
        Position of the cut-out's centre, (down, right) as fractions of the background's sides.
        Parts beyond the background are cut off.
    area : float, default: 0.2
        The cut-out's h x w rectangle, before it is turned, as a share of the background's area.
    angle : float, default: 0.0
        Degrees, counter-clockwise.

    Returns
    -------
    ndarray, of the background's shape
        float32 if both are, float64 otherwise.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or range.

    Notes
    -----
    The cut-out is resampled once, linearly, after a Gaussian where it is made smaller. So it can be
    at any fraction of a pixel, and a shift of the centre by whole pixels moves it exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.scenes import compose
    >>> white = np.ones((4, 4, 2))
    >>> compose(white, np.zeros((8, 8)), area=0.25).sum()
    np.float64(16.0)
    """
    over, under = _as_image(cutout, "cutout"), as_numpy(background, "background")
    if under.ndim not in (2, 3) or not np.isrealobj(under):
        raise ValueError(f"background must have shape (H, W) or (H, W, C), got {under.shape}")
    channels = under.shape[2] if under.ndim == 3 else 1
    if over.shape[2] != channels + 1:
        raise ValueError(
            f"cutout must have {channels + 1} channels, those of the background and the opacity, "
            f"got {over.shape[2]}"
        )
    down, right = _as_place(centre)
    if not 0 < area < math.inf:
        raise ValueError(f"area must be positive, got {area!r}")
    if not math.isfinite(angle):
        raise ValueError(f"angle must be finite, got {angle!r}")
    height, width = under.shape[:2]
    both = np.float32 if over.dtype == under.dtype == np.float32 else np.float64
    over, under = over.astype(both), under.astype(both)
    scale = math.sqrt(area * height * width / (over.shape[0] * over.shape[1]))
    # Fully transparent pixels have no colour.
    over[..., :-1] *= over[..., -1:]
    if scale < 1:
        blur = 0.5 * math.sqrt(1 / scale**2 - 1)
        room = math.ceil(4 * blur)
        over = np.pad(over, ((room, room), (room, room), (0, 0)))
        over = gaussian_filter(over, (blur, blur, 0), mode="constant")
    turn = math.radians(angle)
    # From places in the scene to places in the cut-out; rows count downwards.
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) / scale
    middle = (np.array(over.shape[:2]) - 1) / 2
    offset = middle - matrix @ (np.array([down * height, right * width]) - 0.5)
    pasted = [
        affine_transform(
            over[..., channel], matrix, offset, (height, width), order=1, mode="grid-constant"
        )
        for channel in range(over.shape[2])
    ]
    colours, opacity = np.stack(pasted[:-1], -1), pasted[-1][..., None]
    scene = (1 - opacity) * under.reshape(height, width, channels) + colours
    return np.asarray(scene.reshape(under.shape), both)


def sweep(
    cutout: ArrayLike,
    background: ArrayLike,
    factor: str,
    values: Iterable[Any] | None = None,
    **fixed: Any,
) -> tuple[list[Any], NDArray[Any]]:
    """Paste an object with one factor going through its values, and the others fixed.

    Parameters
    ----------
    cutout, background : array_like
        As for :func:`compose`.
    factor : {"centre", "area", "angle"}
        The factor that changes.
    values : iterable, optional
        Its values. By default those of SI-Score: 21 x 21 centres from 0 to 1, areas from 0.01 to
        1, angles of 1 to 341 degrees in steps of 20. None of those angles is a right one, as
        pictures that are not resampled are sharper.
    **fixed
        The other arguments of :func:`compose`.

    Returns
    -------
    values : list
    scenes : ndarray, shape (values, H, W) or (values, H, W, C)

    Raises
    ------
    TypeError, ValueError
        If the factor is unknown, or as :func:`compose` does.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.scenes import sweep
    >>> cutout, background = np.ones((4, 4, 2)), np.zeros((16, 16))
    >>> places, scenes = sweep(cutout, background, "centre", [(0.5, 0.5), (0.5, 0.75)], area=0.1)
    >>> scenes.shape
    (2, 16, 16)
    """
    if factor not in _VALUES:
        raise ValueError(f"unknown factor {factor!r}; known: {', '.join(_VALUES)}")
    if factor in fixed:
        raise TypeError(f"{factor} is the factor that changes: give values, not {factor}")
    chosen = list(_VALUES[factor] if values is None else values)
    if not chosen:
        raise ValueError("values must not be empty")
    scenes = [compose(cutout, background, **fixed | {factor: value}) for value in chosen]
    return chosen, np.stack(scenes)


def _as_image(cutout: ArrayLike, name: str) -> NDArray[Any]:
    image: NDArray[Any] = as_numpy(cutout, name)
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name} must have shape (h, w, C + 1), got {image.shape}")
    if not np.isfinite(image).all() or not 0 <= image[..., -1].min() <= image[..., -1].max() <= 1:
        raise ValueError(f"{name} must be finite, and its last channel, the opacity, 0 to 1")
    return image


def _as_place(centre: Any) -> tuple[float, float]:
    try:
        down, right = (float(value) for value in centre)
    except (TypeError, ValueError):
        raise TypeError(f"centre must be two numbers (down, right), got {centre!r}") from None
    if not (math.isfinite(down) and math.isfinite(right)):
        raise ValueError(f"centre must be finite, got {centre!r}")
    return down, right
