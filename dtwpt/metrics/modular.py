"""torchmetrics classes of the metrics: accumulated over batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dtwpt.checks import as_count, as_int
from dtwpt.metrics.functional import (
    as_double,
    as_reference,
    count_agreements,
    count_flips,
    shift_changes,
    shift_kl_divergences,
)

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        'the classes of dtwpt.metrics need torchmetrics: pip install "dtwpt[metrics]"'
    ) from error

__all__ = ["Consistency", "FlipRate", "ShiftChange", "ShiftKLDivergence"]


class _Mean(Metric):
    """A sum over a count, both of them added up over batches and processes."""

    full_state_update = False
    plot_lower_bound = 0.0

    def __init__(
        self, name: str, num_shifts: int | None, step: int, whole: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.step = as_count(step, "step")
        accepted = f"None or an integer of at least {self.step + 1}"
        if num_shifts is not None:
            num_shifts = as_int(num_shifts, "num_shifts", accepted)
            if num_shifts <= self.step:
                raise ValueError(f"num_shifts must be {accepted}, got {num_shifts}")
        self.num_shifts, self._whole = num_shifts, whole
        shape = () if num_shifts is None else (num_shifts - self.step,)
        total = torch.zeros(shape, dtype=torch.int64) if whole else torch.zeros(*shape, 3)
        # A collection takes metrics whose states have the same names and values for one and the
        # same.
        name += f"_{self.step}" if self.step > 1 else ""
        self._total, self._count = f"{name}_total", f"{name}_count"
        self.add_state(self._total, total, dist_reduce_fx="sum" if whole else _sum_of_parts)
        self.add_state(self._count, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, sums: Tensor, count: int) -> None:
        """Add sums (pairs of shifts,) of that many numbers each."""
        if self.num_shifts is None:
            self._accumulate(sums.sum(), count * len(sums))
        elif self.num_shifts != len(sums) + self.step:
            raise ValueError(
                f"outputs must have num_shifts = {self.num_shifts} shifts, got "
                f"{len(sums) + self.step}"
            )
        else:
            self._accumulate(sums, count)

    def _accumulate(self, sums: Tensor, count: int) -> None:
        total = getattr(self, self._total)
        added = total + sums if self._whole else _parts(_number(total) + sums).to(total.device)
        setattr(self, self._total, added)
        setattr(self, self._count, getattr(self, self._count) + count)

    def compute(self) -> Tensor:
        """Return the metric over all updates since the last reset, on the CPU."""
        total, count = getattr(self, self._total), int(getattr(self, self._count))
        if count == 0:
            raise RuntimeError(f"{type(self).__name__} has no data yet: call update first")
        return (as_double(total) if self._whole else _number(total)) / count

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or several; see the ``plot`` of any torchmetrics metric."""
        return self._plot(val, ax)


# A float64 is the sum of three float32, and not every device has float64.


def _parts(number: Tensor) -> Tensor:
    """Split float64 (...,) into float32 (..., 3)."""
    high = number.float()
    rest = number - high.double()
    middle = rest.float()
    return torch.stack((high, middle, (rest - middle.double()).float()), -1)


def _number(parts: Tensor) -> Tensor:
    """Join the parts that :func:`_parts` split, on the CPU."""
    return as_double(parts).sum(-1)


def _sum_of_parts(parts: Tensor) -> Tensor:
    """Add the first axis."""
    return _parts(_number(parts).sum(0)).to(parts.device)


class FlipRate(_Mean):
    """Share of predictions that change along a sequence of shifts.

    Parameters
    ----------
    reference : {"previous", "first"}, default: "previous"
        Whether a prediction is compared with that of an earlier shift, or with the first one.
    num_shifts : int, optional
        If given, every update must have this number S of shifts, and the result is one value for
        each pair, shape (S - step,), instead of their mean, the mean flip rate.
    step : int, default: 1
        How many shifts earlier. A ``MetricCollection`` of one metric for each step accumulates the
        :func:`flip_curve`.
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
        self,
        reference: str = "previous",
        num_shifts: int | None = None,
        step: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(f"flips_{reference}", num_shifts, step, True, **kwargs)
        self.reference = as_reference(reference)

    def update(self, outputs: Tensor) -> None:
        """Add a batch: logits (S, N, K) or predicted classes (S, N), as in :func:`flip_rate`."""
        self._add(*count_flips(outputs, self.reference, self.step))


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
        super().__init__("agreements", None, 1, True, **kwargs)

    def update(self, outputs: Tensor) -> None:
        """Add a batch: logits (S, N, K) or predicted classes (S, N), as in :func:`consistency`."""
        agreeing, pairs = count_agreements(outputs)
        self._accumulate(agreeing, pairs)


class ShiftKLDivergence(_Mean):
    """Kullback-Leibler divergence between the class probabilities of shifted inputs.

    Parameters
    ----------
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with an earlier one, or with the first one.
    num_shifts : int, optional
        If given, every update must have this number S of shifts, and the result is one value for
        each pair, shape (S - step,), instead of their mean.
    step : int, default: 1
        How many shifts earlier.
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
    _name = "divergence"
    _of_pairs = staticmethod(shift_kl_divergences)

    def __init__(
        self,
        reference: str = "first",
        num_shifts: int | None = None,
        step: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(f"{self._name}_{reference}", num_shifts, step, False, **kwargs)
        self.reference = as_reference(reference)

    def update(self, outputs: Tensor) -> None:
        """Add a batch, shape (S, N, ...)."""
        values = self._of_pairs(outputs, self.reference, self.step)
        self._add(values.sum(1), values.shape[1])


class ShiftChange(ShiftKLDivergence):
    """Relative squared change of embeddings or feature maps when the input shifts.

    Parameters
    ----------
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with an earlier one, or with the first one.
    num_shifts : int, optional
        If given, every update must have this number S of shifts, and the result is one value for
        each pair, shape (S - step,), instead of their mean.
    step : int, default: 1
        How many shifts earlier.
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
    shift_change : the same of one batch, its definition.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import ShiftChange
    >>> metric = ShiftChange()
    >>> metric(torch.tensor([[[3.0, 4.0]], [[3.0, 3.0]]]))  # two shifts of an image
    tensor(0.0400, dtype=torch.float64)
    """

    _name = "change"
    _of_pairs = staticmethod(shift_changes)
