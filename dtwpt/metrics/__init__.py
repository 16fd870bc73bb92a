"""Stability of a classifier under shifts, measured.

The functions need torch alone. The classes :class:`FlipRate`, :class:`Consistency` and
:class:`ShiftKLDivergence` are torchmetrics metrics, which accumulate over batches and processes;
they need the extra ``metrics``. All of them take what :func:`shifted_outputs` returns.

Examples
--------
>>> import torch
>>> from dtwpt.metrics import flip_rate, random_shifts, shifted_outputs, consistency
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
>>> images = torch.randn(8, 3, 48, 48)
>>> sequence = shifted_outputs(model, images, size=32, shifts=range(9))
>>> rates = flip_rate(sequence, reference="first", per_shift=True)  # 1 to 8 pixels
>>> shifts = random_shifts(2, len(images), 8, generator=torch.Generator().manual_seed(0))
>>> agreement = consistency(shifted_outputs(model, images, 32, shifts))
"""

from typing import TYPE_CHECKING, Any

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError('dtwpt.metrics needs torch: pip install "dtwpt[torch]"') from error

from dtwpt.metrics.functional import consistency, flip_rate, shift_kl_divergence
from dtwpt.metrics.shifts import random_shifts, shifted_crops, shifted_outputs

if TYPE_CHECKING:
    from dtwpt.metrics.modular import Consistency, FlipRate, ShiftKLDivergence

__all__ = [
    "Consistency",
    "FlipRate",
    "ShiftKLDivergence",
    "consistency",
    "flip_rate",
    "random_shifts",
    "shift_kl_divergence",
    "shifted_crops",
    "shifted_outputs",
]


def __getattr__(name: str) -> Any:
    # Looked up when asked for: torchmetrics is slow to import, and the functions do without it.
    if name in ("Consistency", "FlipRate", "ShiftKLDivergence"):
        from dtwpt.metrics import modular

        return getattr(modular, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
