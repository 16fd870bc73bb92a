"""Reference engine: short, for any depth, for NumPy arrays and tensors on any device.

Every other engine is tested against it. For tensors it uses plain torch operators that take
symbolic sizes, so that graphs can be exported with it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dtwpt.engine.borders import source_index
from dtwpt.engine.spec import Analysis, Axis, Kind

Array = Any

# Numbers in the largest intermediate array, about: images go through a few at a time.
_CHUNK = 2**22


def analyse(
    x: Array, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, taps: Array = None
) -> Array:
    """Analyse (B, *shape) to (B, ..., *size), what ``kind`` says; see :class:`Analysis`.

    Tensors may have symbolic sizes, and what is returned of them is differentiable. They may come
    with filters (2 P, L) in place of the analysis's own.
    """
    if not isinstance(x, np.ndarray):
        taps = _constant(analysis.taps, x) if taps is None else taps
        return _of_kind(_combine(_trees(x, analysis, axes, taps), analysis), analysis, kind)
    parts = []
    for images in _chunks(x, analysis, axes):
        trees = images
        for axis in axes[::-1]:  # always the last one; its cells are put first
            trees = _correlate(trees, analysis, axis)
        parts.append(_of_kind(_combine(trees, analysis), analysis, kind))
    return np.concatenate(parts)


def adjoint(c: Array, analysis: Analysis, axes: tuple[Axis, ...], kind: Kind) -> Array:
    """Apply the adjoint, in the real inner product, of :func:`analyse`: to (B, *shape)."""
    if not isinstance(c, np.ndarray):
        return _trees_adjoint(_separate(c, analysis, kind), analysis, axes)
    parts = []
    for coefficients in _chunks(c, analysis, axes):
        trees = _separate(coefficients, analysis, kind)
        for axis in axes:
            trees = _spread(trees, analysis, axis)
        parts.append(trees)
    return np.concatenate(parts)


# NumPy ------------------------------------------------------------------------------------------


def _chunks(x: NDArray[Any], analysis: Analysis, axes: tuple[Axis, ...]) -> list[NDArray[Any]]:
    numbers = np.prod([2 * analysis.count * axis.count for axis in axes])
    size = max(1, int(_CHUNK // numbers))
    return [x[start : start + size] for start in range(0, max(len(x), 1), size)]


def _correlate(x: NDArray[Any], analysis: Analysis, axis: Axis) -> NDArray[Any]:
    """(B, ..., n) to (B, 2 P, count, ...)."""
    taps = analysis.taps.astype(x.dtype)
    extended = np.take(x, np.maximum(axis.index, 0), axis=-1)
    extended[..., axis.index < 0] = 0
    windows = sliding_window_view(extended, axis.length, axis=-1)[..., :: axis.stride, :]
    out = np.empty((*windows.shape[:-1], len(taps)), x.dtype)
    for line in np.ndindex(out.shape[:-2]):  # products of one shape for any batch
        np.matmul(np.ascontiguousarray(windows[line]), taps.T, out=out[line])
    return np.moveaxis(out, (-1, -2), (1, 2))


def _spread(c: NDArray[Any], analysis: Analysis, axis: Axis) -> NDArray[Any]:
    """Apply the adjoint of :func:`_correlate`: (B, 2 P, count, ...) to (B, ..., n)."""
    c = np.moveaxis(c, (1, 2), (-2, -1))
    pieces = np.matmul(analysis.taps.T.astype(c.dtype), c)
    extended = np.zeros((*c.shape[:-2], axis.extended), c.dtype)
    span = (axis.count - 1) * axis.stride + 1
    for tap in range(axis.length):
        extended[..., tap : tap + span : axis.stride] += pieces[..., tap, :]
    x = np.zeros((axis.n, *c.shape[:-2]), c.dtype)
    inside = axis.index >= 0
    np.add.at(x, axis.index[inside], np.moveaxis(extended, -1, 0)[inside])
    return np.moveaxis(x, 0, -1)


# torch ------------------------------------------------------------------------------------------


def _trees(x: Array, analysis: Analysis, axes: tuple[Axis, ...], taps: Array) -> Array:
    """(B, *shape) to what :func:`_combine` takes."""
    functional = sys.modules["torch"].nn.functional
    stride = analysis.stride
    across = _extended(x, -1, axes[-1])
    if analysis.ndim == 1:
        return functional.conv1d(across[:, None], taps[:, None], stride=stride)
    across = functional.conv2d(across[:, None], taps[:, None, None], stride=(1, stride))
    down = _extended(across, 2, axes[0]).flatten(0, 1)
    down = functional.conv2d(down[:, None], taps[:, None, :, None], stride=(stride, 1))
    return down.unflatten(0, (-1, taps.shape[0])).permute(0, 2, 3, 1, 4)


def _extended(x: Array, dim: int, axis: Axis) -> Array:
    torch = sys.modules["torch"]
    positions = torch.arange(axis.extended, device=x.device) + axis.first
    index = source_index(positions, axis.n, axis.mode)
    if axis.mode != "zero":
        return x.index_select(dim, index)
    inside = (index >= 0)[:, None] if dim == 2 else index >= 0
    return torch.where(inside, x.index_select(dim, index.clamp(min=0)), 0.0)


def _trees_adjoint(trees: Array, analysis: Analysis, axes: tuple[Axis, ...]) -> Array:
    functional = sys.modules["torch"].nn.functional
    taps = _constant(analysis.taps, trees)
    stride = analysis.stride
    if analysis.ndim == 1:
        across = functional.conv_transpose1d(trees, taps[:, None], stride=stride)[:, 0]
        return _folded(across, -1, axes[0])
    down = trees.permute(0, 3, 1, 2, 4).flatten(0, 1)
    down = functional.conv_transpose2d(down, taps[:, None, :, None], stride=(stride, 1))[:, 0]
    across = _folded(down, 1, axes[0]).unflatten(0, (-1, taps.shape[0]))
    across = functional.conv_transpose2d(across, taps[:, None, None], stride=(1, stride))[:, 0]
    return _folded(across, -1, axes[1])


def _folded(x: Array, dim: int, axis: Axis) -> Array:
    torch = sys.modules["torch"]
    shape = list(x.shape)
    shape[dim] = axis.n
    inside = np.flatnonzero(axis.index >= 0)
    source = torch.from_numpy(axis.index[inside].astype(np.int64)).to(x.device)
    x = x.index_select(dim, torch.from_numpy(inside).to(x.device))
    return x.new_zeros(shape).index_add(dim, source, x)


def _constant(values: NDArray[np.float64], like: Array) -> Array:
    return sys.modules["torch"].from_numpy(values).to(like.device, like.dtype)


# Both -------------------------------------------------------------------------------------------


def _combine(trees: Array, analysis: Analysis) -> tuple[Array, Array]:
    """Return real and imaginary parts, (B, K, *size), of the outputs of the trees.

    These are (B, 2 P, N') or (B, 2 P, H', 2 P, W').
    """
    p = analysis.count
    if analysis.ndim == 1:
        parts = trees[:, :p], trees[:, p:]
    else:
        trees = trees.swapaxes(2, 3)
        t11, t12 = trees[:, :p, :p], trees[:, :p, p:]
        t21, t22 = trees[:, p:, :p], trees[:, p:, p:]
        xp = _namespace(trees)
        parts = tuple(
            xp.stack(signs, 1).reshape(-1, analysis.total, *trees.shape[3:])
            for signs in ((t11 - t22, t11 + t22), (t12 + t21, t21 - t12))
        )
    if analysis.packets is not None:
        parts = tuple(part[:, list(analysis.packets)] for part in parts)
    return parts


def _of_kind(parts: tuple[Array, Array], analysis: Analysis, kind: Kind) -> Array:
    real, imaginary = parts
    xp = _namespace(real)
    if kind == "complex":
        return xp.complex(real, imaginary) if xp is not np else real + 1j * imaginary
    if kind == "parts":
        return xp.stack((real, imaginary), 1)
    if kind == "modulus":
        return np.hypot(real, imaginary) if xp is np else modulus(real, imaginary)
    if kind == "rmax" and analysis.pool is not None:
        for axis in range(2, real.ndim):
            last = real.shape[axis] - analysis.pool + 1
            views = [
                real[(slice(None),) * axis + (slice(shift, shift + last, 2),)]
                for shift in range(analysis.pool)
            ]
            real = views[0]
            for view in views[1:]:
                real = xp.maximum(real, view)
    return real


def modulus(real: Array, imaginary: Array) -> Array:
    """Return the modulus of two tensors, in operators that every format of graphs has.

    Neither overflows nor underflows; 0 where both are 0.
    """
    torch = sys.modules["torch"]
    size = torch.maximum(real.abs(), imaginary.abs())
    scale = torch.where(size == 0, 1.0, size)
    return size * torch.sqrt((real / scale) ** 2 + (imaginary / scale) ** 2)


def _separate(c: Array, analysis: Analysis, kind: Kind) -> Array:
    """Apply the adjoint of :func:`_combine` to what is of a kind."""
    xp = _namespace(c)
    if kind == "complex":
        real, imaginary = c.real, c.imag
    elif kind == "parts":
        real, imaginary = c[:, 0], c[:, 1]
    else:
        real, imaginary = c, xp.zeros_like(c)
    if analysis.packets is not None:
        everything = [xp.zeros_like(real[:, :1])] * analysis.total
        parts = []
        for part in (real, imaginary):
            whole = list(everything)
            for channel, packet in enumerate(analysis.packets):
                whole[packet] = part[:, channel : channel + 1]
            parts.append(xp.concatenate(whole, 1))
        real, imaginary = parts
    if analysis.ndim == 1:
        return xp.concatenate((real, imaginary), 1)
    p = analysis.count
    real, imaginary = (part.reshape(-1, 2, p, p, *c.shape[-2:]) for part in (real, imaginary))
    upper = xp.concatenate((real[:, 0] + real[:, 1], imaginary[:, 0] - imaginary[:, 1]), 2)
    lower = xp.concatenate((imaginary[:, 0] + imaginary[:, 1], real[:, 1] - real[:, 0]), 2)
    return xp.concatenate((upper, lower), 1).swapaxes(2, 3)


def _namespace(x: Array) -> Any:
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]
