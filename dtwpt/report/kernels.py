"""Kernels and first layers from files, without running code in them."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance import Layer

__all__ = ["KernelError", "load_kernels", "open_tensors"]

# Candidates named in an error.
_SHOWN = 8
# Names of tensors in nested dictionaries, about: no network has longer ones, but a bomb may.
_LONGEST_NAME = 1000
# Until then, weights_only=True could be made to run code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)


class KernelError(ValueError):
    """A file of kernels that cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def load_kernels(
    path: str | os.PathLike[str], key: str | None = None
) -> tuple[NDArray[Any], str | None]:
    """Read convolution kernels from a .npy, .pt, .pth or .safetensors file.

    Parameters
    ----------
    path : path
        A NumPy array, what ``torch.save`` made of a tensor or of a ``state_dict()``, or
        safetensors.
    key : str, optional
        Which tensor, in a file of several. Default: the one of four dimensions, if there is one.

    Returns
    -------
    kernels : ndarray, shape (out, in, h, w) or (n, h, w)
    key : str or None
        Which tensor it is; None in a file of one.

    Raises
    ------
    KernelError
        If the file is missing, damaged or of an unknown kind, holds anything but arrays, or does
        not tell which tensor is meant: the error then lists those that may be.
    ImportError
        If the library for that kind of file is missing.

    Notes
    -----
    Nothing is unpickled but tensors: a ``.pt`` file is read with ``weights_only=True``, by torch
    2.6 or later. A file with sparse, quantised or nested tensors is refused as a whole, as torch
    does not check what they say about memory.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.report import load_kernels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "conv1.npy")
    ...     np.save(path, np.ones((64, 3, 7, 7)))
    ...     load_kernels(path)[0].shape
    (64, 3, 7, 7)
    """
    path = os.fspath(path)
    tensors = open_tensors(path)
    chosen = _choose(path, tensors.shapes, key)
    shape = tensors.shapes[chosen]  # before a large one is loaded
    if len(shape) not in (3, 4) or 0 in shape:
        raise KernelError(
            path, f"kernels must have shape (out, in, h, w) or (n, h, w), got {shape}"
        )
    if len(shape) == 4 and shape[1] > 4:
        raise KernelError(
            path,
            f"kernels of {shape[1]} input channels are not a first layer's, which sees 1 to 4",
        )
    kernels = tensors.load(chosen)
    if kernels.dtype.kind not in "fiub":
        raise KernelError(path, f"kernels must be real numbers, got {kernels.dtype}")
    if not np.isfinite(kernels).all():
        raise KernelError(path, "kernels must be finite, got NaN or infinity")
    return kernels, chosen


def open_tensors(path: str) -> Tensors:
    """Return the contents of a file of kernels.

    Raises
    ------
    KernelError, ImportError
        As :func:`load_kernels` does.
    """
    suffix = os.path.splitext(path)[1].lower()
    readers = {
        ".npy": _read_npy,
        ".pt": _read_torch,
        ".pth": _read_torch,
        ".safetensors": _read_safetensors,
    }
    if suffix not in readers:
        raise KernelError(path, f"kernels are read from {' '.join(readers)} files")
    if os.path.isdir(path):
        raise KernelError(path, "is a folder")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise KernelError(path, error.strerror or str(error)) from None
    return readers[suffix](path)


class Tensors:
    """The tensors of a file: the shape of each by name, and a function that reads one."""

    def __init__(self, shapes: dict[str | None, tuple[int, ...]], load: Any) -> None:
        self.shapes = shapes
        self.load = load


def _choose(path: str, shapes: Mapping[str | None, tuple[int, ...]], key: str | None) -> str | None:
    if None in shapes:  # a file of one tensor without a name
        if key is not None:
            raise KernelError(path, f"holds one array without a name, so no key {key!r}")
        return None
    names = [name for name in shapes if name is not None]
    candidates = [name for name in names if len(shapes[name]) == 4]
    if key is not None:
        if key in names:
            return key
        near = difflib.get_close_matches(key, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else _listing(candidates, shapes)
        raise KernelError(path, f"no tensor {key!r}; {hint}")
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise KernelError(path, "holds no tensor of four dimensions, as convolutions have")
    raise KernelError(
        path, f"several tensors may be meant, choose with --key: {_listing(candidates, shapes)}"
    )


def _listing(names: list[str], shapes: Mapping[str | None, tuple[int, ...]]) -> str:
    shown = ", ".join(f"{name} {'x'.join(map(str, shapes[name]))}" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (shown or "there is none of four dimensions") + more


def _read_npy(path: str) -> Tensors:
    # Memory-mapped, which refuses objects and shapes larger than the file.
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the header is a Python literal, which may raise anything
        raise KernelError(path, f"not a plain .npy array: {_one_line(error)}") from None
    return Tensors({None: array.shape}, lambda _: np.array(array))


def _read_torch(path: str) -> Tensors:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(f'{path}: needs torch: pip install "dtwpt[torch]"') from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise ImportError(
            f"{path}: to read it without running what it may hold takes torch 2.6 or later, this "
            f"is {torch.__version__}; .safetensors and .npy need no torch"
        )
    try:
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(True):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: the file may be anything
        raise KernelError(
            path,
            "damaged, or not tensors alone, hence not opened (of a whole model, save "
            "model.state_dict())",
        ) from error
    found: dict[str | None, Any] = dict(_tensors_in(content, torch))
    for name, tensor in found.items():
        # All of them, before anything else asks for a shape or a value.
        wrong = _unusual(tensor, torch, os.path.getsize(path))
        if wrong:
            shown = "the tensor" if name is None else f"tensor {name!r}"
            raise KernelError(
                path,
                f"{shown} {wrong}; only dense tensors are read: save it as tensor.to_dense(), "
                "dequantize() or contiguous(), if you trust the file",
            )

    def load(name: str | None) -> NDArray[Any]:
        tensor = found[name].detach()
        if tensor.is_complex():
            raise KernelError(path, f"kernels must be real numbers, got {tensor.dtype}")
        try:
            return np.asarray(tensor.to(torch.float64).numpy())
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise KernelError(path, f"tensor cannot be read: {_one_line(error)}") from error

    return Tensors({name: tuple(tensor.shape) for name, tensor in found.items()}, load)


def _tensors_in(content: Any, torch: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield the tensors in nested dictionaries, under names joined by dots.

    Each dictionary is looked into once, as it may hold itself.
    """
    if torch.is_tensor(content):
        yield None, content
        return
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        prefix, value = waiting.pop()
        if torch.is_tensor(value):
            yield prefix, value
        elif isinstance(value, Mapping) and id(value) not in seen and len(prefix) < _LONGEST_NAME:
            seen.add(id(value))
            inner = [
                (f"{prefix}.{name}" if prefix else str(name), value[name])
                for name in value
                if isinstance(name, (str, int))
            ]
            waiting += reversed(inner)


def _unusual(tensor: Any, torch: Any, file_bytes: int) -> str:
    """Return why an untrusted tensor cannot be read; empty if it can.

    torch trusts the indices of sparse tensors, the scales of quantised and the offsets of nested
    ones: converting them may write or read anywhere in memory.
    """
    if tensor.is_nested or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return "is nested or of a class of its own"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}"
    if tensor.is_quantized or tensor.device.type != "cpu":
        return "is quantised" if tensor.is_quantized else "has no values"
    try:
        stored = tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):  # such as that of mkldnn
        return "has its own storage format"
    offset, strides = tensor.storage_offset(), tensor.stride()
    last = sum((side - 1) * step for side, step in zip(tensor.shape, strides, strict=True))
    needed = max(offset + last + 1, tensor.numel()) * tensor.element_size()
    holds = min(offset, *strides, 0) >= 0 and needed <= stored <= file_bytes
    return "" if holds or not tensor.numel() else "is larger than what is stored of it"


def _read_safetensors(path: str) -> Tensors:
    try:
        library = importlib.import_module("safetensors")
    except ImportError as error:
        raise ImportError(f"{path}: needs safetensors: pip install safetensors") from error
    shapes: dict[str | None, tuple[int, ...]] = {}
    try:
        with library.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dictionary
                shapes[name] = tuple(file.get_slice(name).get_shape())
    except Exception as error:  # its own kind of error, private to the library
        raise KernelError(path, f"not a safetensors file: {_one_line(error)}") from error

    def load(name: str | None) -> NDArray[Any]:
        try:
            with library.safe_open(path, framework="np") as file:
                return np.asarray(file.get_tensor(name))
        except Exception as error:  # such as bfloat16, which NumPy lacks
            raise KernelError(
                path, f"tensor {name!r} cannot be read: {_one_line(error)}"
            ) from error

    return Tensors(shapes, load)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# Layers -------------------------------------------------------------------------------------------


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
