"""Change of a model's output when its input shifts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from dtwpt.checks import as_count

__all__ = [
    "as_double",
    "as_labels",
    "as_reference",
    "consistency",
    "count_agreements",
    "count_flips",
    "flip_curve",
    "flip_rate",
    "flip_ratio",
    "shift_change",
    "shift_changes",
    "shift_kl_divergence",
    "shift_kl_divergences",
]


def flip_rate(
    outputs: Tensor, reference: str = "previous", *, step: int = 1, per_shift: bool = False
) -> Tensor:
    """Share of predictions that change along a sequence of shifts.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K), (S, N, K, H, W), (S, N) or (S, N, H, W)
        For each of S shifts and N images, logits or probabilities of K classes, of the image or of
        every pixel of it; or integers, the predicted classes. :func:`shifted_outputs` gives them;
        those of pixels must have been shifted back (:func:`unshifted_maps`).
    reference : {"previous", "first"}, default: "previous"
        Whether a prediction is compared with that of an earlier shift, or with the first one.
    step : int, default: 1
        How many shifts earlier. All pairs of shifts that far apart count.
    per_shift : bool, default: False
        One value for each pair of shifts, instead of their mean, the mean flip rate. With
        shifts 0, 1, 2, ... and ``reference="first"`` these are the flip rates by number of pixels.

    Returns
    -------
    Tensor, shape () or (S - step,), float64, on the CPU
        From 0, no prediction changes, to 1.

    Raises
    ------
    TypeError, ValueError
        If ``outputs`` has another dtype or shape, too few shifts or classes, no image, or
        values that are not finite; if ``reference`` is unknown, or ``step`` is not 1 with "first".

    See Also
    --------
    flip_curve : the same at every step.
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
    >>> flip_rate(classes, step=3)
    tensor(0.5000, dtype=torch.float64)
    >>> flip_rate(classes, reference="first", per_shift=True)
    tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    flips, decisions = count_flips(outputs, reference, step)
    rates = as_double(flips) / decisions
    return rates if per_shift else rates.mean()


def flip_curve(outputs: Tensor) -> Tensor:
    """Mean flip rate at k, for every k: the share of predictions that differ k shifts apart.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K), (S, N, K, H, W), (S, N) or (S, N, H, W)
        As for :func:`flip_rate`, at shifts that are equally far apart: see :func:`shifts_along`.

    Returns
    -------
    Tensor, shape (S - 1,), float64, on the CPU
        At k = 1 to S - 1: over all images and all S - k pairs of shifts that are k apart.

    Raises
    ------
    TypeError, ValueError
        As :func:`flip_rate` does.

    See Also
    --------
    flip_ratio : in relation to a baseline.

    Notes
    -----
    The measure of H. Leterme, K. Polisano, V. Perrier, K. Alahari, arXiv 2212.00394, at shifts of 0
    to 8 pixels.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_curve
    >>> flip_curve(torch.tensor([[3, 1], [3, 2], [3, 2], [0, 1]]))  # four shifts of two images
    tensor([0.5000, 0.7500, 0.5000], dtype=torch.float64)
    """
    steps = range(1, len(as_labels(outputs)))
    return torch.stack([flip_rate(outputs, step=step) for step in steps])


def flip_ratio(curve: Tensor, baseline: Tensor) -> Tensor:
    """Mean flip rate in relation to a baseline network's, averaged over k.

    Parameters
    ----------
    curve, baseline : Tensor, shape (S - 1,)
        As :func:`flip_curve` gives them of a network and of the baseline.

    Returns
    -------
    Tensor, shape (), float64, on the CPU
        The mean of ``curve / baseline``; below 1, the network flips less.

    Raises
    ------
    TypeError, ValueError
        If the curves are no tensors of one shape, or the baseline never flips at some k.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_ratio
    >>> flip_ratio(torch.tensor([0.1, 0.1]), torch.tensor([0.2, 0.1]))
    tensor(0.7500, dtype=torch.float64)
    """
    for name, given in (("curve", curve), ("baseline", baseline)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(given).__name__}")
    if curve.ndim != 1 or curve.shape != baseline.shape:
        raise ValueError(
            "curve and baseline must have one shape (S - 1,), got "
            f"{tuple(curve.shape)} and {tuple(baseline.shape)}"
        )
    ours, theirs = as_double(curve), as_double(baseline)
    if not (theirs > 0).all():
        raise ValueError("baseline must be positive: a network that never flips has no ratio to it")
    return (ours / theirs).mean()


def consistency(outputs: Tensor) -> Tensor:
    """Top-1 consistency: how often the predictions at two shifts of an image agree.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K), (S, N, K, H, W), (S, N) or (S, N, H, W)
        As for :func:`flip_rate`, at shifts drawn at random, two or more: see
        :func:`random_shifts`. All pairs of shifts count.

    Returns
    -------
    Tensor, shape (), float64, on the CPU
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
    R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019. Of segmentation maps
    that were shifted back it is the share of pixels that agree.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import consistency
    >>> consistency(torch.tensor([[3, 1, 4, 1], [3, 1, 4, 2]]))
    tensor(0.7500, dtype=torch.float64)
    """
    agreeing, pairs = count_agreements(outputs)
    return as_double(agreeing) / pairs


def shift_kl_divergence(
    outputs: Tensor, reference: str = "first", *, step: int = 1, per_shift: bool = False
) -> Tensor:
    """Kullback-Leibler divergence between the class probabilities of shifted inputs.

    The mean of ``KL(p || q)`` over images and shifts, p being the softmax of the logits at
    the reference and q that at the shift.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, K) or (S, N, K, H, W), floating-point
        Logits, not probabilities, for each of S shifts and N images, or for every pixel of them.
        :func:`shifted_outputs` gives them, with ``scale=2`` at half-pixel shifts.
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with an earlier one, or with the first one.
    step : int, default: 1
        How many shifts earlier.
    per_shift : bool, default: False
        One value for each pair of shifts, instead of their mean.

    Returns
    -------
    Tensor, shape () or (S - step,), float64, on the CPU
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
    divergences = shift_kl_divergences(outputs, reference, step).mean(1)
    return divergences if per_shift else divergences.mean()


def shift_change(
    outputs: Tensor, reference: str = "first", *, step: int = 1, per_shift: bool = False
) -> Tensor:
    """Relative squared change of embeddings or feature maps when the input shifts.

    The mean over images and shifts of ``|z' - z|^2 / |z|^2``, z being the output at the
    reference and z' that at the shift.

    Parameters
    ----------
    outputs : Tensor, shape (S, N, ...), floating-point
        Of S shifts and N images. Maps must have been shifted back (:func:`unshifted_maps`).
    reference : {"previous", "first"}, default: "first"
        Whether a shift is compared with an earlier one, or with the first one.
    step : int, default: 1
        How many shifts earlier.
    per_shift : bool, default: False
        One value for each pair of shifts, instead of their mean.

    Returns
    -------
    Tensor, shape () or (S - step,), float64, on the CPU
        Differentiable; 0 where nothing changes, also where all is 0.

    Raises
    ------
    TypeError, ValueError
        If ``outputs`` are not as described, or hold NaN or infinity; or as :func:`flip_rate` does.

    See Also
    --------
    ShiftChange : the same, accumulated over batches.
    dtwpt.invariance.measure : the same of single filters.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import shift_change
    >>> shift_change(torch.tensor([[[3.0, 4.0]], [[3.0, 3.0]]]))  # two shifts of an image
    tensor(0.0400, dtype=torch.float64)
    """
    changes = shift_changes(outputs, reference, step).mean(1)
    return changes if per_shift else changes.mean()


def as_double(values: Tensor) -> Tensor:
    """Return values in float64 on the CPU: not every device has it."""
    double: Tensor = _Double.apply(values)  # type: ignore[no-untyped-call]
    return double


class _Double(torch.autograd.Function):
    """A conversion that leaves no operation in float64 on the device, forwards or backwards."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        exact = values.detach()
        if exact.dtype in (torch.float16, torch.bfloat16):  # NumPy has no bfloat16
            exact = exact.float()
        return torch.from_numpy(exact.cpu().numpy().astype("float64"))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.like = inputs[0].device, inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        device, dtype = ctx.like
        return grad.to(dtype).to(device)


def count_flips(outputs: Any, reference: str, step: Any = 1) -> tuple[Tensor, int]:
    """Return how many predictions change at each pair of shifts, (pairs,) int64, of how many."""
    labels = as_labels(outputs)
    before, after = _pairs(labels, reference, step)
    return (before != after).flatten(1).sum(1), labels[0].numel()


def count_agreements(outputs: Any) -> tuple[Tensor, int]:
    """Return how many pairs of shifts of an image agree, an int64, and how many there are."""
    labels = as_labels(outputs)
    shifts = len(labels)
    agreeing = [(labels[later:] == labels[later - 1]).sum() for later in range(1, shifts)]
    return torch.stack(agreeing).sum(), labels[0].numel() * shifts * (shifts - 1) // 2


def shift_kl_divergences(outputs: Any, reference: str, step: Any = 1) -> Tensor:
    """Return the divergence for each pair of shifts and image, (pairs, N) float64."""
    log_p = as_double(_as_logits(outputs)).log_softmax(2)
    before, after = _pairs(log_p, reference, step)
    divergence = kl_div(after, before.expand_as(after), reduction="none", log_target=True)
    return divergence.sum(2).flatten(2).mean(2) if outputs.ndim > 3 else divergence.sum(2)


def shift_changes(outputs: Any, reference: str, step: Any = 1) -> Tensor:
    """Return the relative squared change for each pair of shifts and image, (pairs, N) float64."""
    _check_floats(outputs)
    if outputs.ndim < 3 or outputs[0, 0].numel() == 0:
        raise ValueError(
            f"outputs must have shape (shifts, images, ...), got {tuple(outputs.shape)}"
        )
    before, after = _pairs(as_double(outputs).flatten(2), reference, step)
    change, energy = (after - before).square().sum(2), before.square().sum(2).expand(len(after), -1)
    # 0 / 0, where both are 0, is no change.
    return change / torch.where((change == 0) & (energy == 0), 1.0, energy)


def _pairs(values: Tensor, reference: str, step: Any) -> tuple[Tensor, Tensor]:
    """Return what shifts are compared with, and the shifts."""
    step = as_count(step, "step")
    if as_reference(reference) == "first":
        if step != 1:
            raise ValueError(f'step must be 1 where reference is "first", got {step}')
        return values[:1], values[1:]
    if step >= len(values):
        raise ValueError(f"step must be less than the number of shifts, {len(values)}, got {step}")
    return values[:-step], values[step:]


def as_reference(reference: Any) -> str:
    """Return ``reference`` if it names one."""
    if reference not in ("previous", "first"):
        raise ValueError(f'reference must be "previous" or "first", got {reference!r}')
    return str(reference)


def as_labels(outputs: Any) -> Tensor:
    """Return the predicted classes, (S, N) or (S, N, H, W) integers."""
    if isinstance(outputs, Tensor) and not (
        outputs.is_floating_point() or outputs.is_complex() or outputs.dtype == torch.bool
    ):
        if outputs.ndim not in (2, 4):
            raise ValueError(
                "outputs of integers must have shape (shifts, images) or (shifts, images, H, W), "
                f"got {tuple(outputs.shape)}"
            )
        _check_counts(outputs)
        return outputs
    return _as_logits(outputs).argmax(2)


def _as_logits(outputs: Any) -> Tensor:
    _check_floats(outputs)
    if outputs.ndim not in (3, 5) or outputs.shape[2] < 2:
        raise ValueError(
            "outputs must have shape (shifts, images, classes) or (shifts, images, classes, H, W), "
            f"at least 2 classes, got {tuple(outputs.shape)}"
        )
    logits: Tensor = outputs
    return logits


def _check_floats(outputs: Any) -> None:
    if not isinstance(outputs, Tensor):
        raise TypeError(f"outputs must be a torch.Tensor, got {type(outputs).__name__}")
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be logits of a floating-point dtype, got {outputs.dtype}")
    if outputs.ndim < 2:
        raise ValueError(
            f"outputs must have shape (shifts, images, ...), got {tuple(outputs.shape)}"
        )
    _check_counts(outputs)
    if not outputs.isfinite().all():
        raise ValueError("outputs must be finite, but hold NaN or infinity")


def _check_counts(outputs: Tensor) -> None:
    if outputs.shape[0] < 2 or outputs[0].numel() < 1:
        raise ValueError(
            "outputs must have at least 2 shifts and 1 image, got "
            f"{outputs.shape[0]} and {outputs.shape[1]}"
        )
