"""The filters whose shift invariance is predicted and measured, packets or any kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtwpt.checks import as_count
from dtwpt.invariance.kernels import analytic_kernels, characterize
from dtwpt.packets import PacketBank

__all__ = ["ERRORS", "RESULT", "Filters", "as_filters", "as_shifts", "blank_table"]

#: The three relative squared errors that are predicted and measured.
ERRORS = ("rmax_cmod", "cmod_shift", "rmax_shift")

#: Columns of :func:`predict` and :func:`measure`: what filter, what shift, each error and its
#: standard error.
RESULT = np.dtype(
    [
        ("filter", np.int64),
        ("theta_y", np.float64),
        ("theta_x", np.float64),
        ("frequency", np.float64),
        ("orientation", np.float64),
        ("bandwidth", np.float64),
        ("shift_y", np.float64),
        ("shift_x", np.float64),
        *((name + suffix, np.float64) for name in ERRORS for suffix in ("", "_stderr")),
    ]
)


@dataclass(frozen=True)
class Filters:
    """Complex filters W, as they lie in the image.

    RMax takes the real part of the inner product with W at ``stride`` m, CMod the modulus at 2 m.
    """

    bank: PacketBank | None
    kernels: NDArray[np.complex128] | None
    stride: int
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        if self.bank is not None:
            return (self.bank.filters.shape[1],) * 2
        return self.kernels.shape[1:]  # type: ignore[union-attr]

    def __iter__(self) -> Iterator[NDArray[np.complex128]]:
        if self.bank is not None:
            for row in self.table:
                yield self.bank.atom(int(row["sign"]), int(row["row"]), int(row["col"]))
        else:
            yield from self.kernels  # type: ignore[misc]


def as_filters(
    bank_or_kernels: Any, stride: int | None = None, colour: ArrayLike | None = None
) -> Filters:
    """Return the filters of a packet bank or of a layer's kernels (see :func:`characterize`)."""
    if isinstance(bank_or_kernels, PacketBank):
        bank = bank_or_kernels
        m = 2 ** (bank.depth - 1)
        if colour is not None or stride not in (None, m):
            raise ValueError(
                f"stride and colour are for kernels; a bank of depth {bank.depth} has stride {m}"
            )
        return Filters(bank, None, m, bank.atoms())
    m = as_count(2 if stride is None else stride, "stride")
    kernels = analytic_kernels(bank_or_kernels, colour)
    return Filters(None, kernels, m, characterize(bank_or_kernels, m, colour))


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
    for name in ERRORS:
        table[name] = table[name + "_stderr"] = np.nan
    table["filter"] = np.arange(len(filters))
    for name in ("theta_y", "theta_x", "frequency", "orientation"):
        table[name] = filters.table[name]
    table["shift_y"], table["shift_x"] = shifts[:, :1], shifts[:, 1:]
    return table
