"""Types of arguments and results, for annotations.

Names are literals, so that a type checker finds ``cmod2(x, mode="symetric")``. The tuples of names
that are checked at run time are made from them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ChannelAxis",
    "Colour",
    "ComplexArray",
    "Mode",
    "Operator",
    "RealArray",
    "WaveletName",
]

#: Padding mode at the borders.
Mode: TypeAlias = Literal["symmetric", "reflect", "replicate", "periodic", "zero"]
#: Name of a built-in wavelet.
WaveletName: TypeAlias = Literal[
    "qshift_06",
    "qshift_a",
    "qshift_b",
    "qshift_c",
    "qshift_d",
    "qshift_32",
    "stable_10",
    "stable_16",
    "stable_20",
]
#: Operator of feature vectors.
Operator: TypeAlias = Literal["cmod", "rmax"]
#: Treatment of the colours of an image.
Colour: TypeAlias = Literal["luma", "channels"]
#: The axis of channels; None: there is none; "ask": none, but refuse arrays that seem to have one.
ChannelAxis: TypeAlias = int | Literal["ask"] | None

RealArray: TypeAlias = NDArray[np.floating[Any]]
ComplexArray: TypeAlias = NDArray[np.complexfloating[Any, Any]]
