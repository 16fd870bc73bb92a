"""Stability of a model under shifts: of predictions, probabilities, embeddings, segmentations.

The functions need torch alone. The classes :class:`FlipRate`, :class:`Consistency`,
:class:`ShiftKLDivergence` and :class:`ShiftChange` are torchmetrics metrics, which accumulate over
batches and processes; they need the extra ``metrics``. All of them take what
:func:`shifted_outputs` returns. Results are float64 on the CPU, whatever device the outputs are on.

Examples
--------
>>> import torch
>>> from dtwpt.metrics import consistency, flip_curve, random_shifts, shifted_outputs, shifts_along
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
>>> images = torch.randn(8, 3, 48, 48)
>>> sequence = shifted_outputs(model, images, 32, shifts_along("diagonal", 8))
>>> rates = flip_curve(sequence)  # 1 to 8 pixels apart
>>> shifts = random_shifts(2, len(images), 8, generator=torch.Generator().manual_seed(0))
>>> agreement = consistency(shifted_outputs(model, images, 32, shifts))
"""

from typing import TYPE_CHECKING, Any

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError('dtwpt.metrics needs torch: pip install "dtwpt[torch]"') from error

from dtwpt.metrics.comparison import compare
from dtwpt.metrics.correct import Fidelity, fidelity, worst_case_accuracy
from dtwpt.metrics.functional import (
    consistency,
    flip_curve,
    flip_rate,
    flip_ratio,
    shift_change,
    shift_kl_divergence,
)
from dtwpt.metrics.images import shifted_crops, shifted_images, ten_crops, unshifted_maps
from dtwpt.metrics.layers import MaxSamplingBias, equivariance_error, max_sampling_bias
from dtwpt.metrics.outputs import shifted_outputs, ten_crop_probabilities
from dtwpt.metrics.shifts import random_shifts, shifts_along

if TYPE_CHECKING:
    from dtwpt.metrics.modular import Consistency, FlipRate, ShiftChange, ShiftKLDivergence

__all__ = [
    "Consistency",
    "Fidelity",
    "FlipRate",
    "MaxSamplingBias",
    "ShiftChange",
    "ShiftKLDivergence",
    "compare",
    "consistency",
    "equivariance_error",
    "fidelity",
    "flip_curve",
    "flip_rate",
    "flip_ratio",
    "max_sampling_bias",
    "random_shifts",
    "shift_change",
    "shift_kl_divergence",
    "shifted_crops",
    "shifted_images",
    "shifted_outputs",
    "shifts_along",
    "ten_crop_probabilities",
    "ten_crops",
    "unshifted_maps",
    "worst_case_accuracy",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: torchmetrics is slow to import, and the functions do not need it.
    if name in ("Consistency", "FlipRate", "ShiftChange", "ShiftKLDivergence"):
        from dtwpt.metrics import modular

        return getattr(modular, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
