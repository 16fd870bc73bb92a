"""Feature vectors of images: the maps of an operator, pooled over space and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtwpt.arrays import Array, as_real_input
from dtwpt.checks import as_depth, as_int, as_wavelet
from dtwpt.engine import dispatch
from dtwpt.packets import PacketBank
from dtwpt.transform import as_analysis, cmod2, rmax2
from dtwpt.wavelets import Wavelet

__all__ = ["OPERATORS", "packet_feature_names", "packet_features"]

#: The operators by name.
OPERATORS: dict[str, Callable[..., Array]] = {"cmod": cmod2, "rmax": rmax2}


def packet_features(
    x: Array,
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    operator: str = "cmod",
    pool: str | int | tuple[int, int] = "mean",
    mode: str = "symmetric",
) -> Array:
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
        How the image goes on beyond its borders.

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
    """
    function = _operator(operator)
    grid = _grid(pool)
    x = as_real_input(x, 2)
    if grid is None:
        return function(x, depth, wavelet, mode).reshape(*x.shape[:-2], -1)
    analysis = as_analysis(depth, wavelet, mode, pool=3 if operator == "rmax" else None)
    for parts, length, name in zip(
        grid, analysis.size(x.shape[-2:]), ("rows", "columns"), strict=True
    ):
        if parts > length:
            raise ValueError(f"pool has {parts} {name}, more than the {length} {name} of the maps")
    means = dispatch.mean(x, analysis, "modulus" if operator == "cmod" else "rmax", grid)
    return means.reshape(*x.shape[:-2], -1)


def packet_feature_names(
    size: tuple[int, int],
    depth: int = 2,
    wavelet: str | Wavelet = "qshift_b",
    operator: str = "cmod",
    pool: str | int | tuple[int, int] = "mean",
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

    Examples
    --------
    >>> from dtwpt.features import packet_feature_names
    >>> packet_feature_names((32, 32))[6]
    'cmod_pos_v1_h2_2.290rad_31.0deg'
    >>> packet_feature_names((32, 32), pool=4)[-1]
    'cmod_neg_v3_h3_3.888rad_135.0deg_y3_x3'
    """
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


def _operator(operator: Any) -> Callable[..., Array]:
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(f"unknown operator {operator!r}; known operators: {', '.join(OPERATORS)}")
    return OPERATORS[operator]


def _grid(pool: Any) -> tuple[int, int] | None:
    """Return the rows and columns of the pooling grid; None for no pooling."""
    accepted = '"mean", "none", an integer of at least 1 or a pair of such integers'
    if isinstance(pool, str):
        if pool not in ("mean", "none"):
            raise ValueError(f"pool must be {accepted}, got {pool!r}")
        return None if pool == "none" else (1, 1)
    pair = tuple(pool) if isinstance(pool, (tuple, list)) else (pool, pool)
    rows, columns = (
        (as_int(number, "pool", accepted) for number in pair) if len(pair) == 2 else (0, 0)
    )
    if rows < 1 or columns < 1:
        raise ValueError(f"pool must be {accepted}, got {pool!r}")
    return rows, columns
