"""The metrics as torchmetrics has them: accumulated over batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dtwpt.checks import as_int
from dtwpt.metrics.functional import (
    as_reference,
    count_agreements,
    count_flips,
    shift_kl_divergences,
)

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        'the classes of dtwpt.metrics need torchmetrics: pip install "dtwpt[metrics]"'
    ) from error

__all__ = ["Consistency", "FlipRate", "ShiftKLDivergence"]


class _Mean(Metric):
    """A sum over a count, both of them added up over batches and processes."""

    full_state_update = False
    plot_lower_bound = 0.0

    def __init__(
        self, name: str, dtype: torch.dtype, num_shifts: int | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        accepted = "None or an integer of at least 2"
        if num_shifts is not None:
            num_shifts = as_int(num_shifts, "num_shifts", accepted)
            if num_shifts < 2:
                raise ValueError(f"num_shifts must be {accepted}, got {num_shifts}")
        self.num_shifts = num_shifts
        shape = () if num_shifts is None else (num_shifts - 1,)
        # A collection takes metrics whose states have the same names and values for one and the
        # same.
        self._total, self._count = f"{name}_total", f"{name}_count"
        self.add_state(self._total, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")
        self.add_state(self._count, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, sums: Tensor, images: int) -> None:
        """Add the sums (S - 1,) over the images at each shift."""
        if self.num_shifts is None:
            self._accumulate(sums.sum(), images * len(sums))
        elif self.num_shifts != len(sums) + 1:
            raise ValueError(
                f"outputs must have num_shifts = {self.num_shifts} shifts, got {len(sums) + 1}"
            )
        else:
            self._accumulate(sums, images)

    def _accumulate(self, total: Any, count: int) -> None:
        setattr(self, self._total, getattr(self, self._total) + total)
        setattr(self, self._count, getattr(self, self._count) + count)

    def compute(self) -> Tensor:
        """Return the metric over all that has been seen since the last reset."""
        total, count = getattr(self, self._total), getattr(self, self._count)
        if count == 0:
            raise RuntimeError(f"{type(self).__name__} has seen nothing yet: call update first")
        mean: Tensor = total.double() / count
        return mean

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or several; see the ``plot`` of any torchmetrics metric."""
        return self._plot(val, ax)


class FlipRate(_Mean):
    """Share of predictions that change along a sequence of shifts.

    Parameters
    ----------
    reference : {"previous", "first"}, default: "previous"
        Whether a prediction is compared with that at the shift before it, or at the first one.
    num_shifts : int, optional
        If given, every update must have this number S of shifts, and the result is one value for
        each after the first, shape (S - 1,), instead of their mean, the mean flip rate.
    **kwargs
        Those of ``torchmetrics.Metric``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    RuntimeError
        From ``compute``, if there has been no update.

    See Also
    --------
    flip_rate : the same of one batch, its definition and source.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import FlipRate
    >>> metric = FlipRate()
    >>> metric.update(torch.tensor([[3, 1], [3, 2]]))  # two shifts of two images
    >>> metric.update(torch.tensor([[3, 1], [3, 1]]))
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    plot_upper_bound = 1.0

    def __init__(
        self, reference: str = "previous", num_shifts: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(f"flips_{reference}", torch.int64, num_shifts, **kwargs)
        self.reference = as_reference(reference)

    def update(self, outputs: Tensor) -> None:
        """Add a batch: logits (S, N, K) or predicted classes (S, N), as in :func:`flip_rate`."""
        self._add(count_flips(outputs, self.reference), outputs.shape[1])


class Consistency(_Mean):
    """Top-1 consistency: how often the predictions at two shifts of an image agree.

    Parameters
    ----------
    **kwargs
        Those of ``torchmetrics.Metric``.

    Raises
    ------
    RuntimeError
        From ``compute``, if there has been no update.

    See Also
    --------
    consistency : the same of one batch, its definition and source.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import Consistency
    >>> metric = Consistency()
    >>> metric(torch.tensor([[3, 1], [3, 2]]))  # two shifts of two images
    tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    plot_upper_bound = 1.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("agreements", torch.int64, None, **kwargs)

    def update(self, outputs: Tensor) -> None:
        """Add a batch: logits (S, N, K) or predicted classes (S, N), as in :func:`consistency`."""
        agreeing, pairs = count_agreements(outputs)
        self._accumulate(agreeing, pairs)


class ShiftKLDivergence(_Mean):
    """Kullback-Leibler divergence between the class probabilities of shifted inputs.

    Parameters
    ----------
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with that before it, or with the first one.
    num_shifts : int, optional
        If given, every update must have this number S of shifts, and the result is one value for
        each after the first, shape (S - 1,), instead of their mean.
    **kwargs
        Those of ``torchmetrics.Metric``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    RuntimeError
        From ``compute``, if there has been no update.

    See Also
    --------
    shift_kl_divergence : the same of one batch, its definition.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import ShiftKLDivergence
    >>> metric = ShiftKLDivergence()
    >>> metric(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()[:, None])  # two shifts of an image
    tensor(0.5108, dtype=torch.float64)
    """

    is_differentiable = True
    higher_is_better = False

    def __init__(
        self, reference: str = "first", num_shifts: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(f"divergence_{reference}", torch.float64, num_shifts, **kwargs)
        self.reference = as_reference(reference)

    def update(self, outputs: Tensor) -> None:
        """Add a batch of logits, shape (S, N, K)."""
        divergences = shift_kl_divergences(outputs, self.reference)
        self._add(divergences.sum(1), divergences.shape[1])
