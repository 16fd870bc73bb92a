"""Learned polyphase sampling: a small network chooses the phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_count
from dtwpt.nn.pooling.borders import padded
from dtwpt.nn.pooling.phases import phases
from dtwpt.nn.pooling.polyphase import Polyphase

__all__ = ["LearnedPolyphasePool2d", "PhaseScore2d", "anneal"]


class PhaseScore2d(nn.Module):
    """Score of a phase: two circular convolutions of 3 x 3, ReLU between them, and their mean.

    Parameters
    ----------
    channels, hidden : int

    Notes
    -----
    Shape: (N, C, H, W) to (N,). A circular shift does not change it.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3)
        self.conv2 = nn.Conv2d(hidden, hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of a batch of phases."""
        x = functional.relu(_circular(x, self.conv1))
        return _circular(x, self.conv2).mean((1, 2, 3))


def _circular(x: Tensor, conv: nn.Conv2d) -> Tensor:
    # In the dtype of the maps, which is float32 at least: the weights may have less.
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    return functional.conv2d(padded(x, (1, 1), (1, 1), "periodic"), conv.weight.to(x.dtype), bias)


class LearnedPolyphasePool2d(Polyphase):
    """Subsample at the phase that a small network scores highest (LPS).

    The same network scores all phases. In training the output is a sum of the phases, with weights
    ``softmax((scores + noise) / temperature)`` and Gumbel noise; lower the temperature with
    :func:`anneal`. In evaluation it is the phase of the highest score, and exact like
    :class:`PolyphasePool2d`; in training it is not.

    Parameters
    ----------
    channels : int
    stride : int, default: 2
        At least 2.
    hidden : int, optional
        Channels between the two convolutions; default: ``channels``.
    temperature : float, default: 1.0
        Positive. A buffer.
    noise : bool, default: True
        Whether training adds Gumbel noise.
    blur, select_on, mode, return_phase
        As in :class:`PolyphasePool2d`; scores are of the maps after the blur by default.
    score : torch.nn.Module, optional
        Another network, from phases (N, C, h, w) to scores (N,). It should not depend on circular
        shifts.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, the input is no batch of floating-point maps, or its height or
        width is no multiple of the stride.

    Notes
    -----
    R. A. Rojas-Gomez, T.-Y. Lim, A. G. Schwing, M. N. Do, R. A. Yeh, "Learnable Polyphase Sampling
    for Shift Invariant and Equivariant Convolutional Networks", NeurIPS 2022, section 4.
    ``9 * channels * hidden + 9 * hidden ** 2 + 2 * hidden`` parameters, which the paper trains
    without weight decay. Scores are computed in float32 at least, also under autocast. Statistics
    of normalisations are those of sums of phases until the temperature is low.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import LearnedPolyphasePool2d
    >>> pool = LearnedPolyphasePool2d(16, hidden=8).eval()
    >>> pool(torch.rand(1, 16, 8, 8)).shape
    torch.Size([1, 16, 4, 4])
    """

    temperature: Tensor

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        hidden: int | None = None,
        temperature: float = 1.0,
        *,
        noise: bool = True,
        blur: int = 1,
        select_on: str = "after",
        mode: str = "periodic",
        return_phase: bool = False,
        score: nn.Module | None = None,
    ) -> None:
        super().__init__(stride, blur, select_on, mode, return_phase)
        self.channels = as_count(channels, "channels")
        hidden = self.channels if hidden is None else as_count(hidden, "hidden")
        self.noise = noise
        self.score = PhaseScore2d(self.channels, hidden) if score is None else score
        self._first_temperature = as_temperature(temperature)
        self.register_buffer("temperature", torch.tensor(self._first_temperature))

    def reset_parameters(self) -> None:
        """Reset the temperature to its initial value."""
        self.temperature.fill_(self._first_temperature)

    def scores(self, x: Tensor) -> Tensor:
        """Return the score of each phase, shape (N, stride ** 2)."""
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        scores: Tensor = self.score(phases(full, self.stride).flatten(0, 1))
        return scores.reshape(-1, self.stride**2)

    def choose(self, x: Tensor) -> Tensor:
        """Return the phase of each image, or in training the weights of its phases."""
        if x.shape[1] != self.channels:
            raise ValueError(f"x must have {self.channels} channels, got {x.shape[1]}")
        scores = self.scores(x)
        if not self.training:
            return scores.argmax(1)
        if self.noise:
            scores = scores - torch.empty_like(scores).exponential_().log()
        return (scores / self.temperature.to(scores.dtype)).softmax(1)


def anneal(model: nn.Module, temperature: float) -> int:
    """Set the temperature of every :class:`LearnedPolyphasePool2d` of a network.

    Parameters
    ----------
    model : torch.nn.Module
    temperature : float
        Positive. The paper's code lowers it over the epochs, from 1 to 0.01 on ImageNet.

    Returns
    -------
    int
        The number of layers.

    Raises
    ------
    TypeError, ValueError
        If the temperature is no positive number.

    Examples
    --------
    >>> from dtwpt.nn import LearnedPolyphasePool2d
    >>> from dtwpt.nn.pooling import anneal
    >>> anneal(LearnedPolyphasePool2d(16), 0.5)
    1
    """
    value = as_temperature(temperature)
    layers = [m for m in model.modules() if isinstance(m, LearnedPolyphasePool2d)]
    for layer in layers:
        layer.temperature.fill_(value)
    return len(layers)


def as_temperature(value: float) -> float:
    """Return ``value`` as a positive float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"temperature must be a positive number, got {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"temperature must be a positive number, got {value!r}")
    return float(value)
