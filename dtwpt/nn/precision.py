"""Context manager that disables autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["full_dtype"]


def full_dtype(x: Any) -> AbstractContextManager[Any]:
    """Disable autocast; does nothing if it is off, as exported graphs cannot hold the switch."""
    if (
        isinstance(x, torch.Tensor)
        and x.device.type != "meta"  # which autocast does not know
        and torch.is_autocast_enabled(x.device.type)
    ):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
