"""Feature vectors of images: the maps of an operator, pooled over space and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, as_image_input, is_tensor
from dtwpt.checks import as_depth, as_int, as_wavelet
from dtwpt.colour import COLOURS, colour_planes
from dtwpt.engine import dispatch
from dtwpt.packets import PacketBank
from dtwpt.text import shown
from dtwpt.transform import as_analysis, cmod2, rmax2
from dtwpt.typing import ChannelAxis, Colour, Mode, Operator, RealArray
from dtwpt.wavelets import AnyWavelet

if TYPE_CHECKING:
    from torch import Tensor

# How maps are pooled: "mean", "none" or a grid.
Pool: TypeAlias = str | int | tuple[int, int]

__all__ = ["OPERATORS", "packet_feature_names", "packet_features"]

#: The operators by name.
OPERATORS: dict[str, Callable[..., Array]] = {"cmod": cmod2, "rmax": rmax2}


@overload
def packet_features(
    x: NDArray[Any],
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    operator: Operator = ...,
    pool: Pool = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
    colour: Colour | None = ...,
) -> RealArray: ...
@overload
def packet_features(
    x: Tensor,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    operator: Operator = ...,
    pool: Pool = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
    colour: Colour | None = ...,
) -> Tensor: ...
@overload
def packet_features(
    x: ArrayLike,
    depth: int = ...,
    wavelet: AnyWavelet = ...,
    operator: Operator = ...,
    pool: Pool = ...,
    mode: Mode = ...,
    *,
    channel_axis: ChannelAxis = ...,
    colour: Colour | None = ...,
) -> RealArray: ...
def packet_features(
    x: Any,
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    operator: Operator = "cmod",
    pool: Pool = "mean",
    mode: Mode = "symmetric",
    *,
    channel_axis: ChannelAxis = "ask",
    colour: Colour | None = None,
) -> Any:
    """Feature vectors of images: the operator's maps, averaged over space.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtwpt.dtcwpt2`.
    depth : int, default: 2
        There are ``2 * 4**depth`` maps of ``ceil(H / 2**depth) x ceil(W / 2**depth)`` values.
    wavelet : str or Wavelet, default: "qshift_b"
    operator : {"cmod", "rmax"}
        :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2`.
    pool : {"mean", "none"}, int or (int, int)
        "mean": one number per map; "none": all of its values; g or (rows, columns): averages over
        the cells of a grid, cut as evenly as the size allows.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    channel_axis : int, None or "ask", default: "ask"
        As for :func:`dtwpt.dtcwpt2`: without ``colour``, each channel has a feature vector of its
        own, (..., C, F). With ``colour``, the axis of 1 to 4 channels: by default the last of an
        array, the third from last of a tensor; None or two axes: grey images.
    colour : {"luma", "channels"}, optional
        Features of a picture as ``dtwpt extract`` computes them: of its brightness,
        ``0.299 red + 0.587 green + 0.114 blue``; or of red, green and blue one after the other,
        (..., 3 F).
        Transparency is ignored; grey counts as three equal channels.

    Returns
    -------
    real array, shape (..., F)
        In the order of :func:`packet_feature_names`: map by map, each map row by row.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or value, or the grid finer than the maps.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.features import packet_features
    >>> x = np.random.default_rng(0).normal(size=(5, 32, 32))
    >>> packet_features(x).shape, packet_features(x, pool=4).shape
    ((5, 32), (5, 512))
    >>> photograph = np.zeros((32, 48, 3), np.uint8)
    >>> packet_features(photograph, colour="luma").shape
    (32,)
    >>> packet_features(photograph, channel_axis=-1).shape
    (3, 32)
    """
    function = _operator(operator)
    grid = _grid(pool)
    if colour is not None:
        x = _planes(x, channel_axis, colour)
        features = packet_features(x, depth, wavelet, operator, pool, mode, channel_axis=None)
        return features if colour == "luma" else features.reshape(*features.shape[:-2], -1)
    x = as_image_input(x, channel_axis)
    if grid is None:
        maps = function(x, depth, wavelet, mode, channel_axis=None)
        return maps.reshape(*x.shape[:-2], -1)
    analysis = as_analysis(depth, wavelet, mode, pool=3 if operator == "rmax" else None)
    for parts, length, name in zip(
        grid, analysis.size(x.shape[-2:]), ("rows", "columns"), strict=True
    ):
        if parts > length:
            raise ValueError(f"pool has {parts} {name}, more than the {length} {name} of the maps")
    means = dispatch.mean(x, analysis, "modulus" if operator == "cmod" else "rmax", grid)
    return means.reshape(*x.shape[:-2], -1)


def packet_feature_names(
    size: tuple[int, ...],
    depth: int = 2,
    wavelet: AnyWavelet = "qshift_b",
    operator: Operator = "cmod",
    pool: Pool = "mean",
) -> list[str]:
    """Return the names of the features of images of one size.

    Parameters
    ----------
    size : (int, int)
        Height and width of the images; it matters only with ``pool="none"``.
    depth, wavelet, operator, pool
        As for :func:`packet_features`.

    Returns
    -------
    list of str
        Operator, sign, vertical and horizontal packet, frequency (rad/pixel) and orientation
        (degrees), then the place (row, column) if there are several.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit. Leading axes of the images are no part of the size: their
        features have the same names.

    Examples
    --------
    >>> from dtwpt.features import packet_feature_names
    >>> packet_feature_names((32, 32))[6]
    'cmod_pos_v1_h2_2.290rad_31.0deg'
    >>> packet_feature_names((32, 32), pool=4)[-1]
    'cmod_neg_v3_h3_3.888rad_135.0deg_y3_x3'
    """
    if len(size) != 2:
        raise ValueError(f"size must be (height, width) of the images alone, got {tuple(size)}")
    _operator(operator)
    grid = _grid(pool)
    step = 2 ** as_depth(depth)
    places = [""]
    if grid is None or grid != (1, 1):
        rows, columns = grid or (-(-size[0] // step), -(-size[1] // step))
        places = [f"_y{row}_x{column}" for row in range(rows) for column in range(columns)]
    return [
        f"{operator}_{'pos' if atom['sign'] > 0 else 'neg'}_v{atom['row']}_h{atom['col']}"
        f"_{atom['frequency']:.3f}rad_{atom['orientation']:.1f}deg{place}"
        for atom in PacketBank(depth, as_wavelet(wavelet)).atoms()
        for place in places
    ]


def _planes(x: Any, channel_axis: ChannelAxis, colour: Any) -> Array:
    """Return the brightness of images, (..., H, W), or red, green and blue, (..., 3, H, W)."""
    if not isinstance(colour, str) or colour not in COLOURS:
        raise ValueError(f"unknown colour {shown(colour)}; known colours: {', '.join(COLOURS)}")
    if channel_axis == "ask":
        channel_axis = None if np.ndim(x) == 2 else -3 if is_tensor(x) else -1
    x = as_image_input(x, channel_axis)
    if channel_axis is None:
        x = x[..., None, :, :]
    elif not 1 <= x.shape[-3] <= 4:
        raise ValueError(
            f"x must have 1 to 4 channels for colour={colour!r}, got {x.shape[-3]}: channel_axis "
            "is their axis, None for grey images"
        )
    return colour_planes(x, colour)


def _operator(operator: Any) -> Callable[..., Array]:
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(
            f"unknown operator {shown(operator)}; known operators: {', '.join(OPERATORS)}"
        )
    return OPERATORS[operator]


def _grid(pool: Any) -> tuple[int, int] | None:
    """Return the rows and columns of the pooling grid; None for no pooling."""
    accepted = '"mean", "none", an integer of at least 1 or a pair of such integers'
    if isinstance(pool, str):
        if pool not in ("mean", "none"):
            raise ValueError(f"pool must be {accepted}, got {shown(pool)}")
        return None if pool == "none" else (1, 1)
    pair = tuple(pool) if isinstance(pool, (tuple, list)) else (pool, pool)
    rows, columns = (
        (as_int(number, "pool", accepted) for number in pair) if len(pair) == 2 else (0, 0)
    )
    if rows < 1 or columns < 1:
        raise ValueError(f"pool must be {accepted}, got {shown(pool)}")
    return rows, columns
