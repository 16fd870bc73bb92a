"""Images made to fit: resized, then cropped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["centre_crop", "resize"]

# A long, thin image and the length of its shorter side can ask for more than any machine has.
_MOST_PIXELS = 2**28


def resize(image: NDArray[np.float32], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Return an image of another size: bilinear, and smoothed where it shrinks (Pillow's filter).

    Parameters
    ----------
    image : ndarray of float32, shape (..., H, W)
    size : int or (int, int)
        (height, width), or the length of the shorter side, the other one in proportion.

    Returns
    -------
    ndarray of float32, shape (..., height, width)

    Raises
    ------
    ValueError
        If that would be more than ``2**28`` pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.extract.sizing import resize
    >>> resize(np.zeros((3, 20, 41), np.float32), 10).shape
    (3, 10, 21)
    """
    old_height, old_width = image.shape[-2:]
    if isinstance(size, tuple):
        height, width = size
    else:
        short = min(old_height, old_width)
        # Rounded half up, in integers: the same on every machine.
        height, width = (
            max(1, (2 * length * size + short) // (2 * short)) for length in (old_height, old_width)
        )
    if (height, width) == (old_height, old_width):
        return image
    if height * width > _MOST_PIXELS:
        raise ValueError(f"resize would make {height}x{width} pixels, the most is {_MOST_PIXELS}")
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in image.reshape(-1, old_height, old_width)
    ]
    return np.stack(planes).reshape(*image.shape[:-2], height, width)


def centre_crop(image: NDArray[Any], size: int | tuple[int, int]) -> NDArray[Any]:
    """Return the middle of an image; half a pixel up and to the left where there is no middle.

    Parameters
    ----------
    image : ndarray, shape (..., H, W)
    size : int or (int, int)
        (height, width), or the side of a square.

    Returns
    -------
    ndarray, shape (..., height, width)
        A view.

    Raises
    ------
    ValueError
        If the image is smaller than that.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.extract.sizing import centre_crop
    >>> centre_crop(np.arange(12).reshape(3, 4), (1, 2))
    array([[5, 6]])
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    old_height, old_width = image.shape[-2:]
    if height > old_height or width > old_width:
        raise ValueError(
            f"an image of {old_height}x{old_width} is smaller than the crop of {height}x{width}"
        )
    top, left = (old_height - height) // 2, (old_width - width) // 2
    return image[..., top : top + height, left : left + width]
