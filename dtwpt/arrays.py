"""The few primitives that differ between NumPy arrays and torch tensors.

Everything else that the transform needs (slicing, ``add``, ``multiply``, ``sqrt`` with ``out=``) is
spelled alike in both, so the code above this module is written once. torch is never imported
here unless the caller already holds a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

#: A NumPy array or a torch tensor.
Array: TypeAlias = Any
#: What gives an array to write to, of a shape and of the kind, dtype and device of another array.
Allocate: TypeAlias = Callable[[tuple[int, ...], Array], Array]

__all__ = [
    "Allocate",
    "Array",
    "as_complex_input",
    "as_real_input",
    "complex_empty",
    "constant",
    "contiguous",
    "copy",
    "dtype_name",
    "empty",
    "full_precision",
    "is_tensor",
    "linear_map",
    "namespace",
    "permute",
    "planes_product",
    "planes_windows_product",
    "real_and_imaginary",
    "remainder",
    "take",
]

_NUMPY_COMPLEX = {"float32": np.complex64, "float64": np.complex128}


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, found out without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(x: Array) -> ModuleType:
    """Return the module ``numpy`` or ``torch`` that ``x`` belongs to."""
    return sys.modules["torch"] if is_tensor(x) else np


def dtype_name(x: Array) -> str:
    """Return the dtype's NumPy name, such as ``"float32"``, whatever its byte order."""
    return str(x.dtype).removeprefix("torch.") if is_tensor(x) else str(x.dtype.name)


def as_real_input(x: Any, ndim: int, name: str = "x") -> Array:
    """Return ``x`` as a float32 or float64 array of at least ``ndim`` axes, none of them empty.

    It is in C order, so that the same image gives the same products whatever its layout was.
    uint8 and uint16 are scaled to 0..1; bool and the other integers become float32 as they are.

    Raises
    ------
    TypeError
        If the dtype is neither float32, float64, bool nor integer.
    ValueError
        If there are too few axes or an empty one.
    """
    if not is_tensor(x):
        if np.ma.is_masked(x):
            raise TypeError(f"{name} must not be masked; fill what is masked first")
        x = _as_array(x, name)
    if x.ndim < ndim:
        axes = {1: "(..., N)", 2: "(..., H, W)"}[ndim]
        raise ValueError(f"{name} must have shape {axes}, got {tuple(x.shape)}")
    if 0 in tuple(x.shape):
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    dtype = dtype_name(x)
    if dtype in ("float32", "float64"):
        return _native(x, dtype)
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        full_scale = {"uint8": 255.0, "uint16": 65535.0}.get(dtype, 1.0)
        return _native(x, "float32") / full_scale
    raise TypeError(
        f"{name} must be float32, float64, bool or integer (converted to float32), got {dtype}"
    )


def _as_array(x: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None


def as_complex_input(c: Any, name: str = "c") -> Array:
    """Return ``c`` as a complex64 or complex128 array.

    Raises
    ------
    TypeError
        If the dtype is another one.
    """
    if not is_tensor(c):
        c = _as_array(c, name)
    dtype = dtype_name(c)
    if dtype not in ("complex64", "complex128"):
        raise TypeError(f"{name} must be complex64 or complex128, got {dtype}")
    return c if is_tensor(c) else c.astype(dtype, copy=False)


def _native(x: Array, dtype: str) -> Array:
    """Return ``x`` in C order with a dtype of native byte order."""
    if is_tensor(x):
        return x.to(getattr(sys.modules["torch"], dtype)).contiguous()
    return np.ascontiguousarray(x, dtype=dtype)


def empty(shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised array of the kind, dtype and device of ``like``."""
    return like.new_empty(shape) if is_tensor(like) else np.empty(shape, like.dtype)


def complex_empty(shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised complex array of the precision and device of the real ``like``."""
    if is_tensor(like):
        return like.new_empty(shape, dtype=like.dtype.to_complex())
    return np.empty(shape, _NUMPY_COMPLEX[dtype_name(like)])


def real_and_imaginary(c: Array) -> tuple[Array, Array]:
    """Return writable views of the real and the imaginary part."""
    if is_tensor(c):
        pairs = sys.modules["torch"].view_as_real(c.resolve_conj())
        return pairs[..., 0], pairs[..., 1]
    return c.real, c.imag


def permute(x: Array, axes: tuple[int, ...]) -> Array:
    """Return a view with the axes in another order."""
    return x.permute(axes) if is_tensor(x) else x.transpose(axes)


def contiguous(x: Array) -> Array:
    """Return ``x`` in C order, copied only if it is not yet."""
    return x.contiguous() if is_tensor(x) else np.ascontiguousarray(x)


def copy(x: Array) -> Array:
    """Return a copy in C order."""
    return (
        x.clone(memory_format=sys.modules["torch"].contiguous_format) if is_tensor(x) else x.copy()
    )


def remainder(x: Array, divisor: int) -> Array:
    """Return the remainder of whole numbers, with the sign of the divisor.

    The divisor may be a symbol of torch's; the exporter to ONNX wants it as a tensor.
    """
    return x % x.new_full((), divisor) if is_tensor(x) else x % divisor


def take(x: Array, index: NDArray[np.intp], axis: int) -> Array:
    """Return the entries at ``index`` along ``axis``; zeros where the index is -1."""
    if is_tensor(x):
        torch = sys.modules["torch"]
        where = torch.from_numpy(np.maximum(index, 0)).to(x.device)
        taken = x.index_select(axis, where)
    else:
        taken = np.take(x, np.maximum(index, 0), axis=axis)
    if (index < 0).any():
        blank = (slice(None),) * (axis % x.ndim) + (np.flatnonzero(index < 0),)
        taken[blank] = 0
    return taken


def constant(values: NDArray[np.float64], like: Array) -> Array:
    """Return ``values`` as an array of the kind, dtype and device of ``like``."""
    values = np.asarray(values, dtype=dtype_name(like))
    if is_tensor(like):
        return sys.modules["torch"].from_numpy(values).to(like.device)
    return values


def planes_product(x: Array, matrix: NDArray[np.float64], allocate: Allocate = empty) -> Array:
    """Multiply each plane with a matrix, ``out[b] = x[b] @ matrix``, each in a product of its own.

    See :func:`planes_windows_product` for why.
    """
    factor = constant(matrix, x)
    out = allocate((*x.shape[:2], matrix.shape[1]), x)
    if is_tensor(x):
        return sys.modules["torch"].bmm(x, factor.expand(x.shape[0], *factor.shape), out=out)
    return np.matmul(x, factor, out=out)


def planes_windows_product(
    matrix: NDArray[np.float64], x: Array, step: int, count: int, allocate: Allocate = empty
) -> Array:
    """Multiply a matrix with overlapping windows of rows.

    ``out[b, n] = matrix @ x[b, n * step : n * step + K]``: the windows of a row-major array are
    themselves matrices, so a strided view feeds the product and nothing is unfolded. Each plane
    b goes through products of its own, of one shape: what comes out does not depend on the
    planes beside it, bit for bit.

    Parameters
    ----------
    matrix : ndarray, shape (M, K)
    x : array, shape (B, R, C)
        The last axis contiguous, ``R >= (count - 1) * step + K``.
    step, count : int
    allocate : callable
        Gives the array that is returned.

    Returns
    -------
    array, shape (B, count, M, C)
    """
    factor = constant(matrix, x)
    rows, length = matrix.shape
    planes, _, columns = x.shape
    out = allocate((planes, count, rows, columns), x)
    if not is_tensor(x):
        plane_stride, row_stride, item = x.strides
        windows = as_strided(
            x,
            (planes, count, length, columns),
            (plane_stride, step * row_stride, row_stride, item),
            writeable=False,
        )
        return np.matmul(factor, windows, out=out)
    torch = sys.modules["torch"]
    plane_stride, row_stride, _ = x.stride()
    if count == 1:
        return torch.bmm(factor.expand(planes, rows, length), x[:, :length], out=out[:, 0])[:, None]
    factor = factor.expand(count, rows, length)
    for plane, result in zip(x, out, strict=True):
        windows = plane.as_strided(
            (count, length, columns), (step * row_stride, row_stride, 1), plane.storage_offset()
        )
        torch.bmm(factor, windows, out=result)
    return out


@contextmanager
def full_precision(x: Array) -> Iterator[None]:
    """Keep out what makes torch round products to fewer bits than their dtype has.

    That is autocast, and ``torch.set_float32_matmul_precision`` (TF32 on GPUs), which is a setting
    of the whole process: it is put aside for the time of the products.
    """
    if not is_tensor(x):
        yield
        return
    torch = sys.modules["torch"]
    precision = torch.get_float32_matmul_precision()
    with torch.autocast(x.device.type, enabled=False):
        if precision == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


def linear_map(
    x: Array, forward: Callable[[Array], Array], adjoint: Callable[[Array], Array]
) -> Array:
    """Apply a linear map whose derivative, for torch, is its adjoint.

    Both maps take and return arrays whose first axis runs over independent planes.
    """
    if not is_tensor(x):
        return forward(x)
    from dtwpt._autograd import LinearMap

    def guarded(mapping: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def run(x: Array) -> Array:
            with full_precision(x):
                return mapping(x)

        return run

    return LinearMap.apply(x, guarded(forward), guarded(adjoint))  # type: ignore[no-untyped-call]
