"""Crops of scikit-image's bundled photographs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import data

NAMES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")


def grey(name: str) -> NDArray[np.float64]:
    """Return a photograph in grey, 0 to 1."""
    image: NDArray[Any] = getattr(data, name)() / 255.0
    return np.asarray(image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image)


def crops(size: int, count: int) -> Iterator[NDArray[np.float64]]:
    """Yield crops of size x size pixels spread evenly over the photographs."""
    places = [
        (name, top, left)
        for name in NAMES
        for top in range(0, grey(name).shape[0] - size + 1, 64)
        for left in range(0, grey(name).shape[1] - size + 1, 64)
    ]
    for index in np.linspace(0, len(places) - 1, count).round().astype(int):
        name, top, left = places[index]
        yield grey(name)[top : top + size, left : left + size]
