"""From colours to brightness: one rule for files, arrays and tensors."""

from __future__ import annotations

from typing import get_args

from dtwpt.arrays import Array, namespace
from dtwpt.typing import Colour

__all__ = ["COLOURS", "LUMA", "colour_planes"]

#: Treatment of colour.
COLOURS: tuple[Colour, ...] = get_args(Colour)

#: Weights of red, green and blue in luma, ITU-R BT.601, on stored (gamma-coded) values.
LUMA = (0.299, 0.587, 0.114)


def colour_planes(x: Array, colour: Colour) -> Array:
    """Return luma, shape (..., H, W), or red, green and blue, (..., 3, H, W).

    Parameters
    ----------
    x : real array or torch.Tensor, shape (..., C, H, W)
        C is 1 (grey), 2 (grey and transparency), 3 (red, green, blue) or 4 (with transparency).
        Transparency is ignored.
    colour : {"luma", "channels"}
    """
    grey = x.shape[-3] < 3
    red, green, blue = (x[..., 0 if grey else channel, :, :] for channel in range(3))
    if colour == "channels":
        return namespace(x).stack((red, green, blue), -3)
    return red if grey else red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
