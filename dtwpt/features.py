"""Feature vectors of images: the maps of an operator, pooled over space and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.arrays import Array, as_image_input, is_tensor, namespace
from dtwpt.checks import as_depth, as_int, as_wavelet
from dtwpt.colour import COLOURS, colour_planes
from dtwpt.engine import dispatch
from dtwpt.engine.spec import STATISTICS, Kind, Statistic
from dtwpt.packets import PacketBank
from dtwpt.text import shown
from dtwpt.transform import as_analysis, cmod2, rmax2
from dtwpt.typing import ChannelAxis, Colour, Mode, Operator, RealArray
from dtwpt.wavelets import AnyWavelet

if TYPE_CHECKING:
    from torch import Tensor

#: Types of ``pool``, see :func:`packet_features`.
Pool: TypeAlias = str | int | Sequence[str | int | tuple[int, int]]
#: One depth, or several whose features follow each other.
Depths: TypeAlias = int | Sequence[int]

__all__ = ["OPERATORS", "packet_feature_names", "packet_features"]

#: The operators by name.
OPERATORS: dict[str, Callable[..., Array]] = {"cmod": cmod2, "rmax": rmax2}


class Pooling(NamedTuple):
    """Statistics, and the grid of cells; no grid: whole maps."""

    statistics: tuple[Statistic, ...]
    grid: tuple[int, int] | None
    plain: Any  # the shortest spelling, in JSON types and tuples

    @classmethod
    def of(cls, pool: Any) -> Pooling:
        """Return the parsed ``pool``.

        Raises
        ------
        TypeError, ValueError
            If it is of the wrong type or value.
        """
        accepted = (
            '"mean", "std", "max" or several of them, "none", an integer of at least 1 or a pair '
            "of such integers"
        )
        if isinstance(pool, str) and pool == "none":
            return cls((), None, pool)
        items = tuple(pool) if isinstance(pool, (tuple, list)) else (pool,)
        names = [item for item in items if isinstance(item, str)]
        grids = [item for item in items if not isinstance(item, str)] if names else [items]
        if set(names) - set(STATISTICS) or len(set(names)) < len(names) or len(grids) > 1:
            raise ValueError(f"pool must be {accepted}, got {shown(pool)}")
        statistics = tuple(name for name in STATISTICS if name in names) or STATISTICS[:1]
        places: tuple[Any, ...] = ()
        if grids:
            grid = tuple(grids[0]) if isinstance(grids[0], (tuple, list)) else (grids[0],)
            numbers = tuple(as_int(number, "pool", accepted) for number in grid)
            if len(numbers) not in (1, 2) or min(numbers) < 1:
                raise ValueError(f"pool must be {accepted}, got {shown(pool)}")
            places = (numbers if len(numbers) == 2 else numbers[0],)
            cells = (numbers[0], numbers[-1])
        else:
            cells = (1, 1)
        plain = (*(statistics if names and statistics != ("mean",) else ()), *places) or statistics
        return cls(statistics, cells, plain[0] if len(plain) == 1 else plain)


def as_depths(depth: Any) -> tuple[int, ...]:
    """Return one depth or several as a tuple of different ones.

    Raises
    ------
    TypeError, ValueError
        If it is of the wrong type or value.
    """
    if not isinstance(depth, (tuple, list)):
        return (as_depth(depth),)
    depths = tuple(as_depth(one) for one in depth)
    if not depths or len(set(depths)) < len(depths):
        raise ValueError(f"depth must be one integer or several different ones, got {shown(depth)}")
    return depths


@overload
def packet_features(
    x: NDArray[Any],
    depth: Depths = ...,
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
    depth: Depths = ...,
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
    depth: Depths = ...,
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
    depth: Depths = 2,
    wavelet: AnyWavelet = "qshift_b",
    operator: Operator = "cmod",
    pool: Pool = "mean",
    mode: Mode = "symmetric",
    *,
    channel_axis: ChannelAxis = "ask",
    colour: Colour | None = None,
) -> Any:
    """Feature vectors of images: the operator's maps, pooled over space.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W)
        As for :func:`dtwpt.dtcwpt2`.
    depth : int or sequence of int, default: 2
        There are ``2 * 4**depth`` maps of ``ceil(H / 2**depth) x ceil(W / 2**depth)`` values. Of
        several depths, the features follow each other: bit for bit those of each depth alone.
    wavelet : str or Wavelet, default: "qshift_b"
    operator : {"cmod", "rmax"}
        :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2`.
    pool : {"mean", "std", "max", "none"}, int, (int, int) or sequence
        "mean", "std", "max": average, standard deviation (of all values, divided by their number)
        or maximum, one number per map; "none": all of its values; g or (rows, columns): averages
        over the cells of a grid, cut as evenly as the size allows. Several together, such as
        ``("mean", "std")``, perhaps with a grid, ``("mean", "std", 4)``: all averages, then all
        deviations, then all maxima, whatever the order in which they are named.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}
        Padding mode at the borders.
    channel_axis : int, None or "ask", default: "ask"
        As for :func:`dtwpt.dtcwpt2`: without ``colour``, each channel has a feature vector of its
        own, (..., C, F). With ``colour``, the axis of 1 to 4 channels: by default the last of an
        array, the third from last of a tensor; None or two axes: grey images.
    colour : {"luma", "channels"}, optional
        Features of a picture as ``dtwpt extract`` computes them: of its luma,
        ``0.299 red + 0.587 green + 0.114 blue``; or of red, green and blue one after the other,
        (..., 3 F).
        Transparency is ignored; grey counts as three equal channels.

    Returns
    -------
    real array, shape (..., F)
        In the order of :func:`packet_feature_names`: depth by depth, statistic by statistic, map by
        map, each map row by row.

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
    >>> packet_features(x, depth=(2, 3), pool=("mean", "std")).shape
    (5, 320)
    >>> photograph = np.zeros((32, 48, 3), np.uint8)
    >>> packet_features(photograph, colour="luma").shape
    (32,)
    >>> packet_features(photograph, channel_axis=-1).shape
    (3, 32)
    """
    function, depths, pooling = _operator(operator), as_depths(depth), Pooling.of(pool)
    if colour is not None:
        x = _planes(x, channel_axis, colour)
        features = packet_features(x, depths, wavelet, operator, pool, mode, channel_axis=None)
        return features if colour == "luma" else features.reshape(*features.shape[:-2], -1)
    x = as_image_input(x, channel_axis)
    if len(depths) > 1:
        arguments: Any = (wavelet, operator, pool, mode)
        each = [packet_features(x, one, *arguments, channel_axis=None) for one in depths]
        return namespace(x).concatenate(each, -1)
    if pooling.grid is None:
        maps = function(x, depths[0], wavelet, mode, channel_axis=None)
        return maps.reshape(*x.shape[:-2], -1)
    analysis = as_analysis(depths[0], wavelet, mode, pool=3 if operator == "rmax" else None)
    for parts, length, name in zip(
        pooling.grid, analysis.size(x.shape[-2:]), ("rows", "columns"), strict=True
    ):
        if parts > length:
            raise ValueError(f"pool has {parts} {name}, more than the {length} {name} of the maps")
    kind: Kind = "modulus" if operator == "cmod" else "rmax"
    pooled = dispatch.pool(x, analysis, kind, pooling.grid, pooling.statistics)
    return pooled.reshape(*x.shape[:-2], -1)


def packet_feature_names(
    size: tuple[int, ...],
    depth: Depths = 2,
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
        (degrees), then "std" or "max" if it is no average, and the place (row, column) if there are
        several. With several depths, each name begins with its own, such as ``d3_``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit. Leading axes of the images are not part of the size: their
        features have the same names.

    Examples
    --------
    >>> from dtwpt.features import packet_feature_names
    >>> packet_feature_names((32, 32))[6]
    'cmod_pos_v1_h2_2.290rad_31.0deg'
    >>> packet_feature_names((32, 32), pool=4)[-1]
    'cmod_neg_v3_h3_3.888rad_135.0deg_y3_x3'
    >>> packet_feature_names((32, 32), depth=(2, 3), pool=("mean", "std"))[32]
    'd2_cmod_pos_v0_h0_0.555rad_45.0deg_std'
    """
    if len(size) != 2:
        raise ValueError(f"size must be (height, width) of the images alone, got {tuple(size)}")
    _operator(operator)
    depths, pooling = as_depths(depth), Pooling.of(pool)
    if len(depths) > 1:
        return [
            f"d{one}_{name}"
            for one in depths
            for name in packet_feature_names(size, one, wavelet, operator, pool)
        ]
    step = 2 ** depths[0]
    places = [""]
    if pooling.grid != (1, 1):
        rows, columns = pooling.grid or (-(-size[0] // step), -(-size[1] // step))
        places = [f"_y{row}_x{column}" for row in range(rows) for column in range(columns)]
    statistics = ["" if name == "mean" else f"_{name}" for name in pooling.statistics]
    return [
        f"{operator}_{'pos' if atom['sign'] > 0 else 'neg'}_v{atom['row']}_h{atom['col']}"
        f"_{atom['frequency']:.3f}rad_{atom['orientation']:.1f}deg{statistic}{place}"
        for statistic in statistics or [""]
        for atom in PacketBank(depths[0], as_wavelet(wavelet)).atoms()
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
