"""Predictions that stay right under shifts: fidelity and worst_case_accuracy."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dtwpt.metrics.functional import as_double, as_labels, consistency

__all__ = ["Fidelity", "fidelity", "right_at", "worst_case_accuracy"]


class Fidelity(NamedTuple):
    """What :func:`fidelity` returns."""

    joint: Tensor
    product: Tensor


def fidelity(outputs: Tensor, labels: Tensor) -> Fidelity:
    """Share of images that are predicted right at both of two shifts.

    Unlike :func:`consistency` it does not reward a model for being wrong in the same way.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K) or (S, N)
        As for :func:`flip_rate`, of whole images. All pairs of shifts count.
    labels : Tensor, shape (N,), integers
        The true classes.

    Returns
    -------
    Fidelity
        ``joint``: the share. ``product``: the accuracy, averaged over the shifts, times the
        consistency, which articles call stability or fidelity. It equals the share only if being
        right has nothing to do with being consistent. Both of shape (), float64, on the CPU.

    Raises
    ------
    TypeError, ValueError
        As :func:`flip_rate` does, or if the labels do not fit.

    Notes
    -----
    S. Saha and T. Gokhale, "Improving Shift Invariance in Convolutional Neural Networks with
    Translation Invariant Polyphase Sampling", WACV 2025, name the quantity; their tables hold the
    product.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import fidelity
    >>> predicted = torch.tensor([[3, 1, 4, 1], [3, 1, 4, 2]])  # two shifts of four images
    >>> fidelity(predicted, torch.tensor([3, 1, 5, 2]))
    Fidelity(joint=tensor(0.5000, dtype=torch.float64), product=tensor(0.4688, dtype=torch.float64))
    """
    right = right_at(outputs, labels)
    shifts, count = right.shape
    # Of an image that is right at n shifts, n (n - 1) / 2 pairs are right.
    often = right.sum(0)
    pairs = as_double((often * (often - 1)).sum()) / (shifts * (shifts - 1) * count)
    return Fidelity(pairs, as_double(right.sum()) / right.numel() * consistency(outputs))


def worst_case_accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of images that are predicted right at every shift.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K) or (S, N)
        As for :func:`flip_rate`, of whole images.
    labels : Tensor, shape (N,), integers
        The true classes.

    Returns
    -------
    Tensor, shape (), float64, on the CPU
        It falls as shifts are added.

    Raises
    ------
    TypeError, ValueError
        As :func:`flip_rate` does, or if the labels do not fit.

    Notes
    -----
    H. Michaeli, T. Michaeli, D. Soudry, "Alias-Free Convnets: Fractional Shift Invariance via
    Polynomial Activations", CVPR 2023, call it adversarial accuracy under shifts.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import worst_case_accuracy
    >>> predicted = torch.tensor([[3, 1, 4, 1], [3, 1, 4, 2]])  # two shifts of four images
    >>> worst_case_accuracy(predicted, torch.tensor([3, 1, 4, 2]))
    tensor(0.7500, dtype=torch.float64)
    """
    right = right_at(outputs, labels)
    return as_double(right.all(0).sum()) / right.shape[1]


def right_at(outputs: Any, labels: Any) -> Tensor:
    """Return where predictions are right, (S, N) bool."""
    predicted = as_labels(outputs)
    if predicted.ndim != 2:
        raise ValueError(
            f"outputs must be of whole images, (S, N, K) or (S, N), got {tuple(outputs.shape)}"
        )
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != predicted.shape[1:]:
        raise ValueError(
            f"labels must have shape ({predicted.shape[1]},), as many as images, got "
            f"{tuple(labels.shape)}"
        )
    return predicted == labels.to(predicted.device)
