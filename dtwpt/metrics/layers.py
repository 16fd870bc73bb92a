"""Shift stability of single layers: equivariance_error and max_sampling_bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from dtwpt.checks import as_count, as_int
from dtwpt.metrics.functional import as_double
from dtwpt.metrics.images import shifted_images
from dtwpt.metrics.outputs import evaluation
from dtwpt.metrics.shifts import as_shifts

__all__ = ["MaxSamplingBias", "equivariance_error", "max_sampling_bias"]

Layer = Callable[[Tensor], Tensor]


class MaxSamplingBias(NamedTuple):
    """What :func:`max_sampling_bias` returns."""

    hard: Tensor
    soft: Tensor


def equivariance_error(
    layer: Layer,
    x: Tensor,
    shifts: ArrayLike | Tensor,
    *,
    align: str = "stride",
    per_shift: bool = False,
) -> Tensor:
    r"""How far a layer is from commuting with circular shifts.

    The mean over images and shifts of :math:`|f(T x) - T' f(x)| / |f(x)|`, f being the layer, T
    a circular shift of its input and T' the shift of its output that belongs to it.

    Parameters
    ----------
    layer : torch.nn.Module or callable
        From (N, C, H, W) to (N, C', H', W'). No gradient is recorded; a module is in evaluation
        mode for the time of the call.
    x : Tensor, shape (N, C, H, W), floating-point
    shifts : array_like or Tensor, shape (S,), (S, 2) or (S, N, 2)
        As for :func:`shifted_images`: pixels (down, right), of any fraction.
    align : {"stride", "best"}, default: "stride"
        T': the shift divided by the layer's stride, H / H' and W / W', by Fourier series where
        it is not whole; or for each image the shift by whole samples that fits best, for
        polyphase layers, which choose among the grids.
    per_shift : bool, default: False
        One value for each shift, instead of their mean.

    Returns
    -------
    Tensor, shape () or (S,), float64, on the CPU
        0 where the layer commutes with the shift.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or shape, or the output's size does not divide the
        input's.

    See Also
    --------
    shift_change : of outputs, squared.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import equivariance_error
    >>> x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> subsample = torch.nn.AvgPool2d(1, 2)
    >>> equivariance_error(subsample, x, [2, 4])
    tensor(0., dtype=torch.float64)
    >>> equivariance_error(subsample, x, [1]) > 0.3
    tensor(True)
    """
    if align not in ("stride", "best"):
        raise ValueError(f'align must be "stride" or "best", got {align!r}')
    moves = as_shifts(shifts, len(x), None)
    with evaluation(layer), torch.no_grad():
        still = layer(x)
        rows, columns = _strides(x, still)
        steps = moves / torch.tensor([rows, columns])
        errors = []
        for move, step in zip(moves, steps, strict=True):
            output = layer(_shifted(x, move))
            expected = _shifted(still, step) if align == "stride" else _nearest(still, output)
            change = (output - expected).flatten(1).norm(dim=1)
            errors.append(as_double(change / still.flatten(1).norm(dim=1)).mean())
    each = torch.stack(errors)
    return each if per_shift else each.mean()


def max_sampling_bias(
    layer: Layer,
    x: Tensor,
    *,
    kernel_size: int | None = None,
    padding: int = 0,
    tolerance: float = 1e-6,
) -> MaxSamplingBias:
    """How much a pooling layer prefers the largest value of its window.

    The name is from the literature, the definition ours: none was published that can be computed.

    Parameters
    ----------
    layer : torch.nn.Module or callable
        From (N, C, H, W) to (N, C, H / s, W / s), of an image independently of the others. A module
        is in evaluation mode for the time of the call.
    x : Tensor, shape (N, C, H, W), floating-point
        Small maps: the time grows with the square of C H W.
    kernel_size : int, optional
        Side of the windows, in which maxima are sought; default: the stride s.
    padding : int, default: 0
        Of the windows, as in ``MaxPool2d``.
    tolerance : float, default: 1e-6
        How near to the maximum counts as the maximum, in relation to the largest value of ``x``.

    Returns
    -------
    MaxSamplingBias
        ``hard``: the share of outputs that are the maximum of their window. ``soft``: the mean
        derivative of an output by the input at the maximum of its window, 1 for max pooling and
        1 / s**2 for the average. Both of shape (), float64, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or value, or the layer is not such a pooling.

    Notes
    -----
    S. Saha and T. Gokhale, WACV 2025, found the maximum-sampling bias of networks negatively
    correlated with their shift invariance. "hard" is one reading of their abstract; "soft" also
    distinguishes layers that average with weights.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import max_sampling_bias
    >>> x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> max_sampling_bias(torch.nn.AvgPool2d(2), x)
    MaxSamplingBias(hard=tensor(0., dtype=torch.float64), soft=tensor(0.2500, dtype=torch.float64))
    """
    padding = as_int(padding, "padding", "an integer of at least 0")
    with evaluation(layer), torch.enable_grad():
        inputs = x.detach().clone().requires_grad_()
        output = layer(inputs)
        rows, columns = _strides(x, output)
        side = rows if kernel_size is None else as_count(kernel_size, "kernel_size")
        if rows != columns:
            raise ValueError(f"layer must have one stride, got {rows} down and {columns} across")
        largest, places = functional.max_pool2d(
            x.detach(), side, rows, padding, return_indices=True
        )
        if largest.shape != output.shape:
            raise ValueError(
                f"windows of {side} with padding {padding} must be as many as outputs, got "
                f"{tuple(largest.shape)} and {tuple(output.shape)}"
            )
        derivatives = []
        for channel in range(x.shape[1]):
            for place in range(largest[0, 0].numel()):
                one = output[:, channel].flatten(1)[:, place]
                (slope,) = torch.autograd.grad(one.sum(), inputs, retain_graph=True)
                at = places[:, channel].flatten(1)[:, place, None]
                derivatives.append(slope[:, channel].flatten(1).gather(1, at))
    near = tolerance * x.detach().abs().max()
    hits = (output.detach() - largest).abs() <= near
    hard = as_double(hits.sum()) / hits.numel()
    return MaxSamplingBias(hard, as_double(torch.cat(derivatives)).mean())


def _strides(x: Any, output: Any) -> tuple[int, int]:
    """Return the strides of a layer, from the sizes of its input and its output."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer must return maps (N, C, H, W), got {got}")
    for side, size in zip(output.shape[-2:], x.shape[-2:], strict=True):
        if side == 0 or size % side:
            raise ValueError(
                f"the sides of the output, {tuple(output.shape[-2:])}, must divide those of the "
                f"input, {tuple(x.shape[-2:])}"
            )
    return x.shape[-2] // output.shape[-2], x.shape[-1] // output.shape[-1]


def _shifted(x: Tensor, move: Tensor) -> Tensor:
    whole = torch.equal(move, move.round())  # a roll has no rounding
    by = "roll" if whole else "fourier"
    return shifted_images(x, (move.long() if whole else move)[None], by)[0]


def _nearest(still: Tensor, output: Tensor) -> Tensor:
    """Return ``still``, each image rolled to where it is most like the output."""
    sides = still.shape[-2:]
    spectra = torch.fft.rfft2(still).conj() * torch.fft.rfft2(output)
    fits = torch.fft.irfft2(spectra.sum(1), sides).flatten(1).argmax(1).cpu()
    steps = torch.stack([fits // sides[1], fits % sides[1]], -1)
    return shifted_images(still, steps[None], "roll")[0]
