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
    """A module whose constants are kept in float64 and rounded once, to the dtype of the module.

    They are non-persistent buffers: a state dict holds only what was learned. A module in half
    precision keeps them in float32, as filters rounded further would let through what they
    should stop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, NDArray[np.float64]] = {}

    def register_exact(self, name: str, values: NDArray[np.float64]) -> None:
        """Add a buffer."""
        self._exact[name] = values
        default = torch.get_default_dtype()
        self.register_buffer(name, _rounded(values, torch.device("cpu"), default), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in self._exact.items():
            buffer = self.get_buffer(name)
            setattr(self, name, _rounded(values, buffer.device, buffer.dtype))
        return self


def _rounded(values: NDArray[np.float64], device: torch.device, dtype: torch.dtype) -> Tensor:
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.from_numpy(values).to(device, dtype)
