"""Images of a report: the middle of each, all of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.images.reading import centre_crop, read_image

__all__ = ["Crops", "read_crops"]

# Side of the crops where images are large enough.
_SIDE = 256


@dataclass(frozen=True)
class Crops:
    """One crop an image, in grey or in colour: crops of one would not be independent samples."""

    files: list[str]
    size: tuple[int, int]
    colour: bool = False

    @property
    def images(self) -> Iterator[NDArray[np.float32]]:
        """The crops one after the other, read again every time: thousands need no memory."""
        colour = "channels" if self.colour else "luma"
        return (centre_crop(read_image(file, colour), self.size) for file in self.files)


def read_crops(
    files: Sequence[str],
    crop: int | tuple[int, int] | None = None,
    least: tuple[int, int] = (1, 1),
    progress: Callable[[], None] | None = None,
) -> Crops:
    """Read the middle of images, in grey.

    Parameters
    ----------
    files : sequence of str
    crop : int or (int, int), optional
        Side or (height, width). Default: 256, or the shorter side of the smallest image.
    least : (int, int)
        What the filters and the shifts need.
    progress : callable, optional
        Called after each file.

    Returns
    -------
    Crops

    Raises
    ------
    ImageError
        If a file cannot be read, or is too small, or its middle is blank.
    ValueError
        If the crop is smaller than what is needed.
    """
    wanted = (crop, crop) if isinstance(crop, int) else crop
    asked = wanted if wanted is not None else (_SIDE, _SIDE)
    if any(side < need for side, need in zip(asked, least, strict=True)):
        raise ValueError(
            f"crops of {asked[0]}x{asked[1]} are too small: these filters, pooling windows and "
            f"shifts need {least[0]}x{least[1]} pixels"
        )
    smallest = _SIDE
    for file in files:
        image = read_image(file)
        height, width = image.shape
        need = least if wanted is None else asked
        if height < need[0] or width < need[1]:
            why = (
                "these filters, pooling windows and shifts need" if wanted is None else "--crop is"
            )
            raise ImageError(file, f"{height}x{width} pixels, {why} {need[0]}x{need[1]}")
        smallest = min(smallest, height, width)
        if np.ptp(centre_crop(image, wanted or (min(_SIDE, height), min(_SIDE, width)))) == 0:
            raise ImageError(file, "blank where it is cropped: a constant has nothing to shift")
        if progress is not None:
            progress()
    side = max(smallest, *least)
    return Crops(list(files), wanted or (side, side))
