"""The filters whose shift invariance is predicted and measured, packets or any kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.checks import as_count
from dtwpt.invariance.kernels import analytic_kernels, characterize
from dtwpt.invariance.layer import as_stride, default_stride, layer_of
from dtwpt.packets import PacketBank

__all__ = ["BOUNDS", "ERRORS", "RESULT", "Filters", "as_filters", "as_shifts", "blank_table"]

#: The three relative squared errors that are predicted and measured.
ERRORS = ("rmax_cmod", "cmod_shift", "rmax_shift")
#: Further columns: RMax's own error on CMod's scale, two bounds, and the deviation of an output
#: from circularity.
BOUNDS = ("rmax_shift_by_cmod", "rmax_cmod_bound", "cmod_shift_bound", "pseudo_covariance")

#: Columns of :func:`predict` and :func:`measure`: filter, shift, each error and its standard error.
RESULT = np.dtype(
    [
        ("filter", np.int64),
        ("theta_y", np.float64),
        ("theta_x", np.float64),
        ("frequency", np.float64),
        ("orientation", np.float64),
        ("bandwidth", np.float64),
        ("gabor", np.bool_),
        ("shift_y", np.float64),
        ("shift_x", np.float64),
        *((name + suffix, np.float64) for name in ERRORS + BOUNDS for suffix in ("", "_stderr")),
    ]
)


@dataclass(frozen=True)
class Filters:
    """Complex filters W, as they lie in the image, and what a layer does with their outputs.

    RMax takes the real part of the inner product with W at ``stride`` m, CMod the modulus at
    ``pool_stride`` m, in the middle of RMax's windows.

    Attributes
    ----------
    bank : PacketBank or None
    kernels : ndarray, shape (n, h, w) or (n, channels, h, w), or None
    stride : int, or float if it is not whole
    table : structured ndarray, shape (n,)
    bias : ndarray, shape (n,), or None
    relu : bool
    window : int
        Side of the maximum.
    blur : tuple of float
        Weights along an axis of the mean after it.
    pool_stride : int
    middle : (float, float)
        Middle of the taps, from the first one.
    """

    bank: PacketBank | None
    kernels: NDArray[np.complex128] | None
    stride: Any
    table: np.ndarray
    bias: NDArray[np.float64] | None = None
    relu: bool = False
    window: int = 3
    blur: tuple[float, ...] = (1.0,)
    pool_stride: int = 2
    middle: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        if self.bank is not None:
            return (self.bank.filters.shape[1],) * 2
        return self.kernels.shape[-2:]  # type: ignore[union-attr]

    @property
    def channels(self) -> int | None:
        """Channels of the images that the kernels see; None: grey ones."""
        several = self.kernels is not None and self.kernels.ndim == 4
        return self.kernels.shape[1] if several else None  # type: ignore[union-attr]

    @property
    def side(self) -> int:
        """Outputs along an axis that one result of the pooling sees."""
        return self.window + len(self.blur) - 1

    def __iter__(self) -> Iterator[NDArray[np.complex128]]:
        if self.bank is not None:
            for row in self.table:
                yield self.bank.atom(int(row["sign"]), int(row["row"]), int(row["col"]))
        else:
            yield from self.kernels  # type: ignore[misc]

    def offset(self, index: int) -> float:
        """Return the bias of a filter."""
        return 0.0 if self.bias is None else float(self.bias[index])

    def pooled(self, outputs: Any, offset: Any, xp: Any = np) -> Any:
        """Pool real outputs, a list of ``side**2`` arrays row by row."""
        # Bias and ReLU do not change which output is the largest.
        rows = range(len(self.blur))
        total: Any = 0
        for y in rows:
            for x in rows:
                largest = None
                for dy in range(self.window):
                    for dx in range(self.window):
                        value = outputs[(y + dy) * self.side + x + dx]
                        largest = value if largest is None else xp.maximum(largest, value)
                total = total + self.blur[y] * self.blur[x] * self.activated(largest, offset)
        return total

    def activated(self, values: Any, offset: Any) -> Any:
        """Add the bias, then apply the ReLU."""
        values = values if self.bias is None else values + offset
        # Multiplied, as arrays and tensors have no function of one name for it.
        return values * (values > 0) if self.relu else values


def as_filters(
    bank_or_kernels: Any,
    stride: float | None = None,
    colour: Any = None,
    q: int | None = None,
) -> Filters:
    """Return the filters of a packet bank, of kernels (see :func:`characterize`) or of a layer."""
    layer = layer_of(bank_or_kernels, stride, q)
    if layer is None:
        window = 2 * as_count(1 if q is None else q, "q") + 1
        options: dict[str, Any] = {"window": window}
        given, m = bank_or_kernels, stride
    else:
        given, m = layer.filters, layer.stride
        colour = "full" if colour is None and np.ndim(given) == 4 else colour
        options = {
            "relu": layer.relu, "window": layer.window, "blur": layer.blur,
            "pool_stride": layer.pool_stride,
        }  # fmt: skip
    m = as_stride(default_stride(given) if m is None else m)
    if isinstance(given, PacketBank):
        if colour is not None:
            raise ValueError("colour is for kernels of shape (out, in, h, w)")
        options["middle"] = ((given.filters.shape[1] - 1) / 2,) * 2
        filters = Filters(given, None, m, given.atoms(), **options)
    else:
        kernels = analytic_kernels(given, colour)
        options["middle"] = tuple(
            # The imaginary part of an analytic extension reaches further on one side.
            (taps - 1) / 2 + (0 if side == taps else 3 * taps // 2)
            for side, taps in zip(kernels.shape[-2:], np.shape(given)[-2:], strict=True)
        )
        filters = Filters(None, kernels, m, characterize(given, m, colour), **options)
    if layer is None or layer.bias is None:
        return filters
    bias = np.asarray(layer.bias, dtype=np.float64)
    if bias.shape != (len(filters),) or not np.isfinite(bias).all():
        raise ValueError(f"bias must be {len(filters)} finite numbers, got shape {bias.shape}")
    return replace(filters, bias=bias)


def as_shifts(shift: ArrayLike) -> tuple[NDArray[np.float64], bool]:
    """Return shifts as (n, 2), and whether a single one was given."""
    shifts = np.asarray(shift, dtype=np.float64)
    if shifts.ndim not in (1, 2) or shifts.shape[-1] != 2 or shifts.size == 0:
        raise ValueError(f"shift must have shape (2,) or (n, 2), got {shifts.shape}")
    if not np.isfinite(shifts).all():
        raise ValueError(f"shift must be finite, got {shift!r}")
    return shifts.reshape(-1, 2), shifts.ndim == 1


def blank_table(filters: Filters, shifts: NDArray[np.float64]) -> np.ndarray:
    """Return a table of shape (shifts, filters) with the filters described, the rest NaN."""
    table = np.empty((len(shifts), len(filters)), dtype=RESULT)
    table["bandwidth"] = np.nan
    for name in ERRORS + BOUNDS:
        table[name] = table[name + "_stderr"] = np.nan
    table["filter"] = np.arange(len(filters))
    for name in ("theta_y", "theta_x", "frequency", "orientation", "gabor"):
        table[name] = filters.table[name]
    table["shift_y"], table["shift_x"] = shifts[:, :1], shifts[:, 1:]
    return table
