"""Checks and conversion of input: NumPy arrays and torch tensors.

torch is never imported here unless the caller already holds a tensor.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_int
from dtwpt.typing import ChannelAxis

#: A NumPy array or a torch tensor.
Array: TypeAlias = Any


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, found out without importing torch."""
    if isinstance(x, np.ndarray):
        return False
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

    It is in C order. uint8 and uint16 are scaled to 0..1; bool and the other integers become
    float32 as they are. Half-precision tensors keep their dtype.

    Raises
    ------
    TypeError
        If the dtype is another one, or the array is masked.
    ValueError
        If there are too few axes or an empty one.
    """
    if not is_tensor(x):
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
    if is_tensor(x) and dtype in ("float16", "bfloat16"):
        return x
    raise TypeError(
        f"{name} must be float32, float64, bool or integer (converted to float32), got {dtype}"
    )


def as_image_input(x: Any, channel_axis: ChannelAxis, name: str = "x") -> Array:
    """Return images as :func:`as_real_input` does, channels before rows and columns.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (..., H, W), with an axis of channels anywhere
    channel_axis : int, None or "ask"
        The axis of channels; None: there is none. "ask": there is none either, but an array
        (..., H, W, 3) or (..., H, W, 4) with H and W above 4 is refused, as it would be read as
        H images of W x 3 pixels.
    name : str

    Raises
    ------
    TypeError, ValueError
        As for :func:`as_real_input`; if there is no such axis, or the array is refused.
    """
    if not is_tensor(x):
        x = _as_array(x, name)
    if channel_axis == "ask":
        _refuse_channels_last(x, name)
    elif channel_axis is not None:
        accepted = "an axis of the array, None or 'ask'"
        axis = as_int(channel_axis, "channel_axis", accepted)
        if x.ndim < 3:
            raise ValueError(
                f"{name} must have an axis of channels beside its rows and columns, got shape "
                f"{tuple(x.shape)}"
            )
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(
                f"channel_axis must be {accepted}, got {axis} for shape {tuple(x.shape)}"
            )
        x = namespace(x).moveaxis(x, axis, -3)
    return as_real_input(x, 2, name)


def _refuse_channels_last(x: Array, name: str) -> None:
    # Symbolic sizes are not compared: that would specialise a compiled graph.
    if is_tensor(x) and sys.modules["torch"].compiler.is_compiling():
        return
    shape = tuple(x.shape)
    if len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4:
        raise ValueError(
            f"{name} of shape {shape} looks like colour images with channels last: give "
            f"channel_axis=-1 if it is, channel_axis=None for images of {shape[-2]} x {shape[-1]} "
            "pixels"
        )


def as_complex_input(c: Any, name: str = "c") -> Array:
    """Return ``c`` as a complex64 or complex128 array in C order.

    Raises
    ------
    TypeError
        If the dtype is another one, or the array is masked.
    """
    if not is_tensor(c):
        c = _as_array(c, name)
    dtype = dtype_name(c)
    if dtype not in ("complex64", "complex128"):
        raise TypeError(f"{name} must be complex64 or complex128, got {dtype}")
    return c if is_tensor(c) else np.ascontiguousarray(c, dtype=dtype)


def as_numpy(x: Any, name: str = "x") -> NDArray[Any]:
    """Return ``x`` as a NumPy array, even a tensor on a device, with gradients or in bfloat16.

    Raises
    ------
    TypeError
        If it is a masked array.
    ValueError
        If it is no array.
    """
    if is_tensor(x):
        x = x.detach().cpu().resolve_conj()
        # NumPy has no bfloat16.
        return np.asarray((x.float() if dtype_name(x) == "bfloat16" else x).numpy())
    return _as_array(x, name)


def refuse_masked(x: Any, name: str = "x") -> None:
    """Raise a TypeError if ``x`` is a masked array, or a list with one.

    Masked values have no defined replacement.
    """
    masked = np.ma.is_masked(x) or (
        isinstance(x, (list, tuple)) and any(np.ma.is_masked(item) for item in x)
    )
    if masked:
        raise TypeError(f"{name} must not be masked: fill the masked values first")


def _as_array(x: Any, name: str) -> NDArray[Any]:
    refuse_masked(x, name)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None


def _native(x: Array, dtype: str) -> Array:
    """Return ``x`` in C order with a dtype of native byte order."""
    if is_tensor(x):
        return x.to(getattr(sys.modules["torch"], dtype)).contiguous()
    return np.ascontiguousarray(x, dtype=dtype)
