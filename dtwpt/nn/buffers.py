"""Constants of a module that follow it to any device and dtype without losing precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["ExactBuffers"]


class ExactBuffers(nn.Module):
    """A module whose constants are kept in NumPy and rounded once, to the dtype of the module.

    They are non-persistent buffers: a state dict holds only what was learned. A module in half
    precision keeps them in float32, as filters rounded further would let through what they
    should stop. Whatever becomes of the module's memory (``to_empty``), they are there again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, NDArray[Any]] = {}

    def register_exact(self, name: str, values: NDArray[Any]) -> None:
        """Add a buffer: floats in the dtype of the module, integers as they are."""
        self._exact[name] = values
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.register_buffer(name, _rounded(values, device, dtype), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in self._exact.items():
            buffer = self.get_buffer(name)
            setattr(self, name, _rounded(values, buffer.device, buffer.dtype))
        return self


def _rounded(values: NDArray[Any], device: torch.device, dtype: torch.dtype) -> Tensor:
    if np.issubdtype(values.dtype, np.integer):
        return torch.from_numpy(values).to(device)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.from_numpy(values).to(device, dtype)
