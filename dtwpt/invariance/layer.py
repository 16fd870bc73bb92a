"""First layer of a network: convolution, bias, ReLU and pooling, as :class:`Layer`."""

from __future__ import annotations

import math
import sys
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_count
from dtwpt.packets import PacketBank

__all__ = ["Layer", "as_layer", "is_network"]

# Maximum bytes of a saved layer, more than any needs.
_LARGEST = 2**28


@dataclass(frozen=True, eq=False)
class Layer:
    r"""First layer of a network: filters, bias, ReLU, and a pooling.

    Filters are applied with stride m and give :math:`\mathrm{Re} Z`. Then come a bias b, a ReLU,
    the maximum over windows of ``window`` x ``window`` outputs, and a weighted mean over
    ``len(blur)`` of these maxima along each axis. Of the result every ``pool_stride``-th is kept.
    Its stable twin is :math:`\mathrm{ReLU}(|Z| + b)` in the middle of the window.

    Parameters
    ----------
    filters : PacketBank, array_like or torch.Tensor
        Packets, or kernels (out, in, h, w) or (n, h, w). All channels of the images count.
    bias : array_like of float, shape (out,), optional
        In the units of the images. A factor, as of a normalisation, is part of the kernels.
    relu : bool, default: False
    stride : float, optional
        Subsampling m of the convolution, which need not be whole. Default: 2, or
        ``2**(depth - 1)`` for packets.
    window : int, default: 3
        Side of the pooling window, odd or even; 1: no maximum.
    blur : int or sequence of float, default: 1
        Weights of the mean after the maximum along an axis, with sum 1; a number n stands for n
        binomial weights. A mean over k x k is ``window=1, blur=[1 / k] * k``.
    pool_stride : int, default: 2

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Notes
    -----
    Padding is not part of it: only outputs whose filters and windows lie within an image are
    compared.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.invariance import Layer, predict
    >>> kernels = np.random.default_rng(0).normal(size=(4, 3, 7, 7))
    >>> layer = Layer(kernels, bias=np.zeros(4), relu=True, window=2)
    >>> predict(layer).shape
    (4,)
    """

    filters: Any
    bias: Any = None
    relu: bool = False
    stride: float | None = None
    window: int = 3
    blur: Any = 1
    pool_stride: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.relu, bool):
            raise TypeError(f"relu must be True or False, got {self.relu!r}")
        as_count(self.window, "window")
        as_count(self.pool_stride, "pool_stride")
        if self.stride is not None:
            as_stride(self.stride)
        object.__setattr__(self, "blur", _weights(self.blur))

    @property
    def side(self) -> int:
        """Outputs of the convolution that one output of the pooling sees along an axis."""
        return self.window + len(self.blur) - 1

    def save(self, path: Any) -> None:
        """Save the layer to a file, which :meth:`load` and ``dtwpt invariance --layer`` read.

        Parameters
        ----------
        path : path
            Ends in ``.npz``.

        Raises
        ------
        TypeError
            If the filters are a packet bank, which is given by a depth and a wavelet.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from dtwpt.invariance import Layer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "layer.npz")
        ...     Layer(np.ones((1, 3, 7, 7)), bias=[0.5], relu=True).save(path)
        ...     layer = Layer.load(path)
        >>> layer.relu, layer.filters.shape
        (True, (1, 3, 7, 7))
        """
        if isinstance(self.filters, PacketBank):
            raise TypeError("filters must be kernels for a layer to be saved, got a PacketBank")
        filters = self.filters.detach().cpu() if hasattr(self.filters, "detach") else self.filters
        values = {
            "filters": np.asarray(filters),
            "bias": np.zeros(0) if self.bias is None else np.asarray(self.bias, np.float64),
            "relu": self.relu,
            "stride": default_stride(filters) if self.stride is None else self.stride,
            "window": self.window,
            "blur": self.blur,
            "pool_stride": self.pool_stride,
        }
        with open(path, "wb") as file:  # NumPy would append its own suffix
            np.savez_compressed(file, **values)

    @classmethod
    def load(cls, path: Any) -> Layer:
        """Read a layer that :meth:`save` wrote. No code in the file is run.

        Parameters
        ----------
        path : path

        Returns
        -------
        Layer

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged or holds something else.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(each.file_size for each in archive.infolist()) > _LARGEST:
                    raise ValueError("too large")
            with np.load(path, allow_pickle=False) as file:
                filters, bias, blur = file["filters"], file["bias"], file["blur"]
                relu, stride, window, pool_stride = (
                    file[name].item() for name in ("relu", "stride", "window", "pool_stride")
                )
        except OSError:
            raise
        except Exception as error:  # of any kind: the file may hold anything
            raise ValueError(f"{path}: not a layer that Layer.save wrote") from error
        return cls(filters, bias if bias.size else None, relu, stride, window, blur, pool_stride)


def as_stride(stride: Any) -> float:
    """Return a subsampling of at least 1, an int if it is whole."""
    try:
        value = float(stride)
    except (TypeError, ValueError):
        raise TypeError(f"stride must be a number of at least 1, got {stride!r}") from None
    if not (math.isfinite(value) and value >= 1):
        raise ValueError(f"stride must be a number of at least 1, got {stride!r}")
    return int(value) if value == int(value) else value


def _weights(blur: Any) -> tuple[float, ...]:
    if isinstance(blur, (int, np.integer)):
        taps = as_count(blur, "blur")
        return tuple(math.comb(taps - 1, k) / 2 ** (taps - 1) for k in range(taps))
    weights = np.asarray(blur, dtype=np.float64)
    if weights.ndim != 1 or not weights.size or not np.isfinite(weights).all():
        raise ValueError(f"blur must be a number of taps or a list of weights, got {blur!r}")
    if not math.isclose(float(weights.sum()), 1, rel_tol=1e-6):
        raise ValueError(f"blur must have the sum 1, got {weights.sum():g}")
    return tuple(weights.tolist())


def is_network(value: Any) -> bool:
    """Whether ``value`` is a torch module or a stem of one, found out without importing torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(value, torch.nn.Module) or isinstance(
        getattr(value, "model", None), torch.nn.Module
    )


def as_layer(network: Any) -> Layer:
    """Return the first layer of a network in evaluation mode.

    Parameters
    ----------
    network : torch.nn.Module
        Such as ``nn.Sequential(conv, bn, relu, pool)`` or a whole ResNet. Its stem is recognised
        as :func:`dtwpt.nn.antialias_stem` recognises it: a convolution, a batch normalisation, a
        ReLU and a pooling, the middle two of which may be missing.

    Returns
    -------
    Layer

    Raises
    ------
    TypeError, ValueError
        If no stem is recognised, or a part of it is not of these kinds.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.invariance import as_layer
    >>> stem = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 7, stride=2), torch.nn.ReLU(), torch.nn.AvgPool2d(2)
    ... )
    >>> layer = as_layer(stem)
    >>> layer.stride, layer.window, layer.blur
    (2, 1, (0.5, 0.5))
    """
    # Finding a stem belongs to a higher layer of the package, imported here for convenience.
    import torch

    from dtwpt.nn.locate import Stem, find_stem
    from dtwpt.nn.pooling.max_blur import MaxBlurPool2d

    stem = network if isinstance(network, Stem) else find_stem(network, replaceable=False)
    conv, norm, act, pool = map(stem.module, (stem.conv, stem.norm, stem.act, stem.pool))
    if not isinstance(conv, torch.nn.Conv2d) or conv.groups != 1 or conv.dilation != (1, 1):
        raise ValueError(
            f"{stem.conv} must be one nn.Conv2d without groups and dilation, got {conv}"
        )
    kernels = conv.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(kernels))
    if conv.bias is not None:
        bias = conv.bias.detach().double().cpu().numpy()
    if norm is not None:
        factor, offset = _affine(norm)
        kernels, bias = kernels * factor[:, None, None, None], bias * factor + offset
    if act is not None and not isinstance(act, (torch.nn.ReLU, torch.nn.Identity)):
        raise ValueError(f"{stem.act} must be nn.ReLU, got {type(act).__name__}")
    window, pool_stride = 1, 1
    blur: tuple[float, ...] = (1.0,)
    if isinstance(pool, torch.nn.AvgPool2d):
        side = _one(pool.kernel_size, "kernel_size of the pooling")
        blur, pool_stride = (1 / side,) * side, _one(pool.stride, "stride of the pooling")
    elif isinstance(pool, (torch.nn.MaxPool2d, MaxBlurPool2d)):
        if _one(getattr(pool, "dilation", 1), "dilation of the pooling") != 1:
            raise ValueError(f"{stem.pool} must have no dilation, got {pool}")
        window = _one(pool.kernel_size, "kernel_size of the pooling")
        pool_stride = _one(pool.stride, "stride of the pooling")
        if isinstance(pool, MaxBlurPool2d):
            blur = _weights(pool.blur)
    elif pool is not None and not isinstance(pool, torch.nn.Identity):
        raise ValueError(
            f"{stem.pool} must be nn.MaxPool2d, nn.AvgPool2d or MaxBlurPool2d, got "
            f"{type(pool).__name__}"
        )
    return Layer(
        kernels,
        bias if bias.any() else None,
        isinstance(act, torch.nn.ReLU),
        _one(conv.stride, "stride of the convolution"),
        window,
        blur,
        pool_stride,
    )


def _affine(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factor and offset of a batch normalisation in evaluation mode."""
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if mean is None or variance is None:
        raise ValueError(
            f"the normalisation must be nn.BatchNorm2d with running statistics, got {norm}"
        )
    mean, variance = (value.detach().double().cpu().numpy() for value in (mean, variance))
    factor = 1 / np.sqrt(variance + norm.eps)
    offset = np.zeros_like(factor)
    if norm.affine:
        factor = factor * norm.weight.detach().double().cpu().numpy()
        offset = norm.bias.detach().double().cpu().numpy()
    return factor, offset - mean * factor


def _one(value: Any, name: str) -> int:
    """Return the number that both axes have."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(set(pair)) != 1:
        raise ValueError(f"{name} must be the same along both axes, got {pair}")
    return int(pair[0])


def layer_of(bank_or_kernels: Any, stride: Any, q: int | None) -> Layer | None:
    """Return the given layer, or None for filters alone."""
    layer = bank_or_kernels
    if is_network(layer):
        layer = as_layer(layer)
    if not isinstance(layer, Layer):
        return None
    if q is not None or stride is not None:
        raise ValueError("q and stride are parts of a Layer: give them to it")
    return layer


def default_stride(filters: Any) -> int:
    """Default subsampling of the real part."""
    return 2 ** (filters.depth - 1) if isinstance(filters, PacketBank) else 2
