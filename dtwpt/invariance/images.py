"""Images for the analysis: grey, or with all channels of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

from dtwpt.arrays import Array, as_real_input, dtype_name, is_tensor, namespace
from dtwpt.colour import LUMA

__all__ = ["grey_images", "layer_images"]


def grey_images(images: Any) -> Iterator[Array]:
    """Yield images (H, W) in float from everything that :func:`measure` takes."""
    for image in _images(images):
        if image.ndim == 2:
            yield image
        else:
            yield sum(weight * image[c] for c, weight in enumerate(LUMA))


def layer_images(images: Any, channels: int) -> Iterator[Array]:
    """Yield images (C, H, W) with the channels of a layer; grey ones have them all equal.

    Raises
    ------
    ValueError
        If an image has another number of channels.
    """
    for number, image in enumerate(_images(images, channels)):
        if image.ndim == 2:
            yield namespace(image).stack([image] * channels)
        elif image.shape[0] != channels:
            raise ValueError(
                f"image {number} has {image.shape[0]} channels, but the layer takes {channels}; "
                "grey images fit any number"
            )
        else:
            yield image


def _images(images: Any, channels: int = 3) -> Iterator[Array]:
    """Yield images (H, W) or (C, H, W), in float32 or float64."""
    if isinstance(images, (str, PathLike)):
        # Reading files belongs to a higher layer of the package, imported here for convenience.
        from dtwpt.extract import find_images, read_image

        images = (read_image(path) for path in find_images([images]))
    if not isinstance(images, Iterable):
        raise TypeError(f"images must be iterable or a folder, got {type(images).__name__}")
    # An array of several images is one after the other; of one, it must not be taken for rows.
    shape: tuple[int, ...] = getattr(images, "shape", ())
    several = [images] if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3) else images
    found = False
    for item in several:
        first = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        array = as_real_input(first, 2, "images")
        if is_tensor(array):
            array = array.detach()
            if dtype_name(array) in ("float16", "bfloat16"):
                array = array.float()
        for image in _planes(array, channels):
            found = True
            yield image
    if not found:
        raise ValueError("images must not be empty")


def _planes(array: Array, channels: int) -> Iterable[Array]:
    colours = (3, channels) if channels > 1 else (3,)
    if array.ndim == 2:
        return [array]
    if array.ndim == 3 and array.shape[2] == 3:
        return [namespace(array).moveaxis(array, 2, 0)]
    if array.ndim == 3 and array.shape[0] in colours:
        return [array]
    if array.ndim == 3:
        return [array[index] for index in range(array.shape[0])]
    if array.ndim == 4 and array.shape[1] in (1, *colours):
        return (plane for image in array for plane in _planes(image, channels))
    raise ValueError(
        "images must have shape (H, W), (n, H, W), (H, W, 3), (3, H, W) or (n, C, H, W), C 1 or 3, "
        f"got {tuple(array.shape)}"
    )
