"""A network's first layer from its parameters in a file: load_layer."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance import Layer
from dtwpt.report.kernels import KernelError, Tensors, load_kernels, open_tensors

# Of nn.BatchNorm2d, where it is not changed.
_EPSILON = 1e-5


def load_layer(
    path: str | os.PathLike[str],
    key: str | None = None,
    *,
    bias: str | None = None,
    norm: str | None = None,
    relu: bool = False,
    stride: int = 2,
    window: int = 3,
) -> tuple[Layer, str | None]:
    """Read a first layer from a file that :func:`load_kernels` reads.

    Parameters
    ----------
    path : path
    key : str, optional
        Tensor of the kernels, as for :func:`load_kernels`.
    bias : str, optional
        Tensor of the convolution's biases, such as ``"conv1.bias"``.
    norm : str, optional
        What the names of a batch normalisation's tensors begin with, such as ``"bn1"``: its factor
        and offset become part of the kernels and the bias.
    relu : bool, default: False
    stride, window : int
        Of the convolution, and of max pooling with stride 2.

    Returns
    -------
    layer : Layer
    key : str or None
        Which tensor the kernels are.

    Raises
    ------
    KernelError, ImportError
        As :func:`load_kernels`; or a tensor is missing, or of the wrong shape.

    Examples
    --------
    >>> import os, tempfile
    >>> import torch
    >>> from dtwpt.report import load_layer
    >>> stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 7, bias=False), torch.nn.BatchNorm2d(8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "stem.pt")
    ...     torch.save(stem.state_dict(), path)
    ...     layer, key = load_layer(path, norm="1", relu=True)
    >>> key, layer.relu, layer.filters.shape
    ('0.weight', True, (8, 3, 7, 7))
    """
    path = os.fspath(path)
    kernels, key = load_kernels(path, key)
    tensors = open_tensors(path)
    kernels = np.asarray(kernels, np.float64)
    count = len(kernels)
    offset = np.zeros(count) if bias is None else _vector(path, tensors, bias, count)
    if norm is not None:
        mean, variance = (
            _vector(path, tensors, f"{norm}.running_{name}", count) for name in ("mean", "var")
        )
        factor = 1 / np.sqrt(variance + _EPSILON)
        if f"{norm}.weight" in tensors.shapes:
            factor = factor * _vector(path, tensors, f"{norm}.weight", count)
        offset = (offset - mean) * factor
        if f"{norm}.bias" in tensors.shapes:
            offset = offset + _vector(path, tensors, f"{norm}.bias", count)
        kernels = kernels * factor.reshape(-1, *[1] * (kernels.ndim - 1))
    return Layer(kernels, offset if offset.any() else None, relu, stride, window), key


def _vector(path: str, tensors: Tensors, name: str, count: int) -> NDArray[Any]:
    if name not in tensors.shapes:
        raise KernelError(path, f"no tensor {name!r}")
    if tensors.shapes[name] != (count,):
        raise KernelError(
            path, f"tensor {name!r} must have shape ({count},), got {tensors.shapes[name]}"
        )
    values = np.asarray(tensors.load(name), np.float64)
    if not np.isfinite(values).all():
        raise KernelError(path, f"tensor {name!r} must be finite, got NaN or infinity")
    return values
