"""Checks of the tables of errors that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.invariance.filters import ERRORS
from dtwpt.text import shown

__all__ = ["as_error", "as_table", "error_bars"]

_DESCRIPTION = (
    *("filter", "theta_y", "theta_x", "frequency", "orientation"),
    *("shift_y", "shift_x"),
)


def as_error(error: Any) -> str:
    """Return ``error`` if it names one."""
    if not isinstance(error, str) or error not in ERRORS:
        raise ValueError(f"unknown error {shown(error)}; known errors: {', '.join(ERRORS)}")
    return error


def as_table(
    table: Any, name: str, dimensions: int | None = None, errors: Sequence[str] = ()
) -> np.ndarray:
    """Return ``table`` if it is one of predict or measure, of 1 or 2 dimensions."""
    if not isinstance(table, np.ndarray) or table.dtype.names is None:
        raise TypeError(
            f"{name} must be a table of dtwpt.invariance.predict or measure, got "
            f"{type(table).__name__}"
        )
    missing = [
        column
        for column in (*_DESCRIPTION, *(e + end for e in errors for end in ("", "_stderr")))
        if column not in table.dtype.names
    ]
    if missing:
        raise ValueError(f"{name} lacks the columns {', '.join(missing)}")
    if dimensions == 1 and table.ndim == 2:
        raise ValueError(f"{name} must be of one shift: of several, give one row, {name}[k]")
    if dimensions == 2 and table.ndim == 1:
        raise ValueError(
            f"{name} must be of several shifts, shape (n, filters), got shape {table.shape}"
        )
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(
            f"{name} must have shape (filters,) or (n, filters) and rows, got {table.shape}"
        )
    for error in errors:
        if not np.isfinite(table[error]).any():
            raise ValueError(f"{name} has no finite value of {error!r}")
    return table


def error_bars(rows: np.ndarray, error: str) -> NDArray[np.float64]:
    """Return standard errors, 0 where there is none (of one image, say)."""
    return np.nan_to_num(np.asarray(rows[error + "_stderr"], np.float64))
