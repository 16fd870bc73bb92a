"""Outputs of a model for shifted images and for ten crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dtwpt.metrics.images import iterate, ten_crops

__all__ = ["evaluation", "shifted_outputs", "ten_crop_probabilities"]


def shifted_outputs(
    model: Callable[[Tensor], Any],
    images: Tensor,
    size: int | tuple[int, int] | None,
    shifts: ArrayLike | Tensor,
    *,
    by: str = "crop",
    scale: int = 1,
) -> Tensor:
    """Return a model's outputs for shifted images, for the metrics of :mod:`dtwpt.metrics`.

    No gradient is recorded. A module is in evaluation mode for the time of the call.

    Parameters
    ----------
    model : torch.nn.Module or callable
        From (N, C, h, w) to logits or embeddings (N, K), or maps (N, K, h', w'); or to an object or
        dict that has them as ``logits`` or ``out``, as the models of transformers and the
        segmentation models of torchvision do. It is called once for each shift.
    images : Tensor, shape (N, C, H, W)
        On the device and in the dtype that the model takes.
    size : int, (int, int) or None
        (h, w) of the crops, or the side of a square; None unless ``by="crop"``.
    shifts : array_like or Tensor, shape (S,), (S, 2) or (S, N, 2)
        As for :func:`shifted_crops`.
    by : {"crop", "roll", "zero", "fourier"}
        How the images are shifted: by :func:`shifted_crops`, or as in :func:`shifted_images`.
    scale : int, default: 1
        As for :func:`shifted_crops`.

    Returns
    -------
    Tensor, shape (S, N, K) or (S, N, K, h', w')

    Raises
    ------
    TypeError, ValueError
        As :func:`shifted_crops` does, or if the model returns something else.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import flip_rate, shifted_outputs
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
    >>> outputs = shifted_outputs(model, torch.randn(5, 3, 40, 40), size=32, shifts=range(5))
    >>> outputs.shape
    torch.Size([5, 5, 10])
    >>> 0 <= flip_rate(outputs) <= 1
    tensor(True)
    """
    if not callable(model):
        raise TypeError(f"model must be callable, got {type(model).__name__}")
    with evaluation(model), torch.no_grad():
        return torch.stack(
            [_output(model(x), len(x)) for x in iterate(images, size, shifts, by, scale)]
        )


def ten_crop_probabilities(
    model: Callable[[Tensor], Any], images: Tensor, size: int | tuple[int, int]
) -> Tensor:
    """Return the class probabilities of a model, averaged over ten crops of each image.

    No gradient is recorded. A module is in evaluation mode for the time of the call.

    Parameters
    ----------
    model : torch.nn.Module or callable
        From (N, C, h, w) to logits (N, K), as for :func:`shifted_outputs`. It is called ten times.
    images : Tensor, shape (N, C, H, W)
    size : int or (int, int)
        As for :func:`ten_crops`.

    Returns
    -------
    Tensor, shape (N, K)
        Means of the softmax, in float32 at least.

    Raises
    ------
    TypeError, ValueError
        As :func:`ten_crops` does, or if the model returns something else.

    Notes
    -----
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks", NeurIPS 2012: crops as in :func:`ten_crops`, predictions of the softmax averaged.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import ten_crop_probabilities
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
    >>> ten_crop_probabilities(model, torch.randn(5, 3, 40, 40), 32).argmax(1).shape
    torch.Size([5])
    """
    if not callable(model):
        raise TypeError(f"model must be callable, got {type(model).__name__}")
    with evaluation(model), torch.no_grad():
        crops = ten_crops(images, size)
        logits = torch.stack([_output(model(crop), len(crop)) for crop in crops])
    if logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(
            f"model must return logits (N, K), got {tuple(logits.shape[1:])} {logits.dtype}"
        )
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).mean(0)


def _output(output: Any, count: int) -> Tensor:
    for name in ("logits", "out"):
        inside = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(inside, Tensor):
            output = inside
    if not isinstance(output, Tensor):
        raise TypeError(
            "model must return a tensor, or an object or dict with logits or out, got "
            f"{type(output).__name__}"
        )
    if output.ndim < 2 or len(output) != count:
        raise ValueError(
            f"model must return ({count}, K) or ({count}, K, H, W) for {count} images, got "
            f"{tuple(output.shape)}"
        )
    return output


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts back into its own."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
