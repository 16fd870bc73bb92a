"""How much the answers of a classifier change when its input shifts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

__all__ = [
    "as_reference",
    "consistency",
    "count_agreements",
    "count_flips",
    "flip_rate",
    "shift_kl_divergence",
    "shift_kl_divergences",
]


def flip_rate(outputs: Tensor, reference: str = "previous", *, per_shift: bool = False) -> Tensor:
    """Share of predictions that change along a sequence of shifts.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K) or (S, N)
        For each of S shifts and N images, logits or probabilities of K classes; or integers, the
        predicted classes. :func:`shifted_outputs` gives them.
    reference : {"previous", "first"}, default: "previous"
        Whether a prediction is compared with that at the shift before it, or at the first one.
    per_shift : bool, default: False
        One value for each shift after the first, instead of their mean, the mean flip rate. With
        shifts 0, 1, 2, ... and ``reference="first"`` these are the flip rates by number of pixels.

    Returns
    -------
    Tensor, shape () or (S - 1,), float64
        From 0, no prediction changes, to 1.

    Raises
    ------
    TypeError, ValueError
        If ``outputs`` has another dtype or shape, fewer than two shifts or classes, no image, or
        values that are not finite; or ``reference`` is unknown.

    See Also
    --------
    FlipRate : the same, accumulated over batches.

    Notes
    -----
    D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
    and Perturbations", ICLR 2019, call this the flip probability. Their flip rate is its
    ratio to that of a baseline network.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_rate
    >>> classes = torch.tensor([[3, 1], [3, 2], [3, 2], [0, 1]])  # four shifts of two images
    >>> flip_rate(classes)
    tensor(0.5000, dtype=torch.float64)
    >>> flip_rate(classes, reference="first", per_shift=True)
    tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    rates = count_flips(outputs, reference).double() / outputs.shape[1]
    return rates if per_shift else rates.mean()


def consistency(outputs: Tensor) -> Tensor:
    """Top-1 consistency: how often the predictions at two shifts of an image agree.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K) or (S, N)
        As for :func:`flip_rate`, at shifts drawn at random, two or more: see
        :func:`random_shifts`. All pairs of shifts count.

    Returns
    -------
    Tensor, shape (), float64
        From 0 to 1, the predictions always agree.

    Raises
    ------
    TypeError, ValueError
        As :func:`flip_rate` does.

    See Also
    --------
    Consistency : the same, accumulated over batches.

    Notes
    -----
    R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import consistency
    >>> consistency(torch.tensor([[3, 1, 4, 1], [3, 1, 4, 2]]))
    tensor(0.7500, dtype=torch.float64)
    """
    agreeing, pairs = count_agreements(outputs)
    return agreeing.double() / pairs


def shift_kl_divergence(
    outputs: Tensor, reference: str = "first", *, per_shift: bool = False
) -> Tensor:
    """Kullback-Leibler divergence between the class probabilities of shifted inputs.

    The mean of ``KL(p || q)`` over images and shifts, p being the softmax of the logits at
    the reference and q that at the shift.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K), floating-point
        Logits, not probabilities, for each of S shifts and N images. :func:`shifted_outputs` gives
        them.
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with that before it, or with the first one.
    per_shift : bool, default: False
        One value for each shift after the first, instead of their mean.

    Returns
    -------
    Tensor, shape () or (S - 1,), float64
        In nats. It is differentiable, so that it also serves as a penalty in training.

    Raises
    ------
    TypeError, ValueError
        As :func:`flip_rate` does.

    See Also
    --------
    ShiftKLDivergence : the same, accumulated over batches.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import shift_kl_divergence
    >>> logits = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()[:, None]  # two shifts of an image
    >>> shift_kl_divergence(logits)
    tensor(0.5108, dtype=torch.float64)
    """
    divergences = shift_kl_divergences(outputs, reference).mean(1)
    return divergences if per_shift else divergences.mean()


def count_flips(outputs: Any, reference: str) -> Tensor:
    """Return how many images change their prediction at each shift, (S - 1,) int64."""
    first = as_reference(reference) == "first"
    labels = _as_labels(outputs)
    return (labels[1:] != (labels[:1] if first else labels[:-1])).sum(1)


def count_agreements(outputs: Any) -> tuple[Tensor, int]:
    """Return how many pairs of shifts of an image agree, an int64, and how many there are."""
    labels = _as_labels(outputs)
    shifts, images = labels.shape
    agreeing = [(labels[later:] == labels[later - 1]).sum() for later in range(1, shifts)]
    return torch.stack(agreeing).sum(), images * shifts * (shifts - 1) // 2


def shift_kl_divergences(outputs: Any, reference: str) -> Tensor:
    """Return the divergence for each shift and image, (S - 1, N) float64."""
    first = as_reference(reference) == "first"
    log_p = _as_logits(outputs).double().log_softmax(-1)
    base = log_p[:1].expand_as(log_p[1:]) if first else log_p[:-1]
    return kl_div(log_p[1:], base, reduction="none", log_target=True).sum(-1)


def as_reference(reference: Any) -> str:
    """Return ``reference`` if it names one."""
    if reference not in ("previous", "first"):
        raise ValueError(f'reference must be "previous" or "first", got {reference!r}')
    return str(reference)


def _as_labels(outputs: Any) -> Tensor:
    """Return the predicted classes, (S, N) integers."""
    if isinstance(outputs, Tensor) and not (
        outputs.is_floating_point() or outputs.is_complex() or outputs.dtype == torch.bool
    ):
        if outputs.ndim != 2:
            raise ValueError(
                f"outputs of integers must have shape (shifts, images), got {tuple(outputs.shape)}"
            )
        _check_counts(outputs)
        return outputs
    return _as_logits(outputs).argmax(-1)


def _as_logits(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError(f"outputs must be a torch.Tensor, got {type(outputs).__name__}")
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be logits of a floating-point dtype, got {outputs.dtype}")
    if outputs.ndim != 3 or outputs.shape[-1] < 2:
        raise ValueError(
            "outputs must have shape (shifts, images, classes), at least 2 classes, got "
            f"{tuple(outputs.shape)}"
        )
    _check_counts(outputs)
    if not outputs.isfinite().all():
        raise ValueError("outputs must be finite, but hold NaN or infinity")
    return outputs


def _check_counts(outputs: Tensor) -> None:
    if outputs.shape[0] < 2 or outputs.shape[1] < 1:
        raise ValueError(
            "outputs must have at least 2 shifts and 1 image, got "
            f"{outputs.shape[0]} and {outputs.shape[1]}"
        )
